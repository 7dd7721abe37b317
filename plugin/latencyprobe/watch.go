package latencyprobe

import (
	"maps"
	"slices"
	"sync"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

// Watch is a set of targets to measure, and a view of their status. It ends
// with its instance, or by Close; the status stays readable.
type Watch struct {
	probe   *LatencyProbe
	changed wakeup.Signal
	holder  reload.Holder // of measurements

	mu      sync.RWMutex
	targets map[Target]*measurement
	closed  bool
}

// Watch returns a Watch without targets. It is to be called at startup or
// later.
func (l *LatencyProbe) Watch() *Watch {
	w := &Watch{probe: l, changed: wakeup.New()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches == nil {
		l.watches = make(map[*Watch]bool)
	}
	l.watches[w] = true
	return w
}

// openWatches returns the watches that are not closed.
func (l *LatencyProbe) openWatches() []*Watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.watches))
}

func (l *LatencyProbe) closeWatches() {
	for _, w := range l.openWatches() {
		w.Close()
	}
}

// Set replaces the targets. The measurement of a target goes on if this Watch
// had the target already, or if another one has it by the same probe. A target
// whose probe is not configured is not measured.
func (w *Watch) Set(targets []Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	next := make(map[Target]*measurement, len(targets))
	for _, t := range targets {
		s, ok := w.probe.probes[t.Probe]
		if _, twice := next[t]; twice || !ok {
			continue
		}
		m, ok := w.targets[t]
		if !ok {
			m = w.hold(t, s.forTarget(t))
		}
		next[t] = m
	}
	for t, m := range w.targets {
		if _, ok := next[t]; !ok {
			m.removeWatch(w)
			_ = measurements.Drop(&w.holder, m.key) // cannot fail: settings always apply
		}
	}
	w.targets = next
}

func (w *Watch) hold(t Target, s *settings) *measurement {
	m, _ := measurements.Hold(&w.holder, measurementKey{t, s.source(t.Addr), s.id()}, s) // cannot fail
	m.addWatch(w)
	return m
}

// Status returns the status of a target, zero for one that is not in the set.
func (w *Watch) Status(t Target) Status {
	if m := w.measurement(t); m != nil {
		return m.status()
	}
	return Status{}
}

// Statistics returns the statistics of a target's newest samples, zero for one
// that is not in the set.
func (w *Watch) Statistics(t Target) Statistics {
	if m := w.measurement(t); m != nil {
		return m.statistics()
	}
	return Statistics{}
}

func (w *Watch) measurement(t Target) *measurement {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.targets[t]
}

// Changed returns a channel that is written to, coalesced, when a target was
// probed for the first time, its state has changed, or it began or ceased to be
// Failing.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close ends the measurement of targets that no other Watch has.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	for _, m := range w.targets {
		m.removeWatch(w)
	}
	_ = measurements.Release(&w.holder) // cannot fail: settings always apply
	w.probe.mu.Lock()
	delete(w.probe.watches, w)
	w.probe.mu.Unlock()
}

// probed reports whether all targets were probed.
func (w *Watch) probed() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, m := range w.targets {
		if !m.status().Probed {
			return false
		}
	}
	return true
}
