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

	changesMu sync.Mutex
	changes   map[Target]struct{} // since the last call of Changes
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
			w.drop(m)
		}
	}
	w.targets = next
}

// Replace is Set for a change of some targets: it removes some and adds others.
// One that is in both lists stays. It takes a time that depends on these lists only.
func (w *Watch) Replace(removed, added []Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	stays := make(map[Target]bool, len(added))
	for _, t := range added {
		stays[t] = true
		if s, ok := w.probe.probes[t.Probe]; ok && w.targets[t] == nil {
			if w.targets == nil {
				w.targets = make(map[Target]*measurement)
			}
			w.targets[t] = w.hold(t, s.forTarget(t))
		}
	}
	for _, t := range removed {
		if m := w.targets[t]; m != nil && !stays[t] {
			delete(w.targets, t)
			w.drop(m)
		}
	}
}

func (w *Watch) drop(m *measurement) {
	m.removeWatch(w)
	_ = measurements.Drop(&w.holder, m.key) // cannot fail: settings always apply
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
// Failing or Held. Changes tells which ones.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Changes returns the targets that Changed is about, since its last call. It also
// names targets that are not in the set any more. A status that is read afterwards
// has the change.
func (w *Watch) Changes() []Target {
	w.changesMu.Lock()
	defer w.changesMu.Unlock()
	changes := slices.Collect(maps.Keys(w.changes))
	clear(w.changes)
	return changes
}

// wake tells that the status of a target has changed.
func (w *Watch) wake(t Target) {
	w.changesMu.Lock()
	if w.changes == nil {
		w.changes = make(map[Target]struct{})
	}
	w.changes[t] = struct{}{}
	w.changesMu.Unlock()
	w.changed.Set()
}

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
