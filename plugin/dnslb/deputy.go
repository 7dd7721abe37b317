package dnslb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// principalRule ranks by the measurements of another node where what it has chosen is
// not known or down from here. They come only now and then, so that the regret which
// the rule of here sums up over rounds would come late.
const principalRule = "margin"

// followRule is what explanations call it where that choice is known and up.
const followRule = "follow"

// principalState is what is known of the targets of a table from the place of another
// node, together with the health that is seen here. It is immutable.
type principalState struct {
	view *view
	observations
}

// place returns the place that a resolver belongs to, or outside.
func (d *DNSLB) place(from func() netip.Addr) int {
	places := d.state.sharing.using.Load().places
	if places == nil {
		return outside
	}
	return places.of(from())
}

// answerFor returns the answer for the resolvers of a place.
func (p *pool) answerFor(place int) *answer {
	if place > here {
		if answers := p.principalAnswers.Load(); answers != nil && place < len(*answers) && (*answers)[place] != nil {
			return (*answers)[place]
		}
	}
	return p.answer.Load()
}

// newPrincipalRankState returns a standing as measured from another place.
func newPrincipalRankState(p *pool) *rankState {
	s := newRankState(p, principalRule)
	return &s
}

// rankForPrincipals brings the answers for the resolvers of other nodes up to date with
// their views and with the health that is seen here.
func (r *ranker) rankForPrincipals() {
	views := r.state.sharing.using.Load().views
	now := time.Now()
	for place := here + 1; place < max(len(views), len(r.table.principals)); place++ {
		var v *view
		if place < len(views) {
			v = views[place]
		}
		switch {
		case v == nil && r.principal(place) == nil:
		case v == nil:
			r.setPrincipal(place, nil)
			for _, p := range r.table.pools {
				p.setPrincipalAnswer(place, nil)
			}
		default:
			r.rankForPrincipal(place, v, now)
		}
	}
}

// principal returns what was known principal a place when it was ranked last, nil if it was not.
func (r *ranker) principal(place int) *principalState {
	if place >= len(r.table.principals) {
		return nil
	}
	return r.table.principals[place]
}

// setPrincipal makes e what is known at a place.
func (r *ranker) setPrincipal(place int, e *principalState) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	for len(r.table.principals) <= place {
		r.table.principals = append(r.table.principals, nil)
	}
	r.table.principals[place] = e
}

// rankForPrincipal ranks the pools of which something is new at a place.
func (r *ranker) rankForPrincipal(place int, v *view, now time.Time) {
	next := &principalState{v, v.from(r.table.targets, r.observed.status, now)}
	old := r.principal(place)
	if old != nil && old.view == v {
		next.peerRankings = old.peerRankings
	} else {
		next.peerRankings = v.chosen(r.table.pools)
	}
	r.setPrincipal(place, next)
	pools := r.table.pools
	if old != nil && old.view.node == v.node {
		pools = r.changedPools(old, next)
	}
	var changes []poolSwitch
	for _, p := range pools {
		r.state.mu.Lock()
		for len(p.principalStates) <= place {
			p.principalStates = append(p.principalStates, nil)
		}
		if old == nil || old.view.node != v.node {
			if p.principalStates[place] == nil || old != nil {
				p.principalStates[place] = newPrincipalRankState(p)
			}
		}
		a, changed := r.decideForPrincipal(p, p.principalStates[place], &next.observations)
		r.state.mu.Unlock()
		p.setPrincipalAnswer(place, a)
		if changed != nil {
			changes = append(changes, poolSwitch{p, changed})
		}
	}
	r.logSwitches(changes, v.node)
}

// changedPools returns the pools of which something that ranks is another one than before.
func (r *ranker) changedPools(old, next *principalState) (pools []*pool) {
	r.pass++
	add := func(p *pool) {
		if p.lastPass != r.pass {
			p.lastPass = r.pass
			pools = append(pools, p)
		}
	}
	for i := range r.table.targets {
		if !next.targetDiffers(&old.observations, i) {
			continue
		}
		for _, p := range r.table.byTarget[i] {
			add(p)
		}
	}
	if next.view == old.view {
		return pools
	}
	for _, p := range r.table.pools {
		if !next.peerRankings[p].equal(old.peerRankings[p]) {
			add(p)
		}
	}
	return pools
}

// decideForPrincipal returns the answer of a pool from another place, nil if nothing was
// measured there that counts, and how the first member changed, if it did.
func (d *DNSLB) decideForPrincipal(p *pool, s *rankState, v *observations) (*answer, *switchEvent) {
	v = p.effective(v)
	if !slices.ContainsFunc(p.members, func(m *member) bool { return !m.down(v) && v.status[m.target].Estimate.Measured() }) {
		return nil, nil
	}
	return d.rankPool(p, s, v)
}

// effective returns what counts for a pool: if doubt leaves no member, what is seen
// here alone does.
func (p *pool) effective(v *observations) *observations {
	if slices.ContainsFunc(p.members, func(m *member) bool { return !m.down(v) }) {
		return v
	}
	return &observations{status: v.status, peerRankings: v.peerRankings}
}

// setPrincipalAnswer makes a the answer for the resolvers of a place. The ranking goroutine
// alone calls it.
func (p *pool) setPrincipalAnswer(place int, a *answer) {
	var answers []*answer
	if old := p.principalAnswers.Load(); old != nil {
		answers = slices.Clone(*old)
	}
	for len(answers) <= place {
		answers = append(answers, nil)
	}
	if old := answers[place]; old == a || old != nil && a != nil && old.equal(a) {
		return
	}
	answers[place] = a
	p.principalAnswers.Store(&answers)
}

// from returns what is known of targets with the estimates of the view and the
// health that is seen here. A server that the other node saw as down is doubted
// as long as that is fresh. Estimates hold as long as the view does, whatever
// their age: if the older ones ended before, the rest would be ranked alone.
func (v *view) from(targets []latencyprobe.Target, own []latencyprobe.Status, now time.Time) observations {
	out := observations{status: slices.Clone(own), downAtPrincipal: make([]bool, len(targets))}
	fresh := now.Sub(v.made) < trustTime
	for i, t := range targets {
		s, ok := v.targets[viewTarget{t.Addr, t.Probe}]
		out.status[i].Estimate, out.status[i].LastAt = ranking.Estimate{}, time.Time{}
		if !ok {
			continue
		}
		out.status[i].Estimate, out.status[i].LastAt = s.estimate, s.at
		out.downAtPrincipal[i] = fresh && s.state == latencyprobe.Down
	}
	return out
}

// peerRanking is how the members of a pool are ranked at another node. It is immutable.
type peerRanking struct {
	order []int // best first
	tied  []int // of these, those that count as equally fast as the first
	whole bool  // the order has all that could be chosen there
}

// chosen returns how the members of pools are ranked at the other node, as far as it
// told of one of them. Both nodes need not have the services in the same order.
func (v *view) chosen(pools []*pool) map[*pool]*peerRanking {
	out := make(map[*pool]*peerRanking, len(v.ranked))
	for _, p := range pools {
		is4 := p.members[0].addr.Is4()
		for _, name := range p.services {
			if ranked, ok := v.ranked[viewService{name, is4}]; ok {
				c := &peerRanking{p.membersWith(ranked.order), p.membersWith(ranked.near), p.options.answers > 1 || len(ranked.near) > 0}
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

// noMember is the first of none.
const noMember = -1

// first returns the first one that is eligible, or nobody.
func (c *peerRanking) first(eligible []bool) int {
	for _, i := range c.order {
		if eligible[i] {
			return i
		}
	}
	return noMember
}

// sort returns the members of an order as they are ranked there, and those that
// count as equally fast.
func (c *peerRanking) sort(order []int) (sorted, near []int) {
	place := func(i int) int {
		if at := slices.Index(c.order, i); at >= 0 {
			return at
		}
		return len(c.order)
	}
	slices.SortStableFunc(order, func(a, b int) int { return place(a) - place(b) })
	for _, i := range c.tied {
		if slices.Contains(order, i) {
			near = append(near, i)
		}
	}
	slices.Sort(near)
	return order, near
}

// equal reports whether members are ranked in the equal way.
func (c *peerRanking) equal(other *peerRanking) bool {
	if c == nil || other == nil {
		return c == other
	}
	return slices.Equal(c.order, other.order) && slices.Equal(c.tied, other.tied) && c.whole == other.whole
}

// targetDiffers reports whether something that ranks is another one than before.
func (v *observations) targetDiffers(old *observations, i int) bool {
	a, b := &v.status[i], &old.status[i]
	return a.State != b.State || a.Failing != b.Failing || a.Estimate != b.Estimate || v.downAtPrincipal[i] != old.downAtPrincipal[i]
}

// publish shares what was measured with the deputies, once every target was
// probed.
func (r *ranker) publish() {
	if len(r.deputies) == 0 || !r.Ready() || r.state.youngest().instance != r.DNSLB {
		return
	}
	if r.state.sharing.publish(time.Now(), findings{r.table.targets, r.observed.status, r.watch.Status, r.table.pools, r.serversChanged}) {
		r.serversChanged = false
	}
}
