// Package wakeup tells goroutines that there is something to do. Wake-ups that
// come while a goroutine is busy are one: it looks at the state as it is then.
package wakeup

import (
	"maps"
	"slices"
	"sync"
)

// Signal wakes one goroutine. Use New.
type Signal chan struct{}

// New returns a Signal that is not set.
func New() Signal { return make(Signal, 1) }

// Set wakes the goroutine that receives from the Signal, now or when it does.
// It never waits.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Pending reports whether a wake-up has not been received yet.
func (s Signal) Pending() bool { return len(s) > 0 }

// Broadcast wakes all its subscribers. The zero value is ready.
type Broadcast struct {
	mu          sync.Mutex
	subscribers map[Signal]bool
}

// Subscribe returns a channel that is written to on each Set, and the function
// that ends the subscription.
func (b *Broadcast) Subscribe() (changed <-chan struct{}, unsubscribe func()) {
	s := New()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscribers == nil {
		b.subscribers = make(map[Signal]bool)
	}
	b.subscribers[s] = true
	return s, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subscribers, s)
	}
}

// Set wakes all subscribers. It never waits for them.
func (b *Broadcast) Set() {
	b.mu.Lock()
	subscribers := slices.Collect(maps.Keys(b.subscribers))
	b.mu.Unlock()
	for _, s := range subscribers {
		s.Set()
	}
}
