package latencyprobe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

var errTooManyFiles = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}

// TestLocalFailuresChangeNothing checks that probes that this machine cannot
// send change neither state nor statistics, are logged once, and counted.
func TestLocalFailuresChangeNothing(t *testing.T) {
	for name, line := range map[string]bool{"rtt": false, "rtt and health": true} {
		t.Run(name, func(t *testing.T) {
			logged := logtest.Capture(t)
			bubble(t, func(t *testing.T) {
				f := newFake(time.Millisecond)
				l := withProber(f)
				if line {
					l.probes[""].health = f
				}
				w := l.Watch()
				defer w.Close()
				targets := []Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")}
				w.Set(targets)
				time.Sleep(time.Minute)
				counter := localErrors.WithLabelValues("fake", "files")
				counted := testutil.ToFloat64(counter)
				localFailures.Failed("fake invalid IP", "another") // in this bubble, since its time is not that of other tests
				f.set(0, errTooManyFiles)
				time.Sleep(2 * time.Millisecond) // until a probe that has begun before is over
				before := w.Status(targets[0])
				time.Sleep(9 * time.Minute)
				if after := w.Status(targets[0]); after != before || l.Isolated() {
					t.Errorf("Expected %+v to stay, got %+v", before, after)
				}
				if got := testutil.ToFloat64(counter) - counted; got < 300 {
					t.Errorf("Expected the probes of 9 minutes to be counted, got %v", got)
				}
				logged.Expect(t, "by fake because of this machine, keeping states and rankings: dial tcp: socket: too many open files")
				f.set(time.Millisecond, nil)
				time.Sleep(time.Minute)
				if after := w.Status(targets[0]); after.Lost != 0 || after.Samples <= before.Samples {
					t.Errorf("Expected samples again, got %+v", after)
				}
			})
		})
	}
}

// TestLocalFailuresSlowConfirmations checks that a failure that is to be confirmed
// does not make this machine probe more often while it cannot, and that it is
// confirmed afterwards.
func TestLocalFailuresSlowConfirmations(t *testing.T) {
	for _, method := range []string{"rtt", "health"} {
		for _, interval := range []time.Duration{defaultInterval, time.Minute} {
			t.Run(method+" "+interval.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					f := newFake(time.Millisecond)
					l := withProber(f)
					l.probes[""].interval = interval
					if method == "health" {
						l.probes[""].health = f
					}
					w := l.Watch()
					defer w.Close()
					target := at("192.0.2.1")
					w.Set([]Target{target})
					for w.Status(target).State != Up {
						<-w.Changed()
					}
					f.set(0, syscall.ECONNREFUSED)
					for !w.Status(target).Failing {
						<-w.Changed()
					}
					f.set(0, errTooManyFiles)
					before, begin := len(f.times()), time.Now()
					time.Sleep(30 * time.Minute)
					probes := f.times()[before:]
					last := begin
					for i, pause := range []time.Duration{addressPause, addressPause, 4 * confirmPause, 8 * confirmPause} {
						if got := probes[i].Sub(last); got < pause || got > pause+50*time.Millisecond {
							t.Errorf("Expected attempt %d after %s, got %s", i+1, pause, got)
						}
						last = probes[i]
					}
					// The interval varies by 10 %.
					if most := 10 + int(30*time.Minute*10/(9*interval)); len(probes) > most {
						t.Errorf("Expected at most %d attempts in 30 minutes, got %d", most, len(probes))
					}
					f.set(0, syscall.ECONNREFUSED)
					ended := time.Now()
					for w.Status(target).State != Down {
						<-w.Changed()
					}
					if took := time.Since(ended); took > interval*11/10+downAfter*2*confirmPause {
						t.Errorf("Expected the target to be down an interval after this machine recovered, got %s", took)
					}
				})
			})
		}
	}
}

// TestLocalFailuresDoNotEndIsolation checks that they are neither silence nor
// an answer.
func TestLocalFailuresDoNotEndIsolation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		l := withProber(f)
		w := l.Watch()
		defer w.Close()
		w.Set([]Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")})
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		for !l.Isolated() {
			time.Sleep(time.Second)
		}
		f.set(0, errTooManyFiles)
		time.Sleep(10 * time.Minute)
		if !l.Isolated() {
			t.Error("Expected isolation to last while no probe is sent")
		}
		f.set(time.Millisecond, nil)
		time.Sleep(10 * time.Second)
		if l.Isolated() {
			t.Error("Expected answers to end isolation")
		}
	})
}

// stalledProber is silent, and ends some time after its timeout.
type stalledProber struct{ late time.Duration }

func (stalledProber) Method() string { return "stalled" }

func (stalledProber) ID() string { return "stalled" }

func (p stalledProber) Probe(ctx context.Context, _, _ netip.Addr) (prober.Result, error) {
	<-ctx.Done()
	time.Sleep(p.late)
	return prober.Result{}, ctx.Err()
}

// TestStalledProcessIsNoSilence checks that targets do not go down because this
// process did not run.
func TestStalledProcessIsNoSilence(t *testing.T) {
	for late, want := range map[time.Duration]State{maxStall: Down, maxStall + 1: Unknown} {
		bubble(t, func(t *testing.T) {
			logged := logtest.Capture(t)
			localFailures.Failed("stalled invalid IP", "another") // in this bubble, since its time is not that of other tests
			w := withProber(stalledProber{late}).Watch()
			defer w.Close()
			target := at("192.0.2.1")
			w.Set([]Target{target})
			time.Sleep(time.Minute)
			if s := w.Status(target); s.State != want || (s.Lost > 0) != (want == Down) {
				t.Errorf("Late by %s: Expected %s, got %+v", late, want, s)
			}
			if want == Unknown {
				logged.Expect(t, "by stalled because of this machine, keeping states and rankings: this process did not run for a while: ")
			}
		})
	}
}
