// Package reminder decides when a failure is logged: when it begins, every ten
// minutes while it lasts, and when it ends.
package reminder

import (
	"sync"
	"time"
)

// Interval is the time between two log lines about the same failure.
const Interval = 10 * time.Minute

// Failure follows one thing that can fail. It is not safe for concurrent use.
// The zero value is ready.
type Failure struct {
	// Delay is how long a failure must last before it is logged.
	Delay time.Duration

	kind   string
	since  time.Time // zero: it works
	logged time.Time // zero: the failure was not logged
}

// Failed notes that the thing fails, and reports whether that is to be logged.
// A failure of another kind is news at once.
func (f *Failure) Failed(kind string) bool {
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	if kind != f.kind {
		f.kind, f.logged = kind, time.Time{}
	}
	if now.Sub(f.since) < f.Delay || !f.logged.IsZero() && now.Sub(f.logged) < Interval {
		return false
	}
	f.logged = now
	return true
}

// Recovered notes that the thing works, and reports whether that is to be
// logged: when its failure was.
func (f *Failure) Recovered() bool {
	logged := !f.logged.IsZero()
	*f = Failure{Delay: f.Delay}
	return logged
}

// Failing reports whether the thing failed when it was last noted.
func (f *Failure) Failing() bool { return !f.since.IsZero() }

// Since returns when the failure began, the zero time if the thing works.
func (f *Failure) Since() time.Time { return f.since }

// maxKeys bounds what Keyed remembers: anybody may choose the keys.
const maxKeys = 1024

// Keyed follows failures by a key, such as the sender of a request. It is safe
// for concurrent use. The zero value is ready.
type Keyed struct {
	mu       sync.Mutex
	failures map[string]*Failure
}

// Failed notes a failure of a key, and reports whether it is to be logged: it
// is of another kind than the last one of that key, or was not logged for
// Interval.
func (k *Keyed) Failed(key, kind string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.failures[key]
	if !ok {
		if k.failures == nil || len(k.failures) >= maxKeys {
			k.failures = make(map[string]*Failure)
		}
		f = new(Failure)
		k.failures[key] = f
	}
	return f.Failed(kind)
}
