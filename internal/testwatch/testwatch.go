// Package testwatch tells how long something takes, less the time that a busy
// machine had for others: what must be over within some seconds may take longer
// there, and nobody is to blame.
package testwatch

import (
	"sync"
	"testing"
	"time"
)

// A goroutine sleeps again and again for a step. What a step takes beyond late,
// this process has waited for a core.
const (
	step = 20 * time.Millisecond
	late = 5 * time.Millisecond
)

// Watch is a stopwatch that runs until the test ends.
type Watch struct {
	mu      sync.Mutex
	elapsed time.Duration // until last
	last    time.Time
}

// Start starts a Watch.
func Start(t testing.TB) *Watch {
	t.Helper()
	w := &Watch{last: time.Now()}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(step):
				w.read(time.Now())
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return w
}

// Elapsed returns the time since the start, less that of others.
func (w *Watch) Elapsed() time.Duration { return w.read(time.Now()) }

func (w *Watch) read(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.elapsed += min(max(0, now.Sub(w.last)), step+late)
	w.last = now
	return w.elapsed
}
