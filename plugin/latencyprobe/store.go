package latencyprobe

import (
	"context"
	"maps"
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
	watches int
}

// acquire returns the target of a key, measured by p from now on.
func acquire(key targetKey, p *probe) *target {
	store.mu.Lock()
	defer store.mu.Unlock()
	h, ok := store.targets[key]
	if !ok {
		ctx, cancel := context.WithCancel(context.Background())
		h = &held{target: &target{key: key, cancel: cancel, done: make(chan struct{}), watchers: make(map[*Watch]struct{})}}
		h.conf.Store(p)
		store.targets[key] = h
		go h.run(ctx)
	}
	h.conf.Store(p)
	h.watches++
	return h.target
}

// release gives a target up. The last one stops it.
func release(t *target) {
	store.mu.Lock()
	defer store.mu.Unlock()
	h := store.targets[t.key]
	if h.watches--; h.watches == 0 {
		delete(store.targets, t.key)
		h.cancel()
	}
}

// allTargets returns the targets that are measured now, in no order.
func allTargets() []*target {
	store.mu.Lock()
	defer store.mu.Unlock()
	all := make([]*target, 0, len(store.targets))
	for h := range maps.Values(store.targets) {
		all = append(all, h.target)
	}
	return slices.Clip(all)
}
