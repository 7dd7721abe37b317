package dnslb

import (
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// decision is how the members of a pool are ranked now, from one point of view.
type decision struct {
	order   []int // best first, never empty
	tied    []int // of these, those that count as equally fast as the first
	allDown bool  // no member is eligible: the order is that of the last ranking
	cause   ranking.Cause
}

// decide ranks the members of a pool by observations, and says why that changes
// the first one, if it does. Of the rank state it changes the ranker alone.
func (p *pool) decide(s *rankState, o *observations) decision {
	var few [fewMembers]ranking.Estimate
	estimates := p.estimates(o, few[:0])
	d := p.rankEligible(s, estimates, o)
	if d.allDown = len(d.order) == 0; d.allDown {
		d.order, d.tied = p.rankAllDown(s, estimates, o)
	}
	d.cause = p.causeOf(s, d, o)
	return d
}

// rankEligible ranks the eligible members, as the principal does if it ranks
// them. There is no order if no member is eligible.
func (p *pool) rankEligible(s *rankState, estimates []ranking.Estimate, o *observations) (d decision) {
	eligible, followed := p.eligibleWith(o)
	if followed != nil {
		d.order, d.cause = s.ranker.Follow(followed.first(eligible), estimates, eligible)
		if previous := p.members[s.first()]; d.cause == ranking.Down && !previous.down(o) && !previous.drain {
			d.cause = ranking.Followed // the principal demoted it
		}
		d.order, d.tied = followed.sort(d.order)
		return d
	}
	if d.order, d.cause = s.ranker.Decide(estimates, eligible, p.upWith(eligible, o)); len(d.order) > 0 {
		d.tied = p.tiedWith(d.order, estimates)
	}
	return d
}

// rankAllDown returns the last ranking of members that are all down. When it is
// not known which members were up last, it ranks those that went down last.
func (p *pool) rankAllDown(s *rankState, estimates []ranking.Estimate, o *observations) (order, tied []int) {
	if s.allDown && !s.overridesChanged {
		return s.order(), s.tied()
	}
	last := p.eligible(p.downLast(o))
	if order, _ = s.ranker.Decide(estimates, last, last); len(order) == 0 {
		order = s.order() // all members are down by an override
	}
	return order, p.tiedWith(order, estimates)
}

// causeOf returns why a decision changes the first member. What the ranker says
// is completed by what it does not know: overrides, drains, tiers and removals.
func (p *pool) causeOf(s *rankState, d decision, o *observations) ranking.Cause {
	previous := s.first()
	switch {
	case d.allDown && !s.allDown:
		return AllDown
	case d.allDown && s.removedFirst != nil:
		return Removed
	case d.allDown && s.overridesChanged && d.order[0] != previous:
		return Override
	case d.allDown:
		return ranking.Unchanged
	case s.allDown && !s.overridesChanged:
		return ranking.Up
	case s.allDown:
		return Override
	case s.removedFirst != nil:
		return Removed
	case s.overridesChanged && (d.cause == ranking.Up || d.cause == ranking.Down || d.cause == ranking.Lower):
		return Override
	case d.cause == ranking.Down && !p.members[previous].down(o):
		return p.members[previous].demotionCause()
	}
	return d.cause
}

// demotionCause returns why a member is not eligible that is up.
func (m *member) demotionCause() ranking.Cause {
	switch {
	case m.override.verb == serveroverride.Drain:
		return Override
	case m.drain:
		return Drained
	}
	return Tier
}

// eligibleWith says which members are eligible by observations. If the principal
// ranks one of those, followed is its ranking, else nil.
func (p *pool) eligibleWith(o *observations) (eligible []bool, followed *peerRanking) {
	eligible = p.eligible(func(m *member) bool { return !m.down(o) })
	ranked := o.peerRankings[p]
	if ranked == nil {
		return eligible, nil
	}
	both := slices.Clone(eligible)
	for i, m := range p.members {
		switch {
		case slices.Contains(ranked.order, i):
			// The principal knows of more members whether a tier has one that is up.
			both[i] = eligible[i] || !m.drain && !m.down(o)
		case ranked.whole:
			both[i] = false
		}
	}
	if ranked.first(both) == noMember {
		return eligible, nil
	}
	return both, ranked
}

// upWith says which members are up, whether they are eligible or not: what is measured
// of one that the operator keeps out counts when it may be chosen again.
func (p *pool) upWith(eligible []bool, o *observations) []bool {
	if !slices.Contains(eligible, false) {
		return eligible
	}
	up := slices.Clone(eligible)
	for i, m := range p.members {
		up[i] = up[i] || !m.observedDown(o)
	}
	return up
}

// eligible says which members may be chosen: those that are up and not drained,
// of the lowest tier that has one; if there are none, drained ones that are up.
func (p *pool) eligible(up func(*member) bool) []bool {
	eligible := make([]bool, len(p.members))
	for _, drained := range []bool{false, true} {
		tier, found := 0, false
		for _, m := range p.members {
			if m.drain == drained && (!found || m.tier < tier) && up(m) {
				tier, found = m.tier, true
			}
		}
		if !found {
			continue
		}
		for i, m := range p.members {
			eligible[i] = m.drain == drained && m.tier == tier && up(m)
		}
		break
	}
	return eligible
}

// down reports whether a member counts as down.
func (m *member) down(o *observations) bool {
	switch m.override.verb {
	case serveroverride.Up:
		return false
	case serveroverride.Down:
		return true
	}
	return m.observedDown(o)
}

// observedDown reports whether a member is down, whatever the operator says.
func (m *member) observedDown(o *observations) bool {
	s := &o.status[m.target]
	return s.State == latencyprobe.Down && (!s.Held || !o.heldAreUp) || o.downAtPrincipal != nil && o.downAtPrincipal[m.target]
}

// outageWindow is the time within which servers go down that one event took
// down: the slowest probe finds out that much later than the fastest.
const outageWindow = time.Minute

// downLast returns whether a member of a pool that is all down went down last,
// within outageWindow. An event that takes all members leaves them ranked as
// they were, and not by which probe found out last.
func (p *pool) downLast(o *observations) func(*member) bool {
	var last time.Time
	for _, m := range p.members {
		if since := o.status[m.target].Since; m.override.verb != serveroverride.Down && since.After(last) {
			last = since
		}
	}
	return func(m *member) bool {
		return m.override.verb != serveroverride.Down && last.Sub(o.status[m.target].Since) <= outageWindow
	}
}

// fewMembers is how many members most pools have at most: what is needed to decide on
// these is on the stack.
const fewMembers = 16

// estimates appends the latencies by which members are ranked.
func (p *pool) estimates(o *observations, estimates []ranking.Estimate) []ranking.Estimate {
	for _, m := range p.members {
		estimates = append(estimates, m.biased(o.status[m.target].Estimate))
	}
	return estimates
}

// biased returns an estimate with the latency that the operator adds to a server.
func (m *member) biased(e ranking.Estimate) ranking.Estimate {
	if e.Measured() {
		e.RTT += milliseconds(m.bias)
		e.Value += milliseconds(m.bias)
	}
	return e
}

// tiedWith returns the members that count as equally fast as the first one. They
// are in configured order: the server of a site does not depend on the ranking.
func (p *pool) tiedWith(order []int, estimates []ranking.Estimate) []int {
	if p.options.within == 0 || !estimates[order[0]].Measured() {
		return nil
	}
	limit := estimates[order[0]].Value + milliseconds(p.options.within)
	var tied []int
	for _, i := range order {
		if e := estimates[i]; e.Measured() && e.Value <= limit {
			tied = append(tied, i)
		}
	}
	slices.Sort(tied)
	return tied
}
