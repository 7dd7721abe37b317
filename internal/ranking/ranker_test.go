package ranking

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// step is one decision. Values are in milliseconds; 0 is never measured, and a
// negative value is measured but not eligible.
type step struct {
	values string
	order  string
	cause  Cause
}

func TestDecideFollowsRule(t *testing.T) {
	tests := []struct {
		name  string
		rule  string
		steps []step
	}{
		{"configured order before measurements", "", []step{
			{"0 0 0", "0 1 2", First},
			{"0 0 0", "0 1 2", Unchanged},
		}},
		{"partial measurements at the start are corrected", "", []step{
			{"0 0 0", "0 1 2", First},
			{"0 200 0", "1 0 2", First},
			{"0 200 20", "2 1 0", First},
			{"19.5 200 20", "0 2 1", First},
			{"19.5 200 19.2", "0 2 1", Unchanged},
		}},
		{"the probe method changes", "", []step{
			{"20 10", "1 0", First},
			{"0 0", "1 0", Unchanged},
			{"19 0", "0 1", First},
			{"19 9", "1 0", First},
		}},
		{"a first measurement that is slower", "", []step{
			{"20 0", "0 1", First},
			{"20 30", "0 1", Unchanged},
		}},
		{"margin", "margin", []step{
			{"10 20", "0 1", First},
			{"20.5 20", "0 1", Unchanged},
			{"21 20", "0 1", Unchanged},
			{"21.1 20", "1 0", Lower},
			{"19.5 20", "1 0", Unchanged},
		}},
		{"lowest", "lowest", []step{
			{"10 20", "0 1", First},
			{"20 20", "0 1", Unchanged},
			{"20.1 20", "1 0", Lower},
			{"19.9 20", "0 1", Lower},
		}},
		{"evidence: the regret must exceed the budget", "evidence", []step{
			{"10 20", "0 1", First},
			{"21 20", "0 1", Unchanged},   // 1
			{"21 20", "0 1", Unchanged},   // 2
			{"21 20", "1 0", Lower},       // 3 > 2
			{"19 20", "1 0", Unchanged},   // 1
			{"21.5 20", "1 0", Unchanged}, // -0.5
			{"18 20", "1 0", Unchanged},   // 1.5
			{"19 20", "0 1", Lower},       // 2.5
		}},
		{"evidence: credit and the weight of one round are bounded", "evidence", []step{
			{"10 90", "0 1", First},
			{"10 90", "0 1", Unchanged}, // -2
			{"10 90", "0 1", Unchanged}, // -2
			{"90 20", "0 1", Unchanged}, // 0
			{"90 20", "0 1", Unchanged}, // 2
			{"90 20", "1 0", Lower},     // 4
		}},
		{"evidence: the fastest of the rivals with enough regret", "evidence", []step{
			{"10 20 20", "0 1 2", First},
			{"30 20 15", "0 2 1", Unchanged},
			{"30 20 15", "2 1 0", Lower},
		}},
		{"evidence: regret is reset by a failure", "evidence", []step{
			{"10 20", "0 1", First},
			{"-10 20", "1", Down},
			{"18 20", "1 0", Unchanged}, // 2
			{"-9 20", "1", Unchanged},   // 0
			{"18 20", "1 0", Unchanged}, // 2
			{"18 20", "0 1", Lower},     // 4
		}},
		{"down immediately, first again by the rule", "margin", []step{
			{"10 20 30", "0 1 2", First},
			{"-10 20 30", "1 2", Down},
			{"19.5 20 30", "1 0 2", Unchanged},
			{"18.5 20 30", "0 1 2", Lower},
		}},
		{"all down", "margin", []step{
			{"10 20", "0 1", First},
			{"-10 -20", "", Down},
			{"-10 -20", "", Unchanged},
			{"-10 20", "1", Up},
			{"10 20", "0 1", Lower},
		}},
		{"nothing eligible at the start", "", []step{
			{"-10 -20", "", Unchanged},
			{"-10 20", "1", First},
			{"10 20", "0 1", First},
		}},
		{"the order of the others stays within the margin", "margin", []step{
			{"10 20 21 22", "0 1 2 3", First},
			{"10 20 19.5 22", "0 1 2 3", Unchanged},
			{"10 20 18.9 18.5", "0 2 3 1", Unchanged},
			{"10 20 19 17.9", "0 3 2 1", Unchanged},
		}},
		{"the estimate of the incumbent was dropped", "margin", []step{
			{"10 20", "0 1", First},
			{"0 20", "1 0", First},
			{"20 20", "1 0", Unchanged},
		}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			n := len(strings.Fields(tc.steps[0].values))
			r := newRanker(t, tc.rule, n)
			for i, s := range tc.steps {
				est, eligible := parseStep(t, s.values, uint64(i+1))
				for range 2 { // the second time must change nothing
					order, cause := r.Decide(est, eligible, eligible)
					if got := strings.Trim(fmt.Sprint(order), "[]"); got != s.order {
						t.Fatalf("Step %d: expected order %q, got %q", i, s.order, got)
					}
					if cause != s.cause {
						t.Fatalf("Step %d: expected cause %q, got %q", i, s.cause, cause)
					}
					s.cause = Unchanged
				}
			}
		})
	}
}

// TestRegretAloneDoesNotReplaceIncumbent has regret from outliers, while the
// value of the rival is higher.
func TestRegretAloneDoesNotReplaceIncumbent(t *testing.T) {
	r := newRanker(t, "evidence", 2)
	eligible := []bool{true, true}
	est := []Estimate{{Round: 1, RTT: 10, Value: 10}, {Round: 1, RTT: 20, Value: 20}}
	r.Decide(est, eligible, eligible)
	for round := range uint64(5) {
		est[0].Round, est[1].Round = round+2, round+2
		est[0].RTT = 500
		if order, _ := r.Decide(est, eligible, eligible); order[0] != 0 {
			t.Fatalf("Round %d: expected the incumbent to stay, got %v", round, order)
		}
	}
	est[0].Value = 25
	if order, cause := r.Decide(est, eligible, eligible); order[0] != 1 || cause != Lower {
		t.Errorf("Expected the rival, got %v with cause %q", order, cause)
	}
}

// TestEvidenceOfServerKeptOut keeps the faster server out for some rounds. What was
// measured meanwhile counts if the server was up.
func TestEvidenceOfServerKeptOut(t *testing.T) {
	for _, tc := range []struct {
		name       string
		rounds     int
		up, atOnce bool
	}{{"up", 3, true, true}, {"not long enough", 1, true, false}, {"down", 3, false, false}} {
		r := newRanker(t, "evidence", 2)
		all, rest := []bool{true, true}, []bool{false, true}
		est := []Estimate{{Round: 1, RTT: 10, Value: 10}, {Round: 1, RTT: 20, Value: 20}}
		r.Decide(est, all, all)
		for range tc.rounds {
			r.Decide(est, rest, []bool{tc.up, true})
			est[0].Round++
			est[1].Round++
		}
		if order, cause := r.Decide(est, all, all); (order[0] == 0 && cause == Lower) != tc.atOnce {
			t.Errorf("%s: expected the faster server at once: %v, got %v with cause %q", tc.name, tc.atOnce, order, cause)
		}
	}
}

func TestBudgetGrowsWithNoiseOfBothPaths(t *testing.T) {
	tests := []struct {
		noise  [2]float64
		gap    float64
		rounds int // until the rival replaces the incumbent
	}{
		{[2]float64{0, 0}, 4, 2},     // regret 2 a round, budget 2
		{[2]float64{2, 3}, 4, 2},     // regret 3.75 a round, budget 5
		{[2]float64{5, 4}, 4, 3},     // regret 3.55 a round, budget 9
		{[2]float64{500, 0}, 4, 6},   // regret 3.5 a round, budget 20
		{[2]float64{500, 0}, 400, 3}, // regret 9.5 a round
	}
	for _, tc := range tests {
		r := newRanker(t, "evidence", 2)
		eligible := []bool{true, true}
		est := []Estimate{{Round: 1, RTT: 20 + tc.gap, Value: 20, Noise: tc.noise[0]}, {Round: 1, RTT: 20, Value: 24, Noise: tc.noise[1]}}
		r.Decide(est, eligible, eligible)
		est[0].Value = 24
		est[1].Value = 20
		rounds := 0
		for order := []int{0}; order[0] == 0; rounds++ {
			est[0].Round++
			est[1].Round++
			order, _ = r.Decide(est, eligible, eligible)
		}
		if rounds != tc.rounds {
			t.Errorf("Noise %v: expected %d rounds, got %d", tc.noise, tc.rounds, rounds)
		}
	}
}

// TestRegretCountsRoundsNewForBothServers measures two servers in turns. A loss
// or slow probing must not make a round count twice, or never.
func TestRegretCountsRoundsNewForBothServers(t *testing.T) {
	r := newRanker(t, "evidence", 2)
	eligible := []bool{true, true}
	est := []Estimate{{Round: 1, RTT: 20, Value: 20}, {Round: 1, RTT: 30, Value: 30}}
	r.Decide(est, eligible, eligible)
	est[1].RTT, est[1].Value = 18, 18
	decisions := 0
	for order := []int{0}; order[0] == 0 && decisions < 20; decisions++ {
		est[decisions%2].Round++
		order, _ = r.Decide(est, eligible, eligible)
	}
	if decisions != 4 { // 2 ms twice, each after a new round of both
		t.Errorf("Expected the rival after 4 decisions, got %d", decisions)
	}
}

// TestFollowTakesChoiceOfOtherNode follows a choice whatever the latencies are,
// and continues with decisions of its own.
func TestFollowTakesChoiceOfOtherNode(t *testing.T) {
	r := newRanker(t, "margin", 3)
	for i, s := range []struct {
		values string
		follow int // none: Decide
		order  string
		cause  Cause
	}{
		{"10 20 30", 1, "1 0 2", First},
		{"10 20 30", 1, "1 0 2", Unchanged},
		{"10 20 30", 2, "2 0 1", Followed},
		{"10 20 0", 2, "2 0 1", Unchanged},
		{"10 20 30", 2, "2 0 1", Unchanged},
		{"-10 20 -30", 1, "1", Down},
		{"10 20 -30", 0, "0 1", Followed},
		{"20.5 20 30", none, "0 1 2", Unchanged},
		{"22 20 30", none, "1 0 2", Lower},
		{"22 20 30", 1, "1 0 2", Unchanged},
	} {
		est, eligible := parseStep(t, s.values, uint64(i+1))
		decide := func() ([]int, Cause) { return r.Follow(s.follow, est, eligible) }
		if s.follow == none {
			decide = func() ([]int, Cause) { return r.Decide(est, eligible, eligible) }
		}
		order, cause := decide()
		if got := strings.Trim(fmt.Sprint(order), "[]"); got != s.order || cause != s.cause {
			t.Errorf("Step %d: expected order %s with cause %q, got %s with %q", i, s.order, s.cause, got, cause)
		}
	}
}

func newRanker(t testing.TB, rule string, n int) *Ranker {
	t.Helper()
	r, err := NewRanker(rule, n)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

func parseStep(t *testing.T, values string, round uint64) ([]Estimate, []bool) {
	t.Helper()
	var est []Estimate
	var eligible []bool
	for f := range strings.FieldsSeq(values) {
		var v float64
		if _, err := fmt.Sscan(f, &v); err != nil {
			t.Fatal(err)
		}
		e := Estimate{Round: round, RTT: v, Value: v}
		if v < 0 {
			e.RTT, e.Value = -v, -v
		}
		if v == 0 {
			e.Round = 0
		}
		est = append(est, e)
		eligible = append(eligible, v >= 0)
	}
	return est, eligible
}

func TestNewRankerRejectsUnknownRule(t *testing.T) {
	for _, rule := range append(Rules(), "") {
		if _, err := NewRanker(rule, 0); err != nil {
			t.Errorf("Expected rule %q to be known, got %v", rule, err)
		}
	}
	_, err := NewRanker("fastest", 0)
	if err == nil {
		t.Fatal("Expected an error for an unknown rule")
	}
	for _, rule := range Rules() {
		if !strings.Contains(err.Error(), rule) {
			t.Errorf("Expected the error to list rule %q, got %q", rule, err)
		}
	}
}

func TestAdoptKeepsOrderAndIncumbent(t *testing.T) {
	old, err := NewRanker("margin", 3)
	if err != nil {
		t.Fatal(err)
	}
	est := []Estimate{{Round: 1, RTT: 30, Value: 30}, {Round: 1, RTT: 20, Value: 20}, {Round: 1, RTT: 10, Value: 10}}
	old.Decide(est, []bool{true, true, true}, []bool{true, true, true})
	est[1] = Estimate{Round: 2, RTT: 9.5, Value: 9.5}
	if order, _ := old.Decide(est, []bool{true, true, true}, []bool{true, true, true}); !slices.Equal(order, []int{2, 1, 0}) {
		t.Fatalf("Expected order 2 1 0, got %v", order)
	}

	r, err := NewRanker("margin", 3)
	if err != nil {
		t.Fatal(err)
	}
	r.Adopt(&old, []int{-1, 1, 2})
	est[0] = Estimate{}
	order, cause := r.Decide(est, []bool{true, true, true}, []bool{true, true, true})
	if !slices.Equal(order, []int{2, 1, 0}) || cause != Unchanged {
		t.Errorf("Expected the order 2 1 0 of the old Ranker, got %v with cause %q", order, cause)
	}

	r, err = NewRanker("margin", 2)
	if err != nil {
		t.Fatal(err)
	}
	r.Adopt(&old, []int{1, 0})
	order, cause = r.Decide([]Estimate{{Round: 3, RTT: 20, Value: 20}, {Round: 3, RTT: 19.5, Value: 19.5}}, []bool{true, true}, []bool{true, true})
	if !slices.Equal(order, []int{1, 0}) || cause == Unchanged {
		t.Errorf("Expected the fastest server when the incumbent is removed, got %v with cause %q", order, cause)
	}
}

// TestOrderKeepsToMargin ranks random values: no server but the first may be
// before one that is faster by more than the margin.
func TestOrderKeepsToMargin(t *testing.T) {
	r := newRanker(t, "margin", 7)
	rnd := newRand()
	est := make([]Estimate, 7)
	eligible := make([]bool, 7)
	for round := range 20000 {
		for i := range est {
			v := 10 + 6*rnd.Float64()
			est[i] = Estimate{Round: uint64(round + 1), RTT: v, Value: v}
			if rnd.IntN(20) == 0 {
				est[i] = Estimate{}
			}
			eligible[i] = rnd.IntN(10) > 0
		}
		order, _ := r.Decide(est, eligible, eligible)
		seen := make([]bool, 7)
		for p, i := range order {
			if seen[i] || !eligible[i] {
				t.Fatalf("Round %d: unexpected server %d in %v", round, i, order)
			}
			seen[i] = true
			for _, j := range order[p+1:] {
				if p > 0 && est[j].Measured() && (!est[i].Measured() || est[j].Value < est[i].Value-1) {
					t.Fatalf("Round %d: server %d is before %d: %v", round, i, j, est)
				}
			}
		}
		if !slices.Equal(seen, eligible) {
			t.Fatalf("Round %d: expected all eligible servers, got %v", round, order)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{3, 5, 20} {
		b.Run(fmt.Sprintf("servers=%d", n), func(b *testing.B) {
			r := newRanker(b, "", n)
			rnd := newRand()
			est := make([][]Estimate, 64)
			eligible := make([]bool, n)
			for i := range eligible {
				eligible[i] = true
			}
			for k := range est {
				est[k] = make([]Estimate, n)
				for i := range n {
					v := 20 + float64(i) + 5*rnd.Float64()
					est[k][i] = Estimate{Round: uint64(k + 1), RTT: v, Value: v}
				}
			}
			b.ReportAllocs()
			for k := 0; b.Loop(); k++ {
				r.Decide(est[k%len(est)], eligible, eligible)
			}
		})
	}
}
