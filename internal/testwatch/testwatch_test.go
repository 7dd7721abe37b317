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

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		after := func(d time.Duration) func() bool { return func() bool { return time.Since(begin) >= d } }
		if took := Wait(t, time.Minute, "two seconds", after(2*time.Second)); took != 2*time.Second {
			t.Errorf("Expected 2s, got %s", took)
		}
		failing := failure{TB: t}
		func() {
			defer func() { _ = recover() }()
			Wait(&failing, time.Second, "an hour", after(time.Hour))
		}()
		if !failing.failed || time.Since(begin) > 4*time.Second {
			t.Errorf("Expected a failure after a second, got %t after %s", failing.failed, time.Since(begin)-2*time.Second)
		}
	})
}

// failure notes that a test fails.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Fatalf(string, ...any) {
	f.failed = true
	panic("the end of a test")
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

// TestLateReadCountsNothing has a goroutine wait for a core after it has read the
// clock.
func TestLateReadCountsNothing(t *testing.T) {
	begin := time.Now()
	w := &Watch{last: begin}
	w.read(begin.Add(step))
	if got := w.read(begin.Add(step / 2)); got != step {
		t.Errorf("Expected %s, got %s", step, got)
	}
	if got, want := w.read(begin.Add(step+time.Millisecond)), step+time.Millisecond; got != want {
		t.Errorf("Expected %s, got %s", want, got)
	}
}
