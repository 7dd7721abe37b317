package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
)

// TestScoresOfOneChange compares with results computed by hand. There are 4960
// slots after the warm-up. From slot 2500 on each policy is wrong by 10 ms
// until it switches.
func TestScoresOfOneChange(t *testing.T) {
	got := results(t, "-atlas", write(t, atlas(), true), "-seattle", write(t, matrixCSV(), false))
	if len(got) != 2*len(policyKinds()) {
		t.Errorf("Expected results for both sets, got %d", len(got))
	}
	tests := []struct {
		policy   string
		wrong    int // slots
		switches float64
	}{
		{"evidence", 3, 1},
		{"margin", 3, 1}, // three rounds beyond the noise are a new path
		{"lowest", 3, 1},
		{"static-first", 2500, 0},
		{"last-sample", 1, 1},
		{"ewma-0.2", 4, 1}, // 20 * 0.8^4 < 10
		{"median-9", 5, 1},
		{"median-9+1ms", 5, 1},
		{"regret-20/10", 3, 1},       // 10 + 10 + 10 > 20
		{"hysteresis-10%+5ms", 7, 1}, // 20 * 0.8^7 < 5
	}
	for _, tc := range tests {
		share := 100 * float64(4960-tc.wrong) / 4960
		excess := 10 * float64(tc.wrong) / 4960
		want := fmt.Sprintf("truth_optimal=%.2f optimal=%.2f excess_ms=%.3f truth_excess_ms=%.3f switches_per_hour=%.3f", share, share, excess, excess, tc.switches/(4960*240/3600.))
		if got["atlas-hard "+tc.policy] != want {
			t.Errorf("%s: Expected %s, got %s", tc.policy, want, got["atlas-hard "+tc.policy])
		}
	}
	if !strings.HasPrefix(got["atlas-hard random"], "truth_optimal=20.") && !strings.HasPrefix(got["atlas-hard random"], "truth_optimal=19.") {
		t.Errorf("Expected a fifth for the random policy, got %s", got["atlas-hard random"])
	}
}

// TestScoreOfRuleLowest compares with results computed by hand: of the slots 40
// to 99 the rule is wrong at 50, 51 and 52, each time by 20 ms.
func TestScoreOfRuleLowest(t *testing.T) {
	a, b := make([]float64, 100), make([]float64, 100)
	for i := range a {
		a[i], b[i] = 10, 20
		if i >= 50 {
			a[i] = 40
		}
	}
	a[70] = latencyfile.Lost
	g := &group{name: "test", step: 240 * time.Second, slots: 100}
	g.sets = []set{{newSeries(&path{"a", a}, atlasTruth, options{}, 0), newSeries(&path{"b", b}, atlasTruth, options{}, 1)}}
	for i, kind := range policyKinds() {
		if kind.name != "lowest" {
			continue
		}
		s := g.replay(policyKinds(), 1, func(int, int) {})[i]
		if s.slots != 60 || s.optimal != 57 || s.excess != 60 || s.truthSlots != 60 || s.truthOptimal != 57 || s.truthExcess != 60 || s.switches != 1 || s.time != 4*time.Hour {
			t.Errorf("Expected 57 of 60 slots, 60 ms and one switch in 4 hours, got %+v", s)
		}
	}
	changes := g.switches(g.sets[0], "lowest")
	if len(changes) != 2 || changes[0] != (switchEvent{1, -1, 0, "first"}) || changes[1] != (switchEvent{53, 0, 1, "lower"}) {
		t.Errorf("Expected a first choice and a change at slot 53, got %v", changes)
	}
}

// TestChoiceDependsOnEarlierSlotsOnly replays traces that differ from one slot
// on.
func TestChoiceDependsOnEarlierSlotsOnly(t *testing.T) {
	const slots, upTo = 300, 200
	rnd := rand.New(rand.NewPCG(1, 1))
	one, other := make([]*path, 4), make([]*path, 4)
	for i := range one {
		one[i], other[i] = &path{rtt: make([]float64, slots)}, &path{rtt: make([]float64, slots)}
		for s := range slots {
			v := 50 + 20*rnd.Float64()
			if rnd.IntN(20) == 0 {
				v = latencyfile.Lost
			}
			one[i].rtt[s], other[i].rtt[s] = v, v
			if s >= upTo {
				other[i].rtt[s] = 100 * rnd.Float64()
			}
		}
	}
	g := &group{step: time.Second, slots: slots}
	choices := func(paths []*path, kind policyKind) []int {
		var s set
		for i, p := range paths {
			s = append(s, newSeries(p, atlasTruth, options{}, uint64(i)))
		}
		var out []int
		g.walk(s, kind.new(len(s), 1), func(_, choice int) { out = append(out, choice) })
		return out
	}
	for _, kind := range policyKinds() {
		a, b := choices(one, kind), choices(other, kind)
		differ := false
		for i := range a {
			if a[i] != b[i] {
				differ = true
				if slot := i + 1; slot <= upTo { // the choice for upTo is made of earlier slots
					t.Fatalf("%s: Expected a choice for slot %d that depends on earlier slots only", kind.name, slot)
				}
			}
		}
		if !differ && kind.name != "static-first" && kind.name != "random" {
			t.Errorf("%s: Expected other choices for other samples", kind.name)
		}
	}
}

func TestLossHidesSamplesFromPoliciesOnly(t *testing.T) {
	rtt := make([]float64, 20000)
	s := newSeries(&path{"a", rtt}, atlasTruth, options{loss: 0.05, seed: 1}, 0)
	n := 0
	for i, v := range s.visible {
		if math.IsNaN(v) {
			n++
		}
		if math.IsNaN(s.rtt[i]) || math.IsNaN(s.truth[i]) {
			t.Fatal("Expected losses to be hidden from the policies only")
		}
	}
	if n < 900 || n > 1100 {
		t.Errorf("Expected about 1000 of 20000 samples to be hidden, got %d", n)
	}
}
