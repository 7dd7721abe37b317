package latencyprobe

import (
	"maps"
	"slices"
	"sync"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
)

// Watch is a set of targets that somebody wants to be measured, and the view of
// them. It ends with its instance, or by Close; what it has seen stays readable.
type Watch struct {
	probe   *LatencyProbe
	changed chan struct{}

	mu      sync.RWMutex
	targets map[Target]*target
	closed  bool
}

// watches are those of one LatencyProbe.
type watches struct {
	mu  sync.Mutex
	all map[*Watch]struct{}
}

// running holds the watches that are open, so that those of an instance whose
// start failed in another plugin end as well.
var running = keep.Keeper[*Watch, struct{}]{Close: func(w *Watch, _ struct{}) { w.Close() }}

// Watch returns an empty Watch. It is to be called at start-up or later.
func (l *LatencyProbe) Watch() *Watch {
	w := &Watch{probe: l, changed: make(chan struct{}, 1)}
	running.Hold(l.holder, w, func() struct{} { return struct{}{} })
	l.watches.mu.Lock()
	defer l.watches.mu.Unlock()
	if l.watches.all == nil {
		l.watches.all = make(map[*Watch]struct{})
	}
	l.watches.all[w] = struct{}{}
	return w
}

// open returns the watches that are not closed. It holds no lock when it
// returns: each Watch has its own, and closes itself under that.
func (l *LatencyProbe) open() []*Watch {
	l.watches.mu.Lock()
	defer l.watches.mu.Unlock()
	return slices.Collect(maps.Keys(l.watches.all))
}

// Set makes these the targets. Those that were targets before, here or in
// another Watch with the same probe, keep what is known of them. A target whose
// probe is not configured is not measured.
func (w *Watch) Set(targets []Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	next := make(map[Target]*target, len(targets))
	for _, t := range targets {
		p, ok := w.probe.probes[t.Probe]
		if _, twice := next[t]; twice || !ok {
			continue
		}
		if old, ok := w.targets[t]; ok {
			next[t] = old
			delete(w.targets, t)
			continue
		}
		p = p.of(t)
		got := acquire(targetKey{t, p.source(t.Addr), p.id()}, w, p)
		got.watch(w, true)
		next[t] = got
	}
	w.drop()
	w.targets = next
}

// drop releases all targets.
func (w *Watch) drop() {
	for _, t := range w.targets {
		t.watch(w, false)
		release(t, w)
	}
}

// Status returns what is known of a target, the zero Status for one that was
// never watched here.
func (w *Watch) Status(t Target) Status {
	if got := w.target(t); got != nil {
		return got.status()
	}
	return Status{}
}

// Statistics returns the statistics of a target's newest samples, zero for one
// that was never watched here.
func (w *Watch) Statistics(t Target) Statistics {
	if got := w.target(t); got != nil {
		return got.statistics()
	}
	return Statistics{}
}

func (w *Watch) target(t Target) *target {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.targets[t]
}

// Changed returns a channel that is written to, coalesced, when a target was
// probed for the first time, its state changed, or a failure that is not
// confirmed began or ended.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close ends the measurement of targets that no other Watch has.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	w.drop()
	w.probe.watches.mu.Lock()
	delete(w.probe.watches.all, w)
	w.probe.watches.mu.Unlock()
}

// probed reports whether all targets were probed.
func (w *Watch) probed() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, t := range w.targets {
		if !t.status().Probed {
			return false
		}
	}
	return true
}
