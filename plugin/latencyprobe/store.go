package latencyprobe

import (
	"context"
	"slices"
	"sync"
)

// store holds the targets of the process, each as long as a Watch wants it. On
// a reload the watches of both instances overlap, so that what both want goes
// on.
var store = struct {
	mu      sync.Mutex
	targets map[targetKey]*held
}{targets: make(map[targetKey]*held)}

type held struct {
	*target
	watches []claim // by whom, oldest first
}

// claim is a Watch's wish for a target, and the settings that it wants it to be
// measured with.
type claim struct {
	watch *Watch
	probe *probe
}

// acquire returns the target of a key, measured as p says from now on.
func acquire(key targetKey, w *Watch, p *probe) *target {
	store.mu.Lock()
	defer store.mu.Unlock()
	h, ok := store.targets[key]
	if !ok {
		ctx, cancel := context.WithCancel(context.Background())
		h = &held{target: &target{
			key: key, cancel: cancel, sooner: make(chan struct{}, 1), watchers: make(map[*Watch]struct{}),
		}}
		h.conf.Store(p)
		store.targets[key] = h
		h.keepState(p.state, true)
		go h.run(ctx)
	}
	h.keepState(p.state, false)
	if p.record != "" {
		add(&h.records, p.record)
	}
	h.measureBy(p)
	h.watches = append(h.watches, claim{w, p})
	return h.target
}

// release gives a target up. The settings are again those of the youngest Watch
// that is left: the younger instance may have failed to start. The last one stops
// the target.
func release(t *target, w *Watch) {
	store.mu.Lock()
	defer store.mu.Unlock()
	h := store.targets[t.key]
	h.watches = slices.DeleteFunc(h.watches, func(c claim) bool { return c.watch == w })
	if n := len(h.watches); n > 0 {
		h.measureBy(h.watches[n-1].probe)
		return
	}
	delete(store.targets, t.key)
	h.cancel()
}

// allTargets returns the targets that are measured now, in no order.
func allTargets() []*target {
	store.mu.Lock()
	defer store.mu.Unlock()
	all := make([]*target, 0, len(store.targets))
	for _, h := range store.targets {
		all = append(all, h.target)
	}
	return all
}
