package main

import "math"

// fixedRegret adds up, for each rival, by how much it was faster than the
// chosen server: at most 10 ms a slot, and never below 0. A rival replaces the
// chosen server at more than 20 ms.
type fixedRegret struct {
	sum     []float64
	current int
	chosen  bool
}

func (p *fixedRegret) choose(o *observation) int {
	if p.sum == nil {
		p.sum = make([]float64, len(o.rtt))
	}
	if !p.chosen || !o.eligible[p.current] {
		for i, rtt := range o.rtt {
			if o.eligible[i] && !math.IsNaN(rtt) && (!p.chosen || !o.eligible[p.current] || rtt < o.rtt[p.current]) {
				p.current, p.chosen = i, true
			}
		}
		clear(p.sum)
		return p.current
	}
	rival := -1
	for i, rtt := range o.rtt {
		if d := o.rtt[p.current] - rtt; i != p.current && o.eligible[i] && !math.IsNaN(d) {
			p.sum[i] = max(0, p.sum[i]+max(-10, min(10, d)))
			if p.sum[i] > 20 && (rival < 0 || p.sum[i] > p.sum[rival]) {
				rival = i
			}
		}
	}
	if rival >= 0 {
		p.current = rival
		clear(p.sum)
	}
	return p.current
}
