package latencyprobe

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	l := limiter{free: make(map[addressPair]time.Time)}
	a, b := addressPair{}, addressPair{target: loopback}
	for i, tc := range []struct {
		pair addressPair
		at   time.Duration
		want time.Duration
	}{
		{a, 0, 0}, {b, 0, 0}, {a, 0, time.Second}, {a, 0, 2 * time.Second}, {b, 500 * time.Millisecond, 500 * time.Millisecond}, {a, time.Minute, 0},
	} {
		if got := l.reserve(tc.pair, start.Add(tc.at)); got != tc.want {
			t.Errorf("Probe %d: expected to wait %s, got %s", i, tc.want, got)
		}
	}
	for i := range 5000 {
		l.reserve(addressPair{target: loopback.Next()}, start.Add(time.Hour+time.Duration(i)*time.Second))
	}
	if len(l.free) > 2 {
		t.Errorf("Expected pairs that are free to be removed, got %d", len(l.free))
	}
}

// reset makes all pairs free. A probe of an earlier test may still be in
// flight, so that it takes the lock.
func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.free)
}
