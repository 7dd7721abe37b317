package latencyprobe

import (
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func never() bool { return false }

func TestHealth(t *testing.T) {
	// One letter a probe, at the pace that health asks for: s a success, f a
	// failure, l silence. want holds the state after each: ? unknown, u up, d down; in
	// capitals while a failure is not confirmed.
	tests := []struct{ name, probes, want string }{
		{"the first success is up", "s", "u"},
		{"four failures are down from the start", "ffff", "!!!d"},
		{"four failures in a row are down", "sffff", "uUUUd"},
		{"of silence it takes five", "slllll", "uUUUUd"},
		{"unless there was a refusal", "slfll", "uUUUd"},
		{"three are not", "sfffsfffs", "uUUUuUUUu"},
		{"two successes are up", "sffffss", "uUUUddu"},
		{"in a row", "sffffsfss", "uUUUddddu"},
		{"more failures change nothing", "sfffffff", "uUUUdddd"},
	}
	for _, tc := range tests {
		var h health
		now, got := start, ""
		for _, p := range tc.probes {
			switch p {
			case 's':
				h.success(now)
			case 'f':
				h.failure(now, "refused", false, never)
			case 'l':
				h.failure(now, "timeout", true, never)
			}
			letter := map[State]string{Unknown: "?", Up: "u", Down: "d"}[h.state]
			if h.failing() {
				letter = map[State]string{Unknown: "!", Up: "U", Down: "D"}[h.state]
			}
			got += letter
			now = now.Add(time.Second)
		}
		if got != tc.want {
			t.Errorf("%s: %s: expected %s, got %s", tc.name, tc.probes, tc.want, got)
		}
	}
}

func TestHealthPace(t *testing.T) {
	var h health
	h.success(start)
	if h.urgent() {
		t.Error("Expected no hurry when all is well")
	}
	for i := range fall - 1 {
		h.failure(start, "refused", false, never)
		if !h.urgent() {
			t.Errorf("Expected failure %d to be confirmed", i+1)
		}
	}
	h.failure(start, "refused", false, never)
	if h.urgent() || h.reason != "refused" {
		t.Error("Expected no hurry once it is down, and a reason")
	}
	h.success(start)
	if !h.urgent() {
		t.Error("Expected the first success to be confirmed")
	}
	h.success(start)
	if h.urgent() || h.reason != "" {
		t.Error("Expected no hurry once it is up, and no reason")
	}
}

func TestHoldDown(t *testing.T) {
	var h health
	now := start
	h.success(now)
	down := func() {
		for range fall {
			h.failure(now, "refused", false, never)
		}
	}
	// Returns how long it takes to come up again with a success a second.
	up := func() time.Duration {
		from := now
		for h.state != Up {
			now = now.Add(time.Second)
			h.success(now)
		}
		return now.Sub(from)
	}
	want := []time.Duration{2, 5, 10, 20, 40, 80, 160, 300, 300}
	for i, w := range want {
		down()
		if got := up(); got != w*time.Second {
			t.Errorf("Expected death %d to last %d s, got %s", i+1, w, got)
		}
	}
	now = now.Add(flapTime)
	down()
	if got := up(); got != 2*time.Second {
		t.Errorf("Expected a quiet time to be rewarded, got %s", got)
	}
}

func TestFrozen(t *testing.T) {
	var h health
	h.success(start)
	for range 10 {
		h.failure(start, "timeout", true, func() bool { return true })
	}
	if h.state != Up {
		t.Error("Expected the state to stay while isolated")
	}
}

func TestStatistics(t *testing.T) {
	var s samples
	now := epoch.Add(time.Hour)
	if got := s.statistics(now); got != (Statistics{}) {
		t.Errorf("Expected nothing, got %+v", got)
	}
	s.add(now.Add(-keptTime-time.Minute), time.Second, true) // too old
	for i := range 100 {
		s.add(now, time.Duration(i+1)*time.Millisecond, true)
	}
	s.add(now, 0, false)
	near := func(d, want time.Duration) bool { return (d - want).Abs() < time.Millisecond/100 }
	got := s.statistics(now)
	if got.Samples != 101 || !near(got.Min, time.Millisecond) || !near(got.Jitter, time.Millisecond) || got.Loss < 0.0099 || got.Loss > 0.01 {
		t.Errorf("Unexpected %+v", got)
	}
	if got.P25 < 24*time.Millisecond || got.P25 > 27*time.Millisecond || got.Median < 50*time.Millisecond || got.Median > 52*time.Millisecond || got.P95 < 94*time.Millisecond || got.P95 > 96*time.Millisecond {
		t.Errorf("Unexpected percentiles %+v", got)
	}
	for range keptSamples {
		s.add(now, time.Millisecond, true)
	}
	if got := s.statistics(now); got.Samples != keptSamples || !near(got.P95, time.Millisecond) {
		t.Errorf("Expected the newest samples alone, got %+v", got)
	}
}

func TestLimit(t *testing.T) {
	l := limiter{next: make(map[path]time.Time)}
	a, b := path{}, path{to: loopback}
	for i, tc := range []struct {
		p    path
		at   time.Duration
		want time.Duration
	}{
		{a, 0, 0}, {b, 0, 0}, {a, 0, time.Second}, {a, 0, 2 * time.Second}, {b, 500 * time.Millisecond, 500 * time.Millisecond}, {a, time.Minute, 0},
	} {
		if got := l.reserve(tc.p, start.Add(tc.at)); got != tc.want {
			t.Errorf("Probe %d: expected to wait %s, got %s", i, tc.want, got)
		}
	}
	for i := range 5000 {
		l.reserve(path{to: loopback.Next()}, start.Add(time.Hour+time.Duration(i)*time.Second))
	}
	if len(l.next) > 2 {
		t.Errorf("Expected paths that are free to be forgotten, got %d", len(l.next))
	}
}
