package dnsb

import (
	"fmt"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

// host is a machine with a clock of its own: a bubble, in which functions run one
// after the other. Its clock stands still in between.
type host struct {
	work  chan func()
	done  chan any // what a function panicked with
	ended chan struct{}
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{make(chan func()), make(chan any), make(chan struct{})}
	go func() {
		defer close(h.ended)
		synctest.Test(t, func(*testing.T) {
			for f := range h.work {
				h.done <- panicOf(f)
			}
		})
	}()
	return h
}

func panicOf(f func()) (failure any) {
	defer func() {
		if r := recover(); r != nil {
			failure = fmt.Sprintf("%v\n%s", r, debug.Stack())
		}
	}()
	f()
	return nil
}

// do runs f on the host.
func (h *host) do(f func()) {
	h.work <- f
	if failure := <-h.done; failure != nil {
		panic(failure)
	}
}

// advance makes it that time on the host, and waits for what is due by then. It
// is never earlier than before.
func (h *host) advance(to time.Time) {
	h.do(func() {
		time.Sleep(time.Until(to))
		synctest.Wait()
	})
}

// close ends the host, whose goroutines must have ended.
func (h *host) close() {
	close(h.work)
	<-h.ended
}
