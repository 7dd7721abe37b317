package main

import (
	"math/rand/v2"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// observation is what a policy knows at the end of a slot, by server.
type observation struct {
	rtt      []float64 // of this slot, in milliseconds, or lost
	est      []ranking.Estimate
	eligible []bool
}

// policy chooses the server for the next slot. It keeps the state of one set.
type policy interface {
	choose(o *observation) (server int)
}

// policyKind makes the policies of one kind.
type policyKind struct {
	name      string
	isDefault bool // the default rule of the server
	new       func(servers int, seed uint64) policy
}

// policyKinds returns the rules of the server, then commonly used policies.
func policyKinds() []policyKind {
	var kinds []policyKind
	for i, rule := range ranking.Rules() {
		kinds = append(kinds, policyKind{rule, i == 0, func(servers int, _ uint64) policy { return newServerRule(rule, servers) }})
	}
	return append(kinds,
		policyKind{name: "random", new: func(_ int, seed uint64) policy { return &random{rand.New(rand.NewPCG(seed, 3))} }},
		policyKind{name: "static-first", new: func(int, uint64) policy { return &lowestScore{update: lastSample, replace: never} }},
		policyKind{name: "last-sample", new: func(int, uint64) policy { return &lowestScore{update: lastSample, replace: lower} }},
		policyKind{name: "ewma-0.2", new: func(int, uint64) policy { return &lowestScore{update: ewma, replace: lower} }},
		policyKind{name: "median-9", new: func(int, uint64) policy { return &lowestScore{update: median9, replace: lower} }},
		policyKind{name: "median-9+1ms", new: func(int, uint64) policy { return &lowestScore{update: median9, replace: lowerByOne} }},
		policyKind{name: "hysteresis-10%+5ms", new: func(int, uint64) policy { return &lowestScore{update: ewma, replace: lowerByPercent} }},
		policyKind{name: "regret-20/10", new: func(int, uint64) policy { return new(fixedRegret) }},
	)
}

// serverRule is a rule of the server.
type serverRule struct {
	ranker ranking.Ranker
	choice int
	cause  ranking.Cause // of the last decision
}

func newServerRule(rule string, servers int) *serverRule {
	r, err := ranking.NewRanker(rule, servers)
	if err != nil {
		panic(err) // the options were checked
	}
	return &serverRule{ranker: r}
}

func (p *serverRule) choose(o *observation) int {
	order, cause := p.ranker.Decide(o.est, o.eligible, o.eligible)
	if len(order) > 0 {
		p.choice = order[0]
	}
	p.cause = cause
	return p.choice
}

// random chooses any eligible server.
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
