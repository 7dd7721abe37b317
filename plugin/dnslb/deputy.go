package dnslb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// principalRule ranks by the measurements of a principal where its own choice
// is unknown or down. They come only now and then, so that a rule which sums up
// regret over rounds would switch late.
const principalRule = "margin"

// trustTime is how long the principal is believed that a server is down: while
// it lives until its next view, even if a NOTIFY is lost.
const trustTime = 2 * time.Minute

// followRule is the rule in explanations where that choice is known and up.
const followRule = "follow"

// principalState is the view of a principal, and what follows from it and from
// the health of the targets as this node sees it. It is immutable.
type principalState struct {
	view   *peerview.View
	fresh  bool   // younger than trustTime
	health uint64 // of the ranker when it was made
	observations
}

// answerFor returns the answer for the resolvers of a slot.
func (p *pool) answerFor(slot int) *answer {
	if a := p.principalAnswer(slot); a != nil {
		return a
	}
	return p.answer.Load()
}

// principalAnswer returns the answer by the view of a principal, nil if there is
// none or the slot is not that of a principal.
func (p *pool) principalAnswer(slot int) *answer {
	if slot > peerview.Own {
		if answers := p.principalAnswers.Load(); answers != nil && slot < len(*answers) {
			return (*answers)[slot]
		}
	}
	return nil
}

// principalState returns the rank state of a slot, nil if there is none.
func (p *pool) principalState(slot int) *rankState {
	if p.principalStates == nil || slot >= len(*p.principalStates) {
		return nil
	}
	return (*p.principalStates)[slot]
}

// newPrincipalState makes and returns the first rank state of a slot.
func (p *pool) newPrincipalState(slot int) *rankState {
	if p.principalStates == nil {
		p.principalStates = new([]*rankState)
	}
	states := p.principalStates
	for len(*states) <= slot {
		*states = append(*states, nil)
	}
	s := newRankState(p, principalRule)
	(*states)[slot] = &s
	return &s
}

// rankForPrincipals brings the answers for the resolvers of principals up to
// date with their views and with the health of the targets as this node sees
// it.
func (r *ranker) rankForPrincipals(set *peerview.Set) {
	views := set.Views
	now := time.Now()
	for slot := peerview.Own + 1; slot < max(len(views), len(r.snapshot.principals)); slot++ {
		var v *peerview.View
		if slot < len(views) {
			v = views[slot]
		}
		switch {
		case v == nil && r.principal(slot) == nil:
		case v == nil:
			r.setPrincipal(slot, nil)
			for _, p := range r.snapshot.pools {
				p.setPrincipalAnswer(slot, nil)
			}
		default:
			r.rankForPrincipal(slot, v, now)
		}
	}
}

// principal returns the state of a slot when it was ranked last, nil if it was
// not.
func (r *ranker) principal(slot int) *principalState {
	if slot >= len(r.snapshot.principals) {
		return nil
	}
	return r.snapshot.principals[slot]
}

// setPrincipal makes e the state of a slot.
func (r *ranker) setPrincipal(slot int, e *principalState) {
	r.block.mu.Lock()
	defer r.block.mu.Unlock()
	for len(r.snapshot.principals) <= slot {
		r.snapshot.principals = append(r.snapshot.principals, nil)
	}
	r.snapshot.principals[slot] = e
}

// rankForPrincipal ranks the pools for which something has changed in a slot.
func (r *ranker) rankForPrincipal(slot int, v *peerview.View, now time.Time) {
	old, fresh := r.principal(slot), now.Sub(v.Made) < trustTime
	if old != nil && old.view == v && old.fresh == fresh && old.health == r.health {
		return
	}
	next := &principalState{v, fresh, r.health, observationsFrom(v, r.snapshot.targets, r.observed.status, fresh)}
	if old != nil && old.view == v {
		next.peerRankings = old.peerRankings
	} else {
		next.peerRankings = peerRankings(v, r.snapshot.pools)
	}
	r.setPrincipal(slot, next)
	pools := r.snapshot.pools
	if old != nil && old.view.Node == v.Node {
		pools = r.changedPools(old, next)
	}
	var changes []poolSwitch
	for _, p := range pools {
		r.block.mu.Lock()
		s := p.principalState(slot)
		if s == nil || old != nil && old.view.Node != v.Node {
			s = p.newPrincipalState(slot)
		}
		a, changed := r.decideForPrincipal(p, s, &next.observations)
		r.block.mu.Unlock()
		p.setPrincipalAnswer(slot, a)
		r.refreshSites(p, slot)
		if changed != nil {
			changes = append(changes, poolSwitch{p, changed})
		}
	}
	r.logSwitches(changes, v.Node)
}

// changedPools returns the pools whose ranking may change.
func (r *ranker) changedPools(old, next *principalState) (pools []*pool) {
	r.pass++
	add := func(p *pool) {
		if p.lastPass != r.pass {
			p.lastPass = r.pass
			pools = append(pools, p)
		}
	}
	for i := range r.snapshot.targets {
		if !next.targetDiffers(&old.observations, i) {
			continue
		}
		for p := range r.snapshot.poolsOf(i) {
			add(p)
		}
	}
	if next.view == old.view {
		return pools
	}
	for _, p := range r.snapshot.pools {
		if !next.peerRankings[p].equal(old.peerRankings[p]) {
			add(p)
		}
	}
	return pools
}

// decideForPrincipal returns the answer of a pool for a principal, nil if the
// principal has measured no member that is up, and the switch of its first
// member, nil if there was none.
func (r *ranker) decideForPrincipal(p *pool, s *rankState, v *observations) (*answer, *switchEvent) {
	v = p.effective(v)
	if !slices.ContainsFunc(p.members, func(m *member) bool { return !m.down(v) && v.status[m.target].Estimate.Measured() }) {
		return nil, nil
	}
	return r.rankPool(p, s, v)
}

// effective returns the observations that count for a pool: those of the
// principal and this node together, or, if these leave no member up, those of
// this node alone. If that leaves none up either, members that are held down count
// as up: they work, and the others do not.
func (p *pool) effective(o *observations) *observations {
	if p.someUp(o) {
		return o
	}
	if alone := (&observations{status: o.status, peerRankings: o.peerRankings}); p.someUp(alone) {
		return alone
	}
	if held := (&observations{status: o.status, peerRankings: o.peerRankings, heldAreUp: true}); p.someUp(held) {
		return held
	}
	return o
}

// someUp reports whether a member is up.
func (p *pool) someUp(o *observations) bool {
	return slices.ContainsFunc(p.members, func(m *member) bool { return !m.down(o) })
}

// setPrincipalAnswer makes a the answer for the resolvers of a slot. The
// ranking goroutine alone calls it.
func (p *pool) setPrincipalAnswer(slot int, a *answer) {
	var answers []*answer
	if old := p.principalAnswers.Load(); old != nil {
		answers = slices.Clone(*old)
	}
	for len(answers) <= slot {
		answers = append(answers, nil)
	}
	if old := answers[slot]; old == a || old != nil && a != nil && old.equal(a) {
		return
	}
	answers[slot] = a
	p.principalAnswers.Store(&answers)
}

// observationsFrom combines the estimates of a view with own, the health of the
// targets as this node sees it. A server that the principal saw as down counts
// as down while the view is fresh. Estimates hold as long as the view does, whatever
// their age: if the older ones ended earlier, the rest would be ranked alone.
func observationsFrom(v *peerview.View, targets []latencyprobe.Target, own []latencyprobe.Status, fresh bool) observations {
	out := observations{status: slices.Clone(own), downAtPrincipal: make([]bool, len(targets))}
	for i, t := range targets {
		s, ok := v.Targets[peerview.Target{Addr: t.Addr, Probe: t.Probe}]
		out.status[i].Estimate, out.status[i].MeasuredAt = ranking.Estimate{}, time.Time{}
		if !ok {
			continue
		}
		out.status[i].Estimate, out.status[i].MeasuredAt = s.Estimate, s.At
		out.downAtPrincipal[i] = fresh && s.State == latencyprobe.Down
	}
	return out
}

// peerRanking is how a principal ranks the members of a pool. It is immutable.
type peerRanking struct {
	order []int // best first
	tied  []int // of these, those within the configured distance of the first
	whole bool  // the order has all members that are eligible at the principal
}

// peerRankings returns how a principal ranks pools, as far as its view names
// one of their services. Both nodes need not have the services in the same
// order.
func peerRankings(v *peerview.View, pools []*pool) map[*pool]*peerRanking {
	out := make(map[*pool]*peerRanking, len(v.Rankings))
	for _, p := range pools {
		is4 := p.members[0].addr.Is4()
		for _, name := range p.services {
			if ranked, ok := v.Rankings[peerview.Service{Name: name, IPv4: is4}]; ok {
				c := &peerRanking{p.membersWith(ranked.Order), p.membersWith(ranked.Tied), p.options.answers > 1 || len(ranked.Tied) > 0}
				if len(c.order) > 0 {
					out[p] = c
				}
				break
			}
		}
	}
	return out
}

// membersWith returns the members with these addresses.
func (p *pool) membersWith(addrs []netip.Addr) (members []int) {
	for _, addr := range addrs {
		if i := slices.IndexFunc(p.members, func(m *member) bool { return m.addr == addr }); i >= 0 {
			members = append(members, i)
		}
	}
	return members
}

// noMember is the index of no member.
const noMember = -1

// first returns the first member that is eligible, or noMember.
func (c *peerRanking) first(eligible []bool) int {
	for _, i := range c.order {
		if eligible[i] {
			return i
		}
	}
	return noMember
}

// sort sorts members as the principal ranks them, and returns those that are
// tied.
func (c *peerRanking) sort(order []int) (sorted, tied []int) {
	rank := func(i int) int {
		if rank := slices.Index(c.order, i); rank >= 0 {
			return rank
		}
		return len(c.order)
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(a) - rank(b) })
	for _, i := range c.tied {
		if slices.Contains(order, i) {
			tied = append(tied, i)
		}
	}
	slices.Sort(tied)
	return order, tied
}

// equal reports whether two rankings, or their absence, are the same.
func (c *peerRanking) equal(other *peerRanking) bool {
	if c == nil || other == nil {
		return c == other
	}
	return slices.Equal(c.order, other.order) && slices.Equal(c.tied, other.tied) && c.whole == other.whole
}

// targetDiffers reports whether a target has changed in a way that may change a
// ranking.
func (v *observations) targetDiffers(old *observations, i int) bool {
	a, b := &v.status[i], &old.status[i]
	return a.State != b.State || a.Held != b.Held || a.Failing != b.Failing || a.Estimate != b.Estimate || v.downAtPrincipal[i] != old.downAtPrincipal[i]
}

// publish makes a view for other nodes, once every target was probed.
func (r *ranker) publish() {
	if len(r.conf.deputies) == 0 && !r.conf.clientSubnets || !r.ready.Load() || r.block.youngest().instance != r.instance {
		return
	}
	if r.block.sharing.Publish(time.Now(), r.findings(r.watch.Status)) {
		r.serversChanged = false
	}
}

// findings returns what is shared. status is the latest of a target.
func (r *ranker) findings(status func(latencyprobe.Target) latencyprobe.Status) peerview.Findings {
	return peerview.Findings{
		Targets: r.snapshot.targets, Ranked: r.observed.status, Status: status, Switched: r.serversChanged,
		Rankings: func() map[peerview.Service]peerview.Ranking {
			rankings := make(map[peerview.Service]peerview.Ranking, len(r.snapshot.pools))
			for _, p := range r.snapshot.pools {
				rankings[peerview.Service{Name: p.services[0], IPv4: p.members[0].addr.Is4()}] = p.ranking()
			}
			return rankings
		},
	}
}

// ranking returns how a pool is ranked for the resolvers of this node.
func (p *pool) ranking() (r peerview.Ranking) {
	order := p.state.order()
	if tied := p.state.tied(); len(tied) > 1 {
		r.Tied = p.addrs(tied)
	} else if p.options.answers == 1 {
		order = order[:min(2, len(order))]
	}
	r.Order = p.addrs(order)
	return r
}

func (p *pool) addrs(members []int) []netip.Addr {
	addrs := make([]netip.Addr, len(members))
	for i, m := range members {
		addrs[i] = p.members[m].addr
	}
	return addrs
}
