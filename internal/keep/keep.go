// Package keep holds state that must outlive the Corefile instance that made
// it: samples, rankings, registrations.
//
// CoreDNS starts the new instance of a reload before it stops the old one, and
// calls no shutdown function for an instance that failed to start. So a value
// belongs to whoever holds it, by key: the new instance joins the old one as a
// holder, the old one lets go, and only what nobody holds any more is closed.
package keep

import (
	"maps"
	"sync"

	"github.com/coredns/caddy"
)

// Keeper owns one value per key, from the first Hold to the last release.
// Close ends a value; values that end together are closed in parallel.
type Keeper[K comparable, V any] struct {
	Close func(key K, value V)

	mu      sync.Mutex
	entries map[K]*entry[V]
	holders map[*Holder]struct{}
}

type entry[V any] struct {
	value   V
	holders map[*Holder]struct{}
}

// Holder stands for one Corefile instance.
type Holder struct{ _ byte }

// Attach returns the holder that stands for c's instance and arranges its
// release: at shutdown, and when it was part of a restart that failed. It is
// to be called in setup; nothing is held until Hold.
func (k *Keeper[K, V]) Attach(c *caddy.Controller) *Holder {
	if h, ok := c.Get(k).(*Holder); ok {
		return h
	}
	h := new(Holder)
	c.Set(k, h)

	var before map[*Holder]struct{}
	c.OnRestart(func() error { before = k.holding(); return nil })
	c.OnRestartFailed(func() error { k.releaseNewcomers(before); return nil })
	c.OnShutdown(func() error { k.Release(h); return nil })
	return h
}

// Hold returns the value of key, made by create if there is none, and keeps it
// alive until h is released. create is called with the keeper locked.
func (k *Keeper[K, V]) Hold(h *Holder, key K, create func() V) V {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.entries == nil {
		k.entries = make(map[K]*entry[V])
		k.holders = make(map[*Holder]struct{})
	}
	e, ok := k.entries[key]
	if !ok {
		e = &entry[V]{value: create(), holders: make(map[*Holder]struct{})}
		k.entries[key] = e
	}
	e.holders[h] = struct{}{}
	k.holders[h] = struct{}{}
	return e.value
}

// Release lets go of all that h holds and returns when the values that nobody
// else holds are closed.
func (k *Keeper[K, V]) Release(h *Holder) {
	k.release(func(other *Holder) bool { return other == h })
}

// holding returns who holds something now.
func (k *Keeper[K, V]) holding() map[*Holder]struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.holders)
}

// releaseNewcomers releases all who hold something now and did not before.
func (k *Keeper[K, V]) releaseNewcomers(before map[*Holder]struct{}) {
	k.release(func(h *Holder) bool { _, old := before[h]; return !old })
}

func (k *Keeper[K, V]) release(drop func(*Holder) bool) {
	ended := make(map[K]V)
	k.mu.Lock()
	for key, e := range k.entries {
		maps.DeleteFunc(e.holders, func(h *Holder, _ struct{}) bool { return drop(h) })
		if len(e.holders) == 0 {
			ended[key] = e.value
			delete(k.entries, key)
		}
	}
	maps.DeleteFunc(k.holders, func(h *Holder, _ struct{}) bool { return drop(h) })
	k.mu.Unlock()

	var wg sync.WaitGroup
	for key, v := range ended {
		wg.Go(func() { k.Close(key, v) })
	}
	wg.Wait()
}

// Values returns what is held now, in no particular order.
func (k *Keeper[K, V]) Values() []V {
	k.mu.Lock()
	defer k.mu.Unlock()
	values := make([]V, 0, len(k.entries))
	for _, e := range k.entries {
		values = append(values, e.value)
	}
	return values
}
