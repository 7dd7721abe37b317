package garbage

import (
	"runtime/debug"
	"testing"
)

// gcOff is gcPercent without a collector.
const gcOff = ^uint64(0)

// TestSavingEndsWithTheLastOne checks that the percentage is set while somebody wants to
// save space, unless somebody else says how much.
func TestSavingEndsWithTheLastOne(t *testing.T) {
	t.Setenv("GOGC", "")
	initial := debug.SetGCPercent(defaultPercent)
	t.Cleanup(func() { debug.SetGCPercent(initial) })
	type step struct {
		add  int
		want uint64
	}
	for _, tc := range []struct {
		name  string
		gogc  string
		set   int // by the rest of the program
		steps []step
	}{
		{"one", "", 100, []step{{1, 25}, {-1, 100}}},
		{"two", "", 100, []step{{1, 25}, {1, 25}, {-1, 25}, {-1, 100}}},
		{"one after the other", "", 100, []step{{1, 25}, {-1, 100}, {1, 25}, {-1, 100}}},
		{"environment", "100", 100, []step{{1, 100}, {-1, 100}}},
		{"the program", "", 50, []step{{1, 50}, {-1, 50}}},
		{"the program, the same", "", 25, []step{{1, 25}, {-1, 25}}},
		{"off", "", -1, []step{{1, gcOff}, {-1, gcOff}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("GOGC", tc.gogc)
			debug.SetGCPercent(tc.set)
			var s saver
			for i, step := range tc.steps {
				s.add(step.add)
				if got := gcPercent(); got != step.want {
					t.Errorf("Step %d: expected %d %%, got %d", i, step.want, got)
				}
			}
		})
	}
	t.Run("the program, later", func(t *testing.T) {
		debug.SetGCPercent(defaultPercent)
		var s saver
		s.add(1)
		debug.SetGCPercent(50)
		s.add(-1)
		if got := gcPercent(); got != 50 {
			t.Errorf("Expected the 50 %% of the program, got %d", got)
		}
	})
	t.Run("ended twice", func(t *testing.T) {
		debug.SetGCPercent(defaultPercent)
		one, other := Save(), Save()
		one()
		one()
		if got := gcPercent(); got != savePercent {
			t.Errorf("Expected %d %% until the other one ends, got %d", savePercent, got)
		}
		other()
		if got := gcPercent(); got != defaultPercent {
			t.Errorf("Expected %d %% at the end, got %d", defaultPercent, got)
		}
	})
}
