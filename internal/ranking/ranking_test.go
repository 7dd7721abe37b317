package ranking

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// step is one decision: values in milliseconds, 0 = never measured, negative = measured but not eligible.
type step struct {
	values string
	order  string
	cause  Cause
}

func TestDecide(t *testing.T) {
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
		{"a first measurement that is higher", "", []step{
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
		{"down at once, back by the rule", "margin", []step{
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
		{"the others keep still within the margin", "margin", []step{
			{"10 20 21 22", "0 1 2 3", First},
			{"10 20 19.5 22", "0 1 2 3", Unchanged},
			{"10 20 18.9 18.5", "0 2 3 1", Unchanged},
			{"10 20 19 17.9", "0 3 2 1", Unchanged},
		}},
		{"an incumbent that was forgotten", "margin", []step{
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
					order, cause := r.Decide(est, eligible)
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

func newRanker(t testing.TB, rule string, n int) *Ranker {
	t.Helper()
	servers := make([]string, n)
	for i := range servers {
		servers[i] = fmt.Sprintf("s%d", i)
	}
	r, err := NewRanker(rule, servers)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parseStep(t *testing.T, values string, round uint64) ([]Estimate, []bool) {
	t.Helper()
	var est []Estimate
	var eligible []bool
	for _, f := range strings.Fields(values) {
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

func TestNewRanker(t *testing.T) {
	for _, rule := range append(Rules(), "") {
		if _, err := NewRanker(rule, nil); err != nil {
			t.Errorf("Expected rule %q to be known, got %v", rule, err)
		}
	}
	_, err := NewRanker("fastest", nil)
	if err == nil {
		t.Fatal("Expected an error for an unknown rule")
	}
	for _, rule := range Rules() {
		if !strings.Contains(err.Error(), rule) {
			t.Errorf("Expected the error to list rule %q, got %q", rule, err)
		}
	}
}

func TestAdopt(t *testing.T) {
	old, err := NewRanker("margin", []string{"a", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	est := []Estimate{{1, 30, 30}, {1, 20, 20}, {1, 10, 10}}
	old.Decide(est, []bool{true, true, true})
	est[1] = Estimate{2, 9.5, 9.5}
	if order, _ := old.Decide(est, []bool{true, true, true}); !slices.Equal(order, []int{2, 1, 0}) {
		t.Fatalf("Expected order 2 1 0, got %v", order)
	}

	r, err := NewRanker("margin", []string{"d", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	r.Adopt(old)
	est[0] = Estimate{}
	order, cause := r.Decide(est, []bool{true, true, true})
	if !slices.Equal(order, []int{2, 1, 0}) || cause != Unchanged {
		t.Errorf("Expected order 2 1 0 to be kept, got %v with cause %q", order, cause)
	}

	r, err = NewRanker("margin", []string{"b", "a"})
	if err != nil {
		t.Fatal(err)
	}
	r.Adopt(old)
	order, cause = r.Decide([]Estimate{{3, 20, 20}, {3, 19.5, 19.5}}, []bool{true, true})
	if !slices.Equal(order, []int{1, 0}) || cause == Unchanged {
		t.Errorf("Expected the lowest server when the incumbent is gone, got %v with cause %q", order, cause)
	}
}

// TestOrderIsConsistent checks on random values that no server stands before one that is lower by more than the margin, the first one's place aside.
func TestOrderIsConsistent(t *testing.T) {
	r := newRanker(t, "margin", 7)
	rnd := newRand()
	est := make([]Estimate, 7)
	eligible := make([]bool, 7)
	for round := range 20000 {
		for i := range est {
			v := 10 + 6*rnd.Float64()
			est[i] = Estimate{uint64(round + 1), v, v}
			if rnd.IntN(20) == 0 {
				est[i] = Estimate{}
			}
			eligible[i] = rnd.IntN(10) > 0
		}
		order, _ := r.Decide(est, eligible)
		seen := make([]bool, 7)
		for p, i := range order {
			if seen[i] || !eligible[i] {
				t.Fatalf("Round %d: unexpected server %d in %v", round, i, order)
			}
			seen[i] = true
			for _, j := range order[p+1:] {
				if p > 0 && est[j].Measured() && (!est[i].Measured() || est[j].Value < est[i].Value-1) {
					t.Fatalf("Round %d: server %d stands before %d: %v", round, i, j, est)
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
					est[k][i] = Estimate{uint64(k + 1), v, v}
				}
			}
			b.ReportAllocs()
			for k := 0; b.Loop(); k++ {
				r.Decide(est[k%len(est)], eligible)
			}
		})
	}
}
