package dnsb

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

// secondary notes when it is notified, which takes a while.
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

// rounds returns the times of all notifications, and sets how long the next
// ones take.
func (s *secondary) rounds(takes time.Duration) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = takes
	return s.at
}

func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &secondary{start: time.Now()}
		due := wakeup.New()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { notify(ctx, to, testZone, due, func(error) {}); close(ended) }()
		for range 99 { // ten times a second, for nearly ten seconds
			due.Set()
			time.Sleep(100 * time.Millisecond)
		}
		if at := to.rounds(0); len(at) != 5 || at[0] != 0 || at[1] != notifyPause {
			t.Errorf("Expected a round at once, and one each %s, got %v", notifyPause, at)
		}
		time.Sleep(time.Minute)       // one more round for the last change
		const dead = 18 * time.Second // three that do not answer
		if at := to.rounds(dead); len(at) != 6 {
			t.Errorf("Expected one more round, got %v", at)
		}
		due.Set()
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
