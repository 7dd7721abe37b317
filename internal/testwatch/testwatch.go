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

// Watch is a stopwatch.
type Watch struct {
	mu      sync.Mutex
	elapsed time.Duration // until last
	last    time.Time
}

// Start starts a Watch, which runs until the test ends.
func Start(t testing.TB) *Watch {
	t.Helper()
	w, stop := start()
	t.Cleanup(stop)
	return w
}

// Wait waits until ok returns true and returns how long that took. It fails the
// test after limit.
func Wait(t testing.TB, limit time.Duration, event string, ok func() bool) time.Duration {
	t.Helper()
	w, stop := start()
	defer stop()
	for !ok() {
		if w.Elapsed() > limit {
			t.Fatalf("Expected %s within %s", event, limit)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return w.Elapsed()
}

func start() (w *Watch, stop func()) {
	w = &Watch{last: time.Now()}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-time.After(step):
				w.read(time.Now())
			}
		}
	}()
	return w, func() { close(end); <-done }
}

// Elapsed returns the time since the start, less that of others.
func (w *Watch) Elapsed() time.Duration { return w.read(time.Now()) }

func (w *Watch) read(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.After(w.last) { // another goroutine may have read the clock later
		w.elapsed += min(now.Sub(w.last), step+late)
		w.last = now
	}
	return w.elapsed
}
