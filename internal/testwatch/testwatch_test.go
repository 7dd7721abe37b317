package testwatch

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchRunsWithTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := Start(t)
		for _, want := range []time.Duration{0, time.Second, 10 * time.Second} {
			time.Sleep(want - w.Elapsed())
			if got := w.Elapsed(); got != want {
				t.Errorf("Expected %s, got %s", want, got)
			}
		}
	})
}

// TestTimeOfOthersDoesNotCount has a process wait for a core for two seconds.
func TestTimeOfOthersDoesNotCount(t *testing.T) {
	begin := time.Now()
	w := &Watch{last: begin}
	for _, at := range []time.Duration{step, 2 * time.Second, 2*time.Second + step} {
		w.read(begin.Add(at))
	}
	if got, want := w.read(begin.Add(2*time.Second+step+time.Millisecond)), 3*step+late+time.Millisecond; got != want {
		t.Errorf("Expected %s, got %s", want, got)
	}
}
