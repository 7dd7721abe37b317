package latencyprobe

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestAlarms checks that alarms go off in their order, also after they were set again or
// canceled.
func TestAlarms(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := withProber(newFake(0)).Watch()
		defer w.Close()
		all := make([]Target, 100)
		addr := netip.MustParseAddr("192.0.2.1")
		for i := range all {
			all[i] = Target{Addr: addr}
			addr = addr.Next()
		}
		w.Set(all)
		for i := range 60 {
			time.Sleep(time.Second)
			m := w.measurement(all[i])
			switch i % 3 {
			case 0:
				m.probeNow()
			case 1:
				m.changeInterval()
			default:
				w.Replace(all[i:i+1], nil)
			}
		}
		time.Sleep(2 * maxFirstDelay) // until no target waits for its address
		synctest.Wait()
		alarms.mu.Lock()
		defer alarms.mu.Unlock()
		if len(alarms.all) != 80 {
			t.Errorf("Expected an alarm for each of 80 targets, got %d", len(alarms.all))
		}
		now := time.Now()
		for i, m := range alarms.all {
			if m.alarm.index != i+1 || alarms.all[(i-1)/2].alarm.at.After(m.alarm.at) || m.alarm.at.Before(now) || m.alarm.at.After(now.Add(6*time.Second)) {
				t.Errorf("Expected a heap of alarms within an interval, got %d at %d: %s", m.alarm.index, i, m.alarm.at.Sub(now))
			}
		}
		if alarms.armed != alarms.all[0].alarm.at {
			t.Errorf("Expected a timer for the first alarm in %s, got %s", alarms.all[0].alarm.at.Sub(now), alarms.armed.Sub(now))
		}
	})
}

// TestTargetsThatWaitHaveNoGoroutine checks that targets need goroutines for probes that
// run only, whether they wait for the next interval or for other probes.
func TestTargetsThatWaitHaveNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(0)
		f.set(0, context.DeadlineExceeded)
		l := withProber(f)
		l.probes[""].timeout = time.Hour
		w := l.Watch()
		defer w.Close()
		all := make([]Target, 2*maxInFlight)
		addr := netip.MustParseAddr("10.0.0.1")
		for i := range all {
			all[i] = Target{Addr: addr}
			addr = addr.Next()
		}
		before := runtime.NumGoroutine()
		w.Set(all)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 2 {
			t.Errorf("Expected no goroutine of targets whose time has not come, got %d", n)
		}
		time.Sleep(maxFirstDelay)
		synctest.Wait()
		if n, running := runtime.NumGoroutine()-before, f.inFlight.Load(); running != maxInFlight || n > maxInFlight+2 {
			t.Errorf("Expected %d probes to run with a goroutine each, got %d with %d", maxInFlight, running, n)
		}
	})
}

// BenchmarkTargets tells what a target takes that was probed for ten minutes and waits
// for its next probe: B, with the stack of a goroutine if it has one. It must be less than
// maxTargetSize.
func BenchmarkTargets(b *testing.B) {
	const maxTargetSize = 4 << 10
	addressLimiter.reset()
	used := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	all := make([]Target, 10_000)
	addr := netip.MustParseAddr("10.0.0.1")
	for i := range all {
		all[i] = Target{Name: addr.String(), Addr: addr}
		addr = addr.Next()
	}
	for b.Loop() {
		before := used()
		l := withProber(newFake(0))
		l.probes[""].interval = time.Hour
		w := l.Watch()
		w.Set(all)
		now := time.Now()
		for _, target := range all {
			m := w.measurement(target)
			for i := range maxSamples {
				o := outcome{ended: now.Add(time.Duration(i-maxSamples) * 5 * time.Second)}
				o.RTT = time.Millisecond
				m.apply(&o, &o)
			}
		}
		size := (used() - before) / float64(len(all))
		b.ReportMetric(size, "B/target")
		if size > maxTargetSize {
			b.Errorf("Expected at most %d bytes for each target, got %.0f", maxTargetSize, size)
		}
		w.Close()
	}
}
