package latencyprobe

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestTimeToDown checks that a failure is noticed within 12.5 s if nothing
// comes back, and within 8.5 s if connections are refused.
func TestTimeToDown(t *testing.T) {
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
				failed := time.Now()
				for w.Status(target).State != Down {
					<-w.Changed()
				}
				if took := time.Since(failed); took > tc.limit || took < 3*time.Second {
					t.Errorf("Expected %v to be noticed within %s, took %s", tc.err, tc.limit, took)
				}
				if s := w.Status(target); s.Estimate.Value != 10 || s.Lost != tc.lost || s.Reason == "" {
					t.Errorf("Expected losses to be counted, and not to enter the estimate, got %+v", s)
				}
				f.set(20*time.Millisecond, nil)
				failed = time.Now()
				for w.Status(target).State != Up {
					<-w.Changed()
				}
				if took := time.Since(failed); took > 7*time.Second {
					t.Errorf("Expected recovery to be noticed within 7 s, took %s", took)
				}
			})
		}
	}
}

// TestSchedule checks that intervals vary, and that hanging probes of other
// targets do not delay a probe.
func TestSchedule(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, slow := newFake(time.Millisecond), newFake(0)
		slow.set(0, context.DeadlineExceeded)
		w, hanging := withProber(f).Watch(), withProber(slow).Watch()
		defer w.Close()
		defer hanging.Close()
		var silent []Target
		addr := netip.MustParseAddr("198.51.100.1")
		for range maxInFlight / 2 {
			silent = append(silent, Target{Addr: addr})
			addr = addr.Next()
		}
		hanging.Set(silent)
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
				t.Errorf("Expected 5 s ±10 %% between probes, got %s", d)
			}
		}
		if len(different) < 20 {
			t.Errorf("Expected intervals to vary, got %d different ones", len(different))
		}
	})
}

// TestProbesShareAddressRate checks that probes of one address by several
// methods take turns.
func TestProbesShareAddressRate(t *testing.T) {
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
			t.Errorf("Expected each turn to be taken, got %d probes a minute", len(times))
		}
	})
}

// TestShorterIntervalStartsAtOnce checks that a new interval does not wait for
// the end of the previous one.
func TestShorterIntervalStartsAtOnce(t *testing.T) {
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
			t.Errorf("Expected the shorter interval, got %d probes in a minute", n)
		}
	})
}
