package dnsb

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// secondary is what is notified: it notes when, and takes its time.
type secondary struct {
	takes time.Duration
	at    []time.Duration
	start time.Time
}

func (s *secondary) Notify(string) error {
	s.at = append(s.at, time.Since(s.start))
	time.Sleep(s.takes)
	return nil
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
		if n := len(to.at); n != 5 || to.at[0] != 0 || to.at[1] != notifyPause {
			t.Errorf("Expected a round at once, and one each %s, got %v", notifyPause, to.at)
		}
		time.Sleep(time.Minute) // the last change is told too, once
		if n := len(to.at); n != 6 {
			t.Errorf("Expected one more round, got %v", to.at)
		}

		to.takes = 18 * time.Second // three that do not answer
		grown <- struct{}{}
		time.Sleep(time.Second)
		cancel()
		before := time.Now()
		<-ended
		if waited := time.Since(before); waited > 0 {
			t.Errorf("Expected the end not to wait for secondaries, waited %s", waited)
		}
		time.Sleep(to.takes)
	})
}
