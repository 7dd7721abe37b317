package dnslb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// thereRule ranks by the measurements of another node where what it has chosen is
// not known or down from here. They come only now and then, so that the regret which
// the rule of here sums up over rounds would come late.
const thereRule = "margin"

// followRule is what explanations call it where that choice is known and up.
const followRule = "follow"

// elsewhere is what is known of the targets of a table from the place of another
// node, together with the health that is seen here. It is immutable.
type elsewhere struct {
	view *view
	vantage
}

// place returns the place that a resolver belongs to, or outside.
func (d *DNSLB) place(from func() netip.Addr) int {
	places := d.kept.sharing.using.Load().places
	if places == nil {
		return outside
	}
	return places.of(from())
}

// answerAt returns the answer for the resolvers of a place.
func (p *pool) answerAt(place int) *answer {
	if place > here {
		if answers := p.deputed.Load(); answers != nil && place < len(*answers) && (*answers)[place] != nil {
			return (*answers)[place]
		}
	}
	return p.answer.Load()
}

// newThere returns a standing as measured from another place.
func newThere(p *pool) *standing {
	s := newStanding(p, thereRule)
	return &s
}

// standIn brings the answers for the resolvers of other nodes up to date with
// their views and with the health that is seen here.
func (r *ranker) standIn() {
	views := r.kept.sharing.using.Load().views
	now := time.Now()
	for place := here + 1; place < max(len(views), len(r.table.there)); place++ {
		var v *view
		if place < len(views) {
			v = views[place]
		}
		switch {
		case v == nil && r.at(place) == nil:
		case v == nil:
			r.setThere(place, nil)
			for _, p := range r.table.pools {
				p.setAt(place, nil)
			}
		default:
			r.rankAt(place, v, now)
		}
	}
}

// at returns what was known at a place when it was ranked last, nil if it was not.
func (r *ranker) at(place int) *elsewhere {
	if place >= len(r.table.there) {
		return nil
	}
	return r.table.there[place]
}

// setThere makes e what is known at a place.
func (r *ranker) setThere(place int, e *elsewhere) {
	r.kept.mu.Lock()
	defer r.kept.mu.Unlock()
	for len(r.table.there) <= place {
		r.table.there = append(r.table.there, nil)
	}
	r.table.there[place] = e
}

// rankAt ranks the pools of which something is new at a place.
func (r *ranker) rankAt(place int, v *view, now time.Time) {
	next := &elsewhere{v, v.from(r.table.targets, r.here.status, now)}
	old := r.at(place)
	if old != nil && old.view == v {
		next.chosen = old.chosen
	} else {
		next.chosen = v.chosen(r.table.pools)
	}
	r.setThere(place, next)
	pools := r.table.pools
	if old != nil && old.view.node == v.node {
		pools = r.moved(old, next)
	}
	var changes []poolChange
	for _, p := range pools {
		r.kept.mu.Lock()
		for len(p.there) <= place {
			p.there = append(p.there, nil)
		}
		if old == nil || old.view.node != v.node {
			if p.there[place] == nil || old != nil {
				p.there[place] = newThere(p)
			}
		}
		a, changed := r.decideAt(p, p.there[place], &next.vantage)
		r.kept.mu.Unlock()
		p.setAt(place, a)
		if changed != nil {
			changes = append(changes, poolChange{p, changed})
		}
	}
	r.report(changes, v.node)
}

// moved returns the pools of which something that ranks is another one than before.
func (r *ranker) moved(old, next *elsewhere) (pools []*pool) {
	r.pass++
	add := func(p *pool) {
		if p.pass != r.pass {
			p.pass = r.pass
			pools = append(pools, p)
		}
	}
	for i := range r.table.targets {
		if !next.differs(&old.vantage, i) {
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
		if !next.chosen[p].same(old.chosen[p]) {
			add(p)
		}
	}
	return pools
}

// decideAt returns the answer of a pool from another place, nil if nothing was
// measured there that counts, and how the first member changed, if it did.
func (d *DNSLB) decideAt(p *pool, s *standing, v *vantage) (*answer, *change) {
	v = p.heed(v)
	if !slices.ContainsFunc(p.members, func(m *member) bool { return !m.down(v) && v.status[m.target].Estimate.Measured() }) {
		return nil, nil
	}
	return d.decide(p, s, v)
}

// heed returns what counts for a pool: if doubt leaves no member, what is seen
// here alone does.
func (p *pool) heed(v *vantage) *vantage {
	if slices.ContainsFunc(p.members, func(m *member) bool { return !m.down(v) }) {
		return v
	}
	return &vantage{status: v.status, chosen: v.chosen}
}

// setAt makes a the answer for the resolvers of a place. The ranking goroutine
// alone calls it.
func (p *pool) setAt(place int, a *answer) {
	var answers []*answer
	if old := p.deputed.Load(); old != nil {
		answers = slices.Clone(*old)
	}
	for len(answers) <= place {
		answers = append(answers, nil)
	}
	if old := answers[place]; old == a || old != nil && a != nil && old.equal(a) {
		return
	}
	answers[place] = a
	p.deputed.Store(&answers)
}

// from returns what is known of targets with the estimates of the view and the
// health that is seen here. A server that the other node saw as down is doubted
// as long as that is fresh. Estimates hold as long as the view does, whatever
// their age: if the older ones ended before, the rest would be ranked alone.
func (v *view) from(targets []latencyprobe.Target, own []latencyprobe.Status, now time.Time) vantage {
	out := vantage{status: slices.Clone(own), doubted: make([]bool, len(targets))}
	fresh := now.Sub(v.made) < trustTime
	for i, t := range targets {
		s, ok := v.targets[viewTarget{t.Addr, t.Probe}]
		out.status[i].Estimate, out.status[i].LastAt = ranking.Estimate{}, time.Time{}
		if !ok {
			continue
		}
		out.status[i].Estimate, out.status[i].LastAt = s.estimate, s.at
		out.doubted[i] = fresh && s.state == latencyprobe.Down
	}
	return out
}

// chosen is how the members of a pool are ranked at another node. It is immutable.
type chosen struct {
	order []int // best first
	near  []int // of these, those that count as equally fast as the first
	whole bool  // the order has all that could be chosen there
}

// chosen returns how the members of pools are ranked at the other node, as far as it
// told of one of them. Both nodes need not have the services in the same order.
func (v *view) chosen(pools []*pool) map[*pool]*chosen {
	out := make(map[*pool]*chosen, len(v.ranked))
	for _, p := range pools {
		is4 := p.members[0].addr.Is4()
		for _, name := range p.services {
			if ranked, ok := v.ranked[viewService{name, is4}]; ok {
				c := &chosen{p.indexes(ranked.order), p.indexes(ranked.near), p.options.answers > 1 || len(ranked.near) > 0}
				if len(c.order) > 0 {
					out[p] = c
				}
				break
			}
		}
	}
	return out
}

// indexes returns the members with these addresses.
func (p *pool) indexes(addrs []netip.Addr) (members []int) {
	for _, addr := range addrs {
		if i := slices.IndexFunc(p.members, func(m *member) bool { return m.addr == addr }); i >= 0 {
			members = append(members, i)
		}
	}
	return members
}

// nobody is the first of none.
const nobody = -1

// first returns the first one that is eligible, or nobody.
func (c *chosen) first(eligible []bool) int {
	for _, i := range c.order {
		if eligible[i] {
			return i
		}
	}
	return nobody
}

// among returns the members of an order as they are ranked there, and those that
// count as equally fast.
func (c *chosen) among(order []int) (sorted, near []int) {
	place := func(i int) int {
		if at := slices.Index(c.order, i); at >= 0 {
			return at
		}
		return len(c.order)
	}
	slices.SortStableFunc(order, func(a, b int) int { return place(a) - place(b) })
	for _, i := range c.near {
		if slices.Contains(order, i) {
			near = append(near, i)
		}
	}
	slices.Sort(near)
	return order, near
}

// same reports whether members are ranked in the same way.
func (c *chosen) same(other *chosen) bool {
	if c == nil || other == nil {
		return c == other
	}
	return slices.Equal(c.order, other.order) && slices.Equal(c.near, other.near) && c.whole == other.whole
}

// differs reports whether something that ranks is another one than before.
func (v *vantage) differs(old *vantage, i int) bool {
	a, b := &v.status[i], &old.status[i]
	return a.State != b.State || a.Failing != b.Failing || a.Estimate != b.Estimate || v.doubted[i] != old.doubted[i]
}

// publish shares what was measured with the deputies, once every target was
// probed.
func (r *ranker) publish() {
	if len(r.deputies) == 0 || !r.Ready() {
		return
	}
	if r.kept.sharing.publish(r.generation.Load(), time.Now(), findings{r.table.targets, r.here.status, r.watch.Status, r.table.pools, r.switched}) {
		r.switched = false
	}
}
