package latencyprobe

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMeasurementSurvivesReload checks that an unchanged target is measured
// over a reload, and that nothing is when no Watch is open.
func TestMeasurementSurvivesReload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		target, other := at("192.0.2.1"), at("192.0.2.2")
		first := withProber(f).Watch()
		first.Set([]Target{target, other})
		time.Sleep(time.Minute)
		before := first.Status(target).Samples

		l := withProber(f)
		l.probes[""].interval = 10 * time.Second // the measurement stays the same
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
			t.Error("Expected the settings of the youngest instance")
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
		if len(measurements.Values()) != 0 || f.inFlight.Load() != 0 {
			t.Error("Expected nothing to be measured at the end")
		}
		second.Set([]Target{target})
		if len(measurements.Values()) != 0 {
			t.Error("Expected a closed watch to start nothing")
		}
	}) // fails if a goroutine is left
}

// TestFailedReloadRestoresSettings checks that the settings of an instance end
// with it.
func TestFailedReloadRestoresSettings(t *testing.T) {
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
			t.Errorf("Expected the interval of the running instance, got %d probes in 10 minutes", n)
		}
	})
}

// TestReadyWhileClosing checks that Ready and Close do not wait for each other.
func TestReadyWhileClosing(*testing.T) {
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
