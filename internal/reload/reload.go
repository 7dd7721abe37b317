// Package reload lets state outlive the Corefile instance that made it.
//
// CoreDNS starts the new instance of a reload before it stops the old one, and
// it calls no shutdown function of an instance that failed to start. So state
// that has to survive belongs to a key and not to an instance:
//
//   - Each instance that needs the state holds its key, from its startup on.
//   - The first holder makes the value, the youngest one configures it.
//   - When the youngest holder ends, the youngest one that remains configures
//     the value again. So a failed reload changes nothing.
//   - When the last holder ends, the value is closed.
//
// A plugin has one Owner for each kind of state, in a package variable, and
// calls Attach in its setup function and Hold at startup. A Group is for what
// must only be stopped when its instance ends, whichever way that happens.
package reload

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/coredns/caddy"
)

// Owner owns one value for each key that somebody holds. Values are of type V,
// what an instance wants of a value is of type C.
type Owner[K comparable, V, C any] struct {
	// New makes the value of a key. It is called with the Owner locked.
	New func(key K) V
	// Configure makes a value do what the youngest holder wants. After an error
	// the value is as it was. It is called for one key at a time, with no lock
	// of the Owner held. Nil: there is nothing to configure.
	Configure func(value V, want C) error
	// Close ends a value. Values that end together are closed in parallel. Nil:
	// there is nothing to close.
	Close func(key K, value V)

	mu      sync.Mutex
	entries map[K]*entry[V, C]
	holders map[*Holder]bool
}

type entry[V, C any] struct {
	configuring sync.Mutex // held before Owner.mu
	value       V
	claims      []claim[C] // oldest first
}

// claim is what one holder wants of a value.
type claim[C any] struct {
	holder *Holder
	want   C
}

// Holder stands for one Corefile instance, or for whatever else holds values.
// The zero value is ready.
type Holder struct{ _ byte }

// Attach returns the holder that stands for the instance of c, and arranges its
// release: at shutdown, and when it was part of a reload that failed. It is to
// be called in a setup function.
func (o *Owner[K, V, C]) Attach(c *caddy.Controller) *Holder {
	if h, ok := c.Get(o).(*Holder); ok {
		return h
	}
	h := new(Holder)
	c.Set(o, h)
	var previous map[*Holder]bool
	c.OnRestart(func() error { previous = o.holding(); return nil })
	c.OnRestartFailed(func() error {
		return o.release(func(other *Holder) bool { return !previous[other] })
	})
	c.OnShutdown(func() error { return o.Release(h) })
	return h
}

// Hold makes h the youngest holder of key and returns the value, which is made
// if there is none, and configured. After an error h does not hold the key. A
// holder that holds the key already keeps its age and wants something else now.
func (o *Owner[K, V, C]) Hold(h *Holder, key K, want C) (V, error) {
	o.mu.Lock()
	if o.entries == nil {
		o.entries = make(map[K]*entry[V, C])
		o.holders = make(map[*Holder]bool)
	}
	e, ok := o.entries[key]
	if !ok {
		e = &entry[V, C]{value: o.New(key)}
		o.entries[key] = e
	}
	if i := e.claimOf(h); i >= 0 {
		e.claims[i].want = want
	} else {
		e.claims = append(e.claims, claim[C]{h, want})
	}
	o.holders[h] = true
	o.mu.Unlock()

	if err := o.configure(e); err != nil {
		return e.value, errors.Join(err, o.Drop(h, key))
	}
	return e.value, nil
}

// Update changes what h wants of the value of key. It counts at once if h is
// the youngest holder, else when h is the youngest one that remains. A holder
// that does not hold the key changes nothing.
func (o *Owner[K, V, C]) Update(h *Holder, key K, want C) error {
	o.mu.Lock()
	e := o.entries[key]
	i := e.claimOf(h)
	if i < 0 {
		o.mu.Unlock()
		return nil
	}
	e.claims[i].want = want
	youngest := i == len(e.claims)-1
	o.mu.Unlock()
	if !youngest {
		return nil
	}
	return o.configure(e)
}

// configure applies what the youngest holder wants now.
func (o *Owner[K, V, C]) configure(e *entry[V, C]) error {
	if o.Configure == nil {
		return nil
	}
	e.configuring.Lock()
	defer e.configuring.Unlock()
	o.mu.Lock()
	n := len(e.claims)
	if n == 0 {
		o.mu.Unlock()
		return nil // it has been closed meanwhile
	}
	want := e.claims[n-1].want
	o.mu.Unlock()
	return o.Configure(e.value, want)
}

// Drop ends the hold of h on one key. The errors of Drop and Release are those
// of configuring a value for the holder that remains.
func (o *Owner[K, V, C]) Drop(h *Holder, key K) error {
	o.mu.Lock()
	e := o.entries[key]
	var ended, changed []K
	if i := e.claimOf(h); i >= 0 {
		ended, changed = o.drop(key, e, func(other *Holder) bool { return other == h })
	}
	return o.finish(ended, changed)
}

// Release ends all holds of h, and returns when the values that nobody else
// holds are closed.
func (o *Owner[K, V, C]) Release(h *Holder) error {
	return o.release(func(other *Holder) bool { return other == h })
}

func (o *Owner[K, V, C]) release(gone func(*Holder) bool) error {
	o.mu.Lock()
	var ended, changed []K
	for key, e := range o.entries {
		closing, moved := o.drop(key, e, gone)
		ended, changed = append(ended, closing...), append(changed, moved...)
	}
	maps.DeleteFunc(o.holders, func(h *Holder, _ bool) bool { return gone(h) })
	return o.finish(ended, changed)
}

// drop removes claims from an entry.
func (o *Owner[K, V, C]) drop(key K, e *entry[V, C], gone func(*Holder) bool) (ended, changed []K) {
	youngest := e.claims[len(e.claims)-1].holder
	e.claims = slices.DeleteFunc(e.claims, func(c claim[C]) bool { return gone(c.holder) })
	switch n := len(e.claims); {
	case n == 0:
		return []K{key}, nil
	case e.claims[n-1].holder != youngest:
		return nil, []K{key}
	}
	return nil, nil
}

// finish unlocks the Owner, closes values that nobody holds, and configures
// those whose youngest holder is another one now.
func (o *Owner[K, V, C]) finish(ended, changed []K) error {
	closing := make(map[K]V, len(ended))
	for _, key := range ended {
		closing[key] = o.entries[key].value
		delete(o.entries, key)
	}
	configuring := make([]*entry[V, C], len(changed))
	for i, key := range changed {
		configuring[i] = o.entries[key]
	}
	o.mu.Unlock()

	var closed sync.WaitGroup
	if o.Close != nil {
		for key, value := range closing {
			closed.Go(func() { o.Close(key, value) })
		}
	}
	var failed error
	for _, e := range configuring {
		failed = errors.Join(failed, o.configure(e))
	}
	closed.Wait()
	return failed
}

func (e *entry[V, C]) claimOf(h *Holder) int {
	if e == nil {
		return -1
	}
	return slices.IndexFunc(e.claims, func(c claim[C]) bool { return c.holder == h })
}

// holding returns the holders that hold something.
func (o *Owner[K, V, C]) holding() map[*Holder]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.holders)
}

// Values returns all values that somebody holds, in no particular order.
func (o *Owner[K, V, C]) Values() []V {
	o.mu.Lock()
	defer o.mu.Unlock()
	values := make([]V, 0, len(o.entries))
	for _, e := range o.entries {
		values = append(values, e.value)
	}
	return values
}
