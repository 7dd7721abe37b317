package latencyprobe

import (
	"context"
	"math"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// TestHealthMethodDecides checks that with a health line failures of rtt do not
// make a target down.
func TestHealthMethodDecides(t *testing.T) {
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
			t.Errorf("Expected losses of rtt not to make the target down, got %+v", s)
		}
		rtt.set(time.Millisecond, nil)
		health.set(0, context.DeadlineExceeded)
		failed := time.Now()
		for w.Status(target).State != Down {
			<-w.Changed()
		}
		if took := time.Since(failed); took > 12500*time.Millisecond+addressPause {
			t.Errorf("Expected the failure to be noticed as soon as with one method, took %s", took)
		}
		if s := w.Status(target); s.State != Down || s.Estimate.Value != 1 {
			t.Errorf("Expected the health method to decide, got %+v", s)
		}
	})
}

// TestImpossibleLatencyIsDiscarded checks that a time that no answer can have
// neither enters the estimate nor hides that the target answers.
func TestImpossibleLatencyIsDiscarded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, rtt := range []time.Duration{math.MinInt64, -2 * time.Hour, -1, 0, defaultTimeout + 1, 2 * time.Hour, math.MaxInt64} {
			m := newMeasurement(measurementKey{target: at("192.0.2.1")})
			for _, rtt := range []time.Duration{rtt, 2 * time.Millisecond, rtt} {
				o, ok := m.probe(t.Context(), timed{prober.Result{RTT: rtt, KernelTimed: true}}, defaultTimeout, time.Now())
				if !ok {
					t.Fatal("Expected a probe")
				}
				m.apply(&o, &o)
			}
			if s := m.status(); s.State != Up || s.Samples != 3 || s.Lost != 0 || s.LastRTT != 2*time.Millisecond || s.Estimate.Value != 2 {
				t.Errorf("%s: Expected the state up by three successes, and one latency, got %+v", rtt, s)
			}
		}
	})
}

// sharing is a prober whose probes share something.
type sharing struct {
	timed
	users *atomic.Int32
}

func (s sharing) Hold(addr, source netip.Addr) (release func()) {
	if addr != at("192.0.2.1").Addr || source != loopback {
		return func() {}
	}
	s.users.Add(1)
	return func() { s.users.Add(-1) }
}

// TestMeasurementHoldsWhatProbesShare checks that it does from its start to its
// end, for both methods.
func TestMeasurementHoldsWhatProbesShare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := sharing{timed{prober.Result{RTT: time.Millisecond}}, new(atomic.Int32)}
		l := withProber(p)
		l.probes[""].health, l.probes[""].source4 = p, loopback
		w := l.Watch()
		w.Set([]Target{at("192.0.2.1")})
		for range 10 {
			synctest.Wait()
			if n := p.users.Load(); n != 2 {
				t.Errorf("Expected two users, got %d", n)
			}
			time.Sleep(10 * time.Second)
		}
		w.Close()
		synctest.Wait()
		if n := p.users.Load(); n != 0 {
			t.Errorf("Expected no user at the end, got %d", n)
		}
	})
}
