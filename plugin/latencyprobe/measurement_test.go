package latencyprobe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// testProbe returns the LatencyProbe of c, as setup makes it.
func testProbe(t *testing.T, c *caddy.Controller) *LatencyProbe {
	t.Helper()
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	return Of(c)
}

// fake is a method whose outcome a test decides.
type fake struct {
	*fakeState
}

type fakeState struct {
	mu     sync.Mutex
	rtt    time.Duration
	err    error // context.DeadlineExceeded: after the timeout
	starts []time.Time
	now    atomic.Int32 // in flight
}

func (fake) Method() string { return "fake" }

func (f fake) ID() string { return fmt.Sprintf("fake%p", f.fakeState) }

func (f fake) Probe(ctx context.Context, _, _ netip.Addr) (prober.Result, error) {
	f.now.Add(1)
	defer f.now.Add(-1)
	f.mu.Lock()
	rtt, err := f.rtt, f.err
	f.starts = append(f.starts, time.Now())
	f.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		<-ctx.Done()
		return prober.Result{}, err
	}
	time.Sleep(rtt)
	return prober.Result{RTT: rtt}, err
}

func (f fake) set(rtt time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rtt, f.err = rtt, err
}

func (f fake) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.starts...)
}

func newFake(rtt time.Duration) fake { return fake{&fakeState{rtt: rtt}} }

// withProber returns a LatencyProbe that measures by p.
func withProber(p prober.Prober) *LatencyProbe {
	return &LatencyProbe{probes: map[string]*settings{"": {rtt: p, interval: defaultInterval, timeout: defaultTimeout}}}
}

func at(addr string) Target { return Target{Name: addr, Addr: netip.MustParseAddr(addr)} }

// bubble runs f in fake time, which begins anew: what paths were used before
// lies in its future.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	addressLimiter.reset()
	synctest.Test(t, func(t *testing.T) {
		f(t)
		time.Sleep(time.Minute) // probes in flight end
	})
}

// TestDetection checks how long a death goes unnoticed: 12.5 s at most if
// nothing comes back, 8.5 s if connections are refused.
func TestDetection(t *testing.T) {
	tests := []struct {
		err   error
		limit time.Duration
		lost  uint64
	}{
		{context.DeadlineExceeded, 12500 * time.Millisecond, downAfterSilent},
		{syscall.ECONNREFUSED, 8500 * time.Millisecond, downAfter},
	}
	for _, tc := range tests {
		for range 50 {
			bubble(t, func(t *testing.T) {
				f := newFake(10 * time.Millisecond)
				w := withProber(f).Watch()
				defer w.Close()
				target := at("192.0.2.1")
				w.Set([]Target{target})
				time.Sleep(time.Minute)
				if s := w.Status(target); s.State != Up || s.Lost != 0 || s.Samples < 10 || s.Estimate.Value != 10 {
					t.Fatalf("Unexpected status after a minute: %+v", s)
				}
				f.set(0, tc.err)
				died := time.Now()
				for w.Status(target).State != Down {
					<-w.Changed()
				}
				if took := time.Since(died); took > tc.limit || took < 3*time.Second {
					t.Errorf("Expected %v to be noticed within %s, took %s", tc.err, tc.limit, took)
				}
				if s := w.Status(target); s.Estimate.Value != 10 || s.Lost != tc.lost || s.Reason == "" {
					t.Errorf("Expected losses to be counted and not to enter the latency, got %+v", s)
				}
				f.set(20*time.Millisecond, nil)
				died = time.Now()
				for w.Status(target).State != Up {
					<-w.Changed()
				}
				if took := time.Since(died); took > 7*time.Second {
					t.Errorf("Expected life to be noticed within 7 s, took %s", took)
				}
			})
		}
	}
}

// TestSchedule checks phase, spread and rate of probes.
func TestSchedule(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, slow := newFake(time.Millisecond), newFake(0)
		slow.set(0, context.DeadlineExceeded)
		w, hanging := withProber(f).Watch(), withProber(slow).Watch()
		defer w.Close()
		defer hanging.Close()
		var hang []Target
		addr := netip.MustParseAddr("198.51.100.1")
		for range maxInFlight / 2 {
			hang = append(hang, Target{Addr: addr})
			addr = addr.Next()
		}
		hanging.Set(hang)
		w.Set([]Target{at("192.0.2.1")})
		time.Sleep(10 * time.Minute)
		times := f.times()
		if n := len(times); n < 115 || n > 125 {
			t.Errorf("Expected some 120 probes in 10 minutes, got %d", n)
		}
		different := make(map[time.Duration]bool)
		for i := 1; i < len(times); i++ {
			d := times[i].Sub(times[i-1])
			different[d.Round(10*time.Millisecond)] = true
			if d < 4500*time.Millisecond-time.Millisecond || d > 5500*time.Millisecond {
				t.Errorf("Expected 5 s ±10 %% between probes, whatever hangs, got %s", d)
			}
		}
		if len(different) < 20 {
			t.Errorf("Expected intervals to vary, got %d different ones", len(different))
		}
	})
}

// TestRateOfAddress checks that several probes of an address share its turn.
func TestRateOfAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		l := &LatencyProbe{probes: make(map[string]*settings)}
		var targets []Target
		for _, name := range []string{"a", "b", "c"} {
			l.probes[name] = &settings{name: name, rtt: f, interval: time.Second, timeout: time.Second}
			targets = append(targets, Target{Addr: netip.MustParseAddr("192.0.2.9"), Probe: name})
		}
		w := l.Watch()
		defer w.Close()
		w.Set(targets)
		time.Sleep(time.Minute)
		times := f.times()
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d < addressPause {
				t.Errorf("Expected a second between probes of an address, got %s", d)
			}
		}
		if len(times) < 55 {
			t.Errorf("Expected the turns to be used, got %d probes a minute", len(times))
		}
	})
}

// TestReload checks that an unchanged target goes on over a reload, and that
// nothing runs when nobody watches.
func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		target, other := at("192.0.2.1"), at("192.0.2.2")
		first := withProber(f).Watch()
		first.Set([]Target{target, other})
		time.Sleep(time.Minute)
		before := first.Status(target).Samples

		l := withProber(f)
		l.probes[""].interval = 10 * time.Second // does not make another measurement of it
		second := l.Watch()
		second.Set([]Target{target})
		first.probe.closeWatches()
		if got := second.Status(target); got.Samples != before || got.State != Up {
			t.Errorf("Expected %d samples to survive, got %+v", before, got)
		}
		if got := first.Status(target); got.Samples != before {
			t.Errorf("Expected a closed watch to remain readable, got %+v", got)
		}
		if measurements.Values()[0].settings.Load() != l.probes[""] {
			t.Error("Expected the settings of the younger instance")
		}
		time.Sleep(100 * time.Second)
		if n := second.Status(target).Samples - before; n < 9 || n > 12 {
			t.Errorf("Expected the new interval to count, got %d probes in 100 s", n)
		}
		if len(measurements.Values()) != 1 {
			t.Errorf("Expected one target, got %d", len(measurements.Values()))
		}
		l.closeWatches()
		synctest.Wait()
		if len(measurements.Values()) != 0 || f.now.Load() != 0 {
			t.Error("Expected nothing to be measured at the end")
		}
		second.Set([]Target{target})
		if len(measurements.Values()) != 0 {
			t.Error("Expected a closed watch to start nothing")
		}
	}) // fails if a goroutine is left
}

// TestShorterInterval checks that a new interval does not wait for the old one.
func TestShorterInterval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		target := at("192.0.2.1")
		old, next := withProber(f), withProber(f)
		old.probes[""].interval = time.Hour
		w, v := old.Watch(), next.Watch()
		defer v.Close()
		w.Set([]Target{target})
		time.Sleep(time.Minute)
		v.Set([]Target{target})
		w.Close()
		time.Sleep(time.Minute)
		if n := v.Status(target).Samples; n < 10 {
			t.Errorf("Expected the shorter interval at once, got %d probes in a minute", n)
		}
	})
}

// TestReadyWhileClosing checks that a look at readiness and the end of an
// instance do not wait for each other.
func TestReadyWhileClosing(t *testing.T) {
	for range 200 {
		l := withProber(newFake(time.Millisecond))
		now := time.Now()
		l.started.Store(&now)
		all := []*Watch{l.Watch(), l.Watch(), l.Watch()}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 100 {
				l.Ready()
				l.Report()
			}
		})
		for _, w := range all {
			wg.Go(w.Close)
		}
		wg.Wait()
	}
}

// TestRefusalsAreNotIsolation checks that servers that answer, if only by an
// error, show that our own network works.
func TestRefusalsAreNotIsolation(t *testing.T) {
	for _, err := range []error{syscall.ECONNREFUSED, prober.AnswerError("HTTP status 500")} {
		bubble(t, func(t *testing.T) {
			f := newFake(time.Millisecond)
			l := withProber(f)
			w := l.Watch()
			defer w.Close()
			far := []Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")}
			w.Set(far)
			time.Sleep(time.Minute)
			f.set(0, err)
			time.Sleep(time.Minute)
			if s := w.Status(far[0]); l.Isolated() || s.State != Down {
				t.Errorf("%v: expected all to be down, got %+v", err, s)
			}
		})
	}
}

// TestFailedRestart checks that the settings of an instance that is gone are
// gone with it.
func TestFailedRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		target := at("192.0.2.1")
		old, failed := withProber(f), withProber(f)
		failed.probes[""].interval = time.Hour
		w, v := old.Watch(), failed.Watch()
		defer w.Close()
		w.Set([]Target{target})
		v.Set([]Target{target})
		failed.closeWatches()
		time.Sleep(10 * time.Minute)
		if n := w.Status(target).Samples; n < 110 {
			t.Errorf("Expected the interval of the instance that runs, got %d probes in 10 minutes", n)
		}
	})
}

// TestHealthByAnotherProbe checks that rtt and health may be different things.
func TestHealthByAnotherProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rtt, health := newFake(time.Millisecond), newFake(50*time.Millisecond)
		l := withProber(rtt)
		l.probes[""].health = health
		w := l.Watch()
		defer w.Close()
		target := at("192.0.2.1")
		w.Set([]Target{target})
		time.Sleep(time.Minute)
		rtt.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		if s := w.Status(target); s.State != Up || s.Estimate.Value != 1 || s.Lost == 0 {
			t.Errorf("Expected losses of rtt to be no death, got %+v", s)
		}
		rtt.set(time.Millisecond, nil)
		health.set(0, context.DeadlineExceeded)
		died := time.Now()
		for w.Status(target).State != Down {
			<-w.Changed()
		}
		if took := time.Since(died); took > 12500*time.Millisecond+addressPause {
			t.Errorf("Expected death to be noticed as soon as with one method, took %s", took)
		}
		if s := w.Status(target); s.State != Down || s.Estimate.Value != 1 {
			t.Errorf("Expected the health probe to decide, got %+v", s)
		}
	})
}

// TestIsolation checks that the failure of all is our own.
func TestIsolation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		far := []Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1"), at("2001:db8::1")}
		near := []Target{at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3"), at("10.0.0.4")}
		f, n := newFake(time.Millisecond), newFake(time.Millisecond)
		l, m := withProber(f), withProber(n)
		w, v := l.Watch(), m.Watch()
		defer w.Close()
		w.Set(far)
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		if !l.Isolated() {
			t.Fatal("Expected to be isolated when all targets fail")
		}
		for _, target := range far {
			if s := w.Status(target); s.State != Up {
				t.Errorf("Expected the states to stay, got %+v", s)
			}
		}
		f.set(time.Millisecond, nil)
		time.Sleep(10 * time.Second)
		if l.Isolated() {
			t.Error("Expected isolation to end with the first answer")
		}

		// All but one that is near: it does not end the isolation.
		n.set(time.Millisecond, nil)
		more := append([]Target(nil), far...)
		for i := range byte(20) {
			more = append(more, Target{Addr: netip.AddrFrom4([4]byte{198, 51, 100 + i, 9})})
		}
		w.Set(more)
		v.Set([]Target{at("10.9.9.9")})
		time.Sleep(time.Minute)
		ends := isolation.ended.Load()
		f.set(0, context.DeadlineExceeded)
		time.Sleep(10 * time.Minute)
		if !l.Isolated() || isolation.ended.Load() != ends {
			t.Error("Expected to stay isolated while one of many answers")
		}
		f.set(time.Millisecond, nil)
		time.Sleep(10 * time.Second)
		if l.Isolated() || isolation.ended.Load() != ends+1 {
			t.Error("Expected isolation to end once when the others answer again")
		}

		// All of one network: a real failure.
		v.Set(near)
		defer v.Close()
		time.Sleep(time.Minute)
		n.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		if l.Isolated() {
			t.Error("Expected no isolation while others answer")
		}
		for _, target := range near {
			if s := v.Status(target); s.State != Down {
				t.Errorf("Expected %s to be down, got %+v", target.Name, s)
			}
		}
	})
}
