package latencyprobe

import (
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func never() bool { return false }

func TestHealthStates(t *testing.T) {
	// One letter for each probe: s a success, f a failure with a reply, l a
	// silent failure. want has the state after each: ? unknown, u up, d down;
	// !, U and D while the target is failing.
	tests := []struct{ name, probes, want string }{
		{"the first success makes it up", "s", "u"},
		{"four failures make it down from the start", "ffff", "!!!d"},
		{"four failures in a row make it down", "sffff", "uUUUd"},
		{"five silent failures make it down", "slllll", "uUUUUd"},
		{"four are enough if one came with a reply", "slfll", "uUUUd"},
		{"three failures are too few", "sfffsfffs", "uUUUuUUUu"},
		{"two successes make it up again", "sffffss", "uUUUddu"},
		{"two successes must be in a row", "sffffsfss", "uUUUddddu"},
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
			t.Errorf("%s: %s: Expected %s, got %s", tc.name, tc.probes, tc.want, got)
		}
	}
}

func TestUnconfirmed(t *testing.T) {
	var h health
	h.success(start)
	if h.unconfirmed() {
		t.Error("Expected nothing to confirm after a success")
	}
	for i := range downAfter - 1 {
		h.failure(start, "refused", false, never)
		if !h.unconfirmed() {
			t.Errorf("Expected failure %d to be confirmed", i+1)
		}
	}
	h.failure(start, "refused", false, never)
	if h.unconfirmed() || h.reason != "refused" {
		t.Error("Expected nothing to confirm once it is down, and a reason")
	}
	h.success(start)
	if !h.unconfirmed() {
		t.Error("Expected the first success to be confirmed")
	}
	h.success(start)
	if h.unconfirmed() || h.reason != "" {
		t.Error("Expected nothing to confirm once it is up, and no reason")
	}
}

func TestHoldDown(t *testing.T) {
	var h health
	now := start
	h.success(now)
	down := func() {
		for range downAfter {
			h.failure(now, "refused", false, never)
		}
	}
	// up returns how long it takes to be up again, with a success each second.
	up := func() time.Duration {
		from := now
		for h.state != Up {
			now = now.Add(time.Second)
			h.success(now)
		}
		return now.Sub(from)
	}
	want := []int{2, 5, 10, 20, 40, 80, 160, 300, 300}
	for i, w := range want {
		down()
		if got := up(); got != time.Duration(w)*time.Second {
			t.Errorf("Expected outage %d to last %d s, got %s", i+1, w, got)
		}
	}
	now = now.Add(flapWindow)
	down()
	if got := up(); got != 2*time.Second {
		t.Errorf("Expected no hold-down after a quiet time, got %s", got)
	}
}

// TestHeldDown checks that a target which is held down is known to work, until as
// many probes fail as make a target down, and that this does not prolong the
// hold-down.
func TestHeldDown(t *testing.T) {
	var h health
	now := start
	probes := func(outcomes string) {
		for _, p := range outcomes {
			now = now.Add(time.Second)
			if p == 's' {
				h.success(now)
			} else {
				h.failure(now, "refused", false, never)
			}
		}
	}
	probes("sffffssffff") // down twice, for 5 s at least from here
	went := now
	for _, step := range []struct {
		probes string
		state  State
		held   bool
	}{
		{"s", Down, false},
		{"s", Down, true},
		{"f", Down, true}, // as a target that is up stays up
		{"s", Down, true},
		{"s", Up, false},
		{"ffff", Down, false}, // for 10 s
		{"ss", Down, true},
		{"fff", Down, true},
		{"f", Down, false},
		{"s", Down, false},
		{"s", Down, true},
		{"ss", Up, false},
	} {
		failing := step.held && step.probes[len(step.probes)-1] == 'f'
		if probes(step.probes); h.state != step.state || h.held != step.held || h.failing() != failing {
			t.Errorf("%s after %s: Expected %s, held %v, failing %v, got %s, %v, %v", step.probes, now.Sub(went), step.state, step.held, failing, h.state, h.held, h.failing())
		}
	}
}

func TestFrozenStateStays(t *testing.T) {
	var h health
	h.success(start)
	for range 10 {
		h.failure(start, "timeout", true, func() bool { return true })
	}
	if h.state != Up {
		t.Error("Expected the state to stay while isolated")
	}
}
