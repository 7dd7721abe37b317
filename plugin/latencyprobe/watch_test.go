package latencyprobe

import (
	"context"
	"slices"
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

// TestChangesAreThoseOfTargets checks that a Watch names the targets that changed,
// each once, and nothing when none did.
func TestChangesAreThoseOfTargets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		steady, flapping := newFake(time.Millisecond), newFake(time.Millisecond)
		l := withProber(steady)
		l.probes["other"] = withProber(flapping).probes[""]
		one, other := at("192.0.2.1"), at("192.0.2.2")
		other.Probe = "other"
		w := l.Watch()
		defer w.Close()
		w.Set([]Target{one, other})
		time.Sleep(time.Minute)
		changes := w.Changes()
		if len(changes) != 2 || !slices.Contains(changes, one) || !slices.Contains(changes, other) {
			t.Errorf("Expected both targets to have been probed for the first time, got %v", changes)
		}
		time.Sleep(time.Minute)
		if changes := w.Changes(); len(changes) != 0 {
			t.Errorf("Expected no changes, got %v", changes)
		}
		flapping.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		if changes := w.Changes(); len(changes) != 1 || changes[0] != other || w.Status(other).State != Down {
			t.Errorf("Expected the target that is down now, got %v", changes)
		}
	})
}

// TestReplaceIsSetOfTheRest checks that Replace leaves what Set of the resulting
// targets would.
func TestReplaceIsSetOfTheRest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, c := at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3")
		unknown := Target{Name: "x", Addr: a.Addr, Probe: "not configured"}
		l := withProber(newFake(time.Millisecond))
		w := l.Watch()
		defer w.Close()
		for _, tc := range []struct {
			removed, added, want []Target
		}{
			{nil, []Target{a, b, b}, []Target{a, b}},
			{[]Target{a}, []Target{a, c}, []Target{a, b, c}}, // a stays
			{[]Target{b, b, unknown}, []Target{unknown}, []Target{a, c}},
			{[]Target{a, c}, nil, nil},
			{[]Target{a}, []Target{b}, []Target{b}},
		} {
			first := w.measurement(a)
			w.Replace(tc.removed, tc.added)
			if again := w.measurement(a); slices.Contains(tc.want, a) && first != nil && again != first {
				t.Errorf("Expected the measurement of %s to go on", a.Name)
			}
			time.Sleep(time.Minute)
			if got := len(measurements.Values()); got != len(tc.want) || len(w.targets) != got {
				t.Errorf("Expected %d targets to be measured, got %d", len(tc.want), got)
			}
			for _, target := range tc.want {
				if w.Status(target).State != Up {
					t.Errorf("Expected %s to be measured", target.Name)
				}
			}
		}
		w.Close()
		w.Replace(nil, []Target{a})
		if w.Status(a).Probed {
			t.Error("Expected a Watch that is closed to measure nothing")
		}
	})
}
