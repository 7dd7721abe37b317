package ranking

import (
	"slices"
	"testing"
	"time"
)

// pair gives the latencies of two servers to estimators and a Ranker, as the
// server does.
type pair struct {
	est    [2]Estimator
	ranker *Ranker
	now    time.Time
}

func (p *pair) round(a, b float64) (first int) {
	for i, rtt := range []float64{a, b} {
		p.est[i].Add(p.now, ms(max(0, rtt)))
	}
	p.now = p.now.Add(Round)
	order, _ := p.ranker.Decide([]Estimate{p.est[0].Estimate(p.now), p.est[1].Estimate(p.now)}, []bool{true, true}, []bool{true, true})
	return order[0]
}

// TestSlowerServerIsReplaced counts the rounds from the time when the first
// server becomes slower than the other one to the switch. docs/ranking.md has
// the figures.
func TestSlowerServerIsReplaced(t *testing.T) {
	tests := []struct {
		sigma, gap float64
		median     int // rounds at most
		all        int // rounds at most, in 99 of 100 cases
	}{
		{0.2, 60, 3, 4}, {0.2, 20, 3, 4}, {0.2, 5, 3, 4}, {0.2, 2, 4, 5}, {0.2, 1, 6, 8}, {0.2, 0.5, 12, 20},
		{2, 60, 3, 4}, {2, 20, 3, 5}, {2, 5, 5, 10}, {2, 2, 12, 35},
	}
	for _, tc := range tests {
		rnd := newRand()
		noise := func() float64 { return tc.sigma * rnd.NormFloat64() }
		var took []int
		for range 500 {
			p := &pair{ranker: newRanker(t, "evidence", 2), now: time.Unix(1700000000, 0)}
			for range 50 {
				p.round(50+noise(), 70+noise())
			}
			n := 1
			for p.round(70+tc.gap+noise(), 70+noise()) == 0 && n < 1000 {
				n++
			}
			took = append(took, n)
		}
		slices.Sort(took)
		median, all := took[len(took)/2], took[len(took)*99/100]
		t.Logf("Noise %v ms, %v ms slower: replaced after %d rounds, in 99 of 100 cases after %d", tc.sigma, tc.gap, median, all)
		if median > tc.median || all > tc.all {
			t.Errorf("Noise %v ms, %v ms slower: expected at most %d rounds, %d for 99 of 100", tc.sigma, tc.gap, tc.median, tc.all)
		}
	}
}

// TestEquallyFastServersRarelySwitch counts the switches between two servers of
// the same latency. docs/ranking.md has the figures.
func TestEquallyFastServersRarelySwitch(t *testing.T) {
	const rounds = 50000
	for _, tc := range []struct{ sigma, limit float64 }{{0.05, 0.2}, {0.2, 2}, {0.5, 15}, {2, 25}} {
		rnd := newRand()
		p := &pair{ranker: newRanker(t, "evidence", 2), now: time.Unix(1700000000, 0)}
		previous, changes := 0, 0
		for range rounds {
			if first := p.round(50+tc.sigma*rnd.NormFloat64(), 50+tc.sigma*rnd.NormFloat64()); first != previous {
				changes++
				previous = first
			}
		}
		rate := float64(changes) / rounds * 1000
		t.Logf("Noise %v ms: %.2f changes in 1000 rounds", tc.sigma, rate)
		if rate > tc.limit {
			t.Errorf("Noise %v ms: expected at most %v changes in 1000 rounds, got %.2f", tc.sigma, tc.limit, rate)
		}
	}
}
