package ranking

import (
	"fmt"
	"slices"
	"strings"
)

// Cause says why a decision changed the first server. The set is closed, so it may be a metric's label.
type Cause string

// Causes of a change.
const (
	Unchanged Cause = ""         // the first server is the one of the decision before
	First     Cause = "first"    // the first decision of all, or a server ranked by measurement for the first time is lower
	Lower     Cause = "lower"    // the rule found that a rival is faster
	Down      Cause = "down"     // the first server is not eligible any more; the order may be empty
	Up        Cause = "up"       // no server was eligible before; or none is measured, and one that stands earlier in the configuration is eligible again
	Followed  Cause = "followed" // who is followed chose another one
)

const none = -1

// Ranker is the decision state of one service. It is not safe for concurrent use.
type Ranker struct {
	rule    *rule
	state   []state
	order   []int32 // all servers as they stood last
	first   int     // the incumbent, or none
	decided bool
}

// state is what a Ranker remembers of one server. It is small, since there may be millions.
type state struct {
	known bool // it was eligible and measured once
	// Of the server as a rival of the incumbent: the time lost by not using it, in milliseconds summed over rounds, and the rounds of both that were counted last, which
	// take centuries to come round.
	regret       float32
	own, against uint32
}

// rule is how an incumbent is replaced.
type rule struct {
	name   string
	margin float64 // milliseconds by which a server must be lower than one that stands before it
	regret bool    // the first server is replaced by regret instead
}

var rules = []rule{
	{name: "evidence", margin: 1, regret: true},
	{name: "margin", margin: 1},
	{name: "lowest"},
}

// Rule "evidence", in milliseconds. docs/ranking.md tells what came of other figures.
const (
	// The regret that replaces an incumbent is the noise of both paths, within these bounds.
	minBudget = 2
	maxBudget = 20
	// clip bounds what one round may count for.
	clip = 10
	// Of each round the incumbent is given a twentieth of the noise, up to maxGrace: equally fast servers would be exchanged by chance otherwise.
	grace    = 0.05
	maxGrace = 0.5
)

// Rules returns the names of the known rules, the default one first.
func Rules() []string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.name
	}
	return names
}

// NewRanker returns a Ranker for a number of servers, which it knows by their indexes in configured order. An empty rule is the default one; an unknown one is an error
// that lists those known.
func NewRanker(rule string, servers int) (*Ranker, error) {
	i := 0
	if rule != "" {
		if i = slices.Index(Rules(), rule); i < 0 {
			return nil, fmt.Errorf("unknown rule '%s'; known: %s", rule, strings.Join(Rules(), ", "))
		}
	}
	r := &Ranker{
		rule:  &rules[i],
		state: make([]state, servers),
		order: make([]int32, servers),
		first: none,
	}
	for i := range r.order {
		r.order[i] = int32(i) // #nosec G115 -- an index of servers
	}
	return r, nil
}

// Rule returns the name of the rule.
func (r *Ranker) Rule() string { return r.rule.name }

// Adopt takes over what old knows of the servers that both have, so that a change of the configuration does not move a service. was holds the index that each server has in
// old, or -1 for one that is new. To be called before the first Decide.
func (r *Ranker) Adopt(old *Ranker, was []int) {
	rank := make([]int, len(old.state))
	for pos, i := range old.order {
		rank[i] = pos
	}
	// Servers that are new come last, in configured order.
	place := make([]int, len(r.state))
	for i, j := range was {
		if j < 0 {
			place[i] = len(rank)
			continue
		}
		place[i] = rank[j]
		r.state[i] = old.state[j]
		if j == old.first {
			r.first = i
			r.decided = true
		}
	}
	slices.SortStableFunc(r.order, func(a, b int32) int { return place[a] - place[b] })
}

// Decide ranks the servers: est and eligible are indexed by server. The order returned holds the indexes of all eligible servers, best first;
// servers never measured come last, in configured order. It belongs to the caller.
//
// A rule only moves on for estimates of another round than the last one seen, so deciding twice in a round changes nothing. Eligibility takes effect at once: an incumbent
// that is not eligible is left for the lowest server, and when it is back it must win its place by the rule.
func (r *Ranker) Decide(est []Estimate, eligible []bool) (order []int, cause Cause) {
	was := r.first
	if was != none && eligible[was] && r.rule.regret {
		r.count(est, eligible)
	}
	best := none  // lowest of those measured
	fresh := none // lowest of those ranked by measurement for the first time
	rival := none // lowest of those that the rule puts before the incumbent
	for i := range r.state {
		e, s := &est[i], &r.state[i]
		s.known = s.known && e.Measured() // one that is measured in another way now begins anew
		if !eligible[i] || !e.Measured() {
			continue
		}
		if best == none || e.Value < est[best].Value {
			best = i
		}
		if !s.known && (fresh == none || e.Value < est[fresh].Value) {
			fresh = i
		}
		s.known = true
		if was != none && r.beats(i, est) && (rival == none || e.Value < est[rival].Value) {
			rival = i
		}
	}

	switch {
	case best == none && was != none && eligible[was]:
		// Nothing is measured any more, since the way to measure is another one.
	case best == none:
		// Nothing is measured: configured order.
		r.first = slices.Index(eligible, true)
		switch {
		case !r.decided:
			cause = First
		case was != none && !eligible[was]:
			cause = Down
		default:
			cause = Up
		}
	case was == none:
		r.first, cause = best, Up
		if !r.decided {
			cause = First
		}
	case !eligible[was]:
		r.first, cause = best, Down
	case !est[was].Measured():
		r.first, cause = best, First
	case fresh != none && est[fresh].Value < est[was].Value:
		// At the start the first measurements come within seconds of each other: a choice among those that had come is made again, not defended.
		r.first, cause = fresh, First
	case rival != none:
		r.first, cause = rival, Lower
	}
	if r.first == was {
		cause = Unchanged
	} else {
		r.restart(est)
	}
	r.decided = r.decided || r.first != none
	return r.sort(est, eligible), cause
}

// Follow ranks as Decide does, but the first server is the one that somebody else chose, who has seen more: it must be eligible. A Decide after it goes on from there.
func (r *Ranker) Follow(first int, est []Estimate, eligible []bool) (order []int, cause Cause) {
	for i := range r.state {
		s := &r.state[i]
		s.known = est[i].Measured() && (s.known || eligible[i])
	}
	was := r.first
	switch {
	case first == was:
		return r.sort(est, eligible), Unchanged
	case !r.decided:
		cause = First
	case was != none && !eligible[was]:
		cause = Down
	default:
		cause = Followed
	}
	r.first, r.decided = first, true
	r.restart(est)
	return r.sort(est, eligible), cause
}

// count adds the rounds that are new to the regret of not using each rival. A round counts for a pair when it brought something new of both servers.
func (r *Ranker) count(est []Estimate, eligible []bool) {
	first := &est[r.first]
	for i := range r.state {
		e, s := &est[i], &r.state[i]
		switch {
		case i == r.first:
		case !eligible[i] || !e.Measured() || !first.Measured():
			s.regret = 0
		case lap(e.Round) != s.own && lap(first.Round) != s.against:
			s.own, s.against = lap(e.Round), lap(first.Round)
			b := budget(first, e)
			most := min(clip, b)
			s.regret = float32(max(-b, float64(s.regret)+max(-most, min(most, first.RTT-e.RTT))-min(maxGrace, grace*(first.Noise+e.Noise))))
		}
	}
}

// restart forgets all regret: the first server is another one.
func (r *Ranker) restart(est []Estimate) {
	if r.first == none {
		return
	}
	for i := range r.state {
		s := &r.state[i]
		s.regret, s.own, s.against = 0, lap(est[i].Round), lap(est[r.first].Round)
	}
}

// lap is what is remembered of the number of a round.
func lap(round uint64) uint32 { return uint32(round) } // #nosec G115 -- see state

// budget is how much regret it takes to replace one server by another.
func budget(a, b *Estimate) float64 { return max(minBudget, min(maxBudget, a.Noise+b.Noise)) }

// beats reports whether the rule puts server i, which is measured, before the incumbent.
func (r *Ranker) beats(i int, est []Estimate) bool {
	e, first := &est[i], &est[r.first]
	if r.rule.regret {
		return e.Value < first.Value && float64(r.state[i].regret) > budget(first, e)
	}
	return e.Value < first.Value-r.rule.margin
}

// sort brings the remembered order up to date and returns its eligible part. Behind the first server a server passes those before it that are slower by more than
// the margin, so the order of nearly equal servers keeps still too.
func (r *Ranker) sort(est []Estimate, eligible []bool) []int {
	o := r.order
	for n := range o {
		i := o[n]
		at := n
		for m := range n {
			if r.passes(int(i), int(o[m]), est) {
				at = m
				break
			}
		}
		copy(o[at+1:n+1], o[at:n])
		o[at] = i
	}
	order := make([]int, 0, len(o))
	for _, i := range o {
		if eligible[i] {
			order = append(order, int(i))
		}
	}
	return order
}

// passes reports whether server i goes before server j, which stands before it.
func (r *Ranker) passes(i, j int, est []Estimate) bool {
	switch {
	case i == r.first || j == r.first:
		return i == r.first
	case est[i].Measured() && est[j].Measured():
		return est[i].Value < est[j].Value-r.rule.margin
	case !est[i].Measured() && !est[j].Measured():
		return i < j
	}
	return est[i].Measured()
}
