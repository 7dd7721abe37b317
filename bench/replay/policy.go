package main

import (
	"math"
	"math/rand/v2"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// observation is what can be known of a set at the end of a slot.
type observation struct {
	rtt      []float64 // of this slot, or lost
	est      []ranking.Estimate
	eligible []bool
}

// policy chooses the server for the next slot. A policy has the state of one set.
type policy interface {
	choose(o *observation) int
}

// named is a kind of policy.
type named struct {
	name      string
	isDefault bool
	new       func(servers int, seed uint64) policy
}

// policies returns the rules of the server and those that are commonly used instead.
func policies() []named {
	var out []named
	for i, rule := range ranking.Rules() {
		out = append(out, named{rule, i == 0, func(servers int, _ uint64) policy { return newRuled(rule, servers) }})
	}
	return append(out,
		named{name: "random", new: func(_ int, seed uint64) policy { return &random{rand.New(rand.NewPCG(seed, 3))} }},
		named{name: "static-first", new: func(int, uint64) policy { return &scored{update: last, replace: never} }},
		named{name: "last-sample", new: func(int, uint64) policy { return &scored{update: last, replace: lower} }},
		named{name: "ewma-0.2", new: func(int, uint64) policy { return &scored{update: ewma, replace: lower} }},
		named{name: "median-9", new: func(int, uint64) policy { return &scored{update: median9, replace: lower} }},
		named{name: "median-9+1ms", new: func(int, uint64) policy { return &scored{update: median9, replace: lowerByOne} }},
		named{name: "hysteresis-10%+5ms", new: func(int, uint64) policy { return &scored{update: ewma, replace: lowerByPercent} }},
		named{name: "regret-20/10", new: func(int, uint64) policy { return new(regret) }},
	)
}

// ruled is a rule of the server.
type ruled struct {
	ranker *ranking.Ranker
	last   int
	cause  ranking.Cause
}

func newRuled(rule string, servers int) *ruled {
	r, err := ranking.NewRanker(rule, servers)
	if err != nil {
		panic(err) // rules are those of the package
	}
	return &ruled{ranker: r}
}

func (p *ruled) choose(o *observation) int {
	order, cause := p.ranker.Decide(o.est, o.eligible)
	if len(order) > 0 {
		p.last = order[0]
	}
	p.cause = cause
	return p.last
}

type random struct{ rnd *rand.Rand }

func (p *random) choose(o *observation) int {
	i := p.rnd.IntN(len(o.rtt))
	for range o.rtt {
		if o.eligible[i] {
			break
		}
		i = (i + 1) % len(o.rtt)
	}
	return i
}

// scored keeps a score per server and replaces the server chosen by the one with the lowest score if that is enough lower.
type scored struct {
	update  func(score, rtt float64, history []float64) float64
	replace func(current, lowest float64) bool

	score   []float64 // lost = none
	history [][]float64
	current int
	chosen  bool
}

func (p *scored) choose(o *observation) int {
	if p.score == nil {
		p.score = make([]float64, len(o.rtt))
		p.history = make([][]float64, len(o.rtt))
		for i := range p.score {
			p.score[i] = lost
		}
	}
	lowest := -1
	for i, rtt := range o.rtt {
		if !math.IsNaN(rtt) {
			h := p.history[i]
			if len(h) == 9 {
				h = append(h[:0], h[1:]...)
			}
			p.history[i] = append(h, rtt)
			p.score[i] = p.update(p.score[i], rtt, p.history[i])
		}
		if o.eligible[i] && !math.IsNaN(p.score[i]) && (lowest < 0 || p.score[i] < p.score[lowest]) {
			lowest = i
		}
	}
	if lowest >= 0 && (!p.chosen || !o.eligible[p.current] || p.replace(p.score[p.current], p.score[lowest])) {
		p.current, p.chosen = lowest, true
	}
	return p.current
}

func last(_, rtt float64, _ []float64) float64 { return rtt }

func ewma(score, rtt float64, _ []float64) float64 {
	if math.IsNaN(score) {
		return rtt
	}
	return score + 0.2*(rtt-score)
}

func median9(_, _ float64, history []float64) float64 {
	var sorted [9]float64
	return medianOf(sorted[:copy(sorted[:], history)])
}

func never(_, _ float64) bool                     { return false }
func lower(current, lowest float64) bool          { return lowest < current }
func lowerByOne(current, lowest float64) bool     { return lowest < current-1 }
func lowerByPercent(current, lowest float64) bool { return lowest < 0.9*current && lowest < current-5 }

// regret adds up, per rival, by how much it was lower than the server chosen, at most 10 ms a slot and never below 0, and replaces at more than 20 ms.
type regret struct {
	sum     []float64
	current int
	chosen  bool
}

func (p *regret) choose(o *observation) int {
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
	most := -1
	for i, rtt := range o.rtt {
		if d := o.rtt[p.current] - rtt; i != p.current && o.eligible[i] && !math.IsNaN(d) {
			p.sum[i] = max(0, p.sum[i]+max(-10, min(10, d)))
			if p.sum[i] > 20 && (most < 0 || p.sum[i] > p.sum[most]) {
				most = i
			}
		}
	}
	if most >= 0 {
		p.current = most
		clear(p.sum)
	}
	return p.current
}
