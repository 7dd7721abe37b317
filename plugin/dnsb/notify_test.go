package dnsb

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// secondary is what is notified: it notes when, and takes its time.
type secondary struct {
	start time.Time

	mu    sync.Mutex
	takes time.Duration
	at    []time.Duration
}

func (s *secondary) Notify(string) error {
	s.mu.Lock()
	s.at = append(s.at, time.Since(s.start))
	takes := s.takes
	s.mu.Unlock()
	time.Sleep(takes)
	return nil
}

// rounds returns when it was notified, and makes it take a time from now on.
func (s *secondary) rounds(takes time.Duration) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = takes
	return s.at
}

func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &secondary{start: time.Now()}
		grown := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { notify(ctx, to, testZone, grown); close(ended) }()
		for range 99 { // ten times a second, for nearly ten seconds
			select {
			case grown <- struct{}{}:
			default:
			}
			time.Sleep(100 * time.Millisecond)
		}
		if at := to.rounds(0); len(at) != 5 || at[0] != 0 || at[1] != notifyPause {
			t.Errorf("Expected a round at once, and one each %s, got %v", notifyPause, at)
		}
		time.Sleep(time.Minute)       // the last change is told too, once
		const dead = 18 * time.Second // three that do not answer
		if at := to.rounds(dead); len(at) != 6 {
			t.Errorf("Expected one more round, got %v", at)
		}
		grown <- struct{}{}
		time.Sleep(time.Second)
		cancel()
		before := time.Now()
		<-ended
		if waited := time.Since(before); waited > 0 {
			t.Errorf("Expected the end not to wait for secondaries, waited %s", waited)
		}
		time.Sleep(dead)
	})
}
