package dnslb

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// firstRound is how long the first full round of measurement may take: after
// that the node is ready with what it has measured.
const firstRound = 10 * time.Second

// ranker makes the rankings of one instance. It belongs to one goroutine.
type ranker struct {
	*DNSLB
	watch          measurements
	table          *table
	observed       observations // that of the table
	pass           uint64
	allProbed      bool // every target was probed at least once
	serversChanged bool // a pool answers other servers than was shared
}

// measurements are what latencyprobe knows of targets, those that were set. What
// it tells of their health as Changed is to be looked at at once.
type measurements interface {
	Set(targets []latencyprobe.Target)
	Status(target latencyprobe.Target) latencyprobe.Status
	Changed() <-chan struct{}
	Close()
}

// observations is what is known of the targets of a table from one place. The ranking
// goroutine alone changes it, under the lock of what is kept.
type observations struct {
	status          []latencyprobe.Status  // by target
	downAtPrincipal []bool                 // counts as down since it is so from the other place; nil: none
	peerRankings    map[*pool]*peerRanking // how members are ranked at the other place; nil: not known
}

// start takes over the rankings of the instance before and begins to rank.
func (d *DNSLB) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	d.stop = func() { cancel(); <-done }

	d.generation.Store(generations.Add(1))
	d.kept.sharing.set(d.config, d.generation.Load())
	d.watch = d.probe.Watch()
	r := &ranker{DNSLB: d, watch: d.watch}
	d.sources.resume(d.kept.before())
	r.setTable(d.sources.table())
	if d.kept.registered() && d.sources.loaded() {
		// The instance before has measured: a reload must not wait again.
		d.ready.Store(true)
		d.register()
	}

	tables := make(chan *table)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		d.sources.follow(ctx, tables)
	}()
	go func() {
		defer close(done)
		defer r.watch.Close()
		defer r.kept.leave(d)
		r.run(ctx, tables)
		<-followed
	}()
}

// run ranks once a decision round, and at once when a server's health changes or
// there is another table. Rounds begin at a time of this process's own: nodes
// that have measured the same change do not move all clients in one second.
func (r *ranker) run(ctx context.Context, tables <-chan *table) {
	round := time.NewTimer(rand.N(ranking.Round)) // #nosec G404 -- phase
	defer round.Stop()
	deadline := time.After(firstRound)
	views, forget := r.kept.sharing.watch()
	defer forget()
	late := false
	for {
		full := false
		select {
		case <-ctx.Done():
			return
		case t := <-tables:
			r.setTable(t)
		case <-round.C:
			round.Reset(ranking.Round)
			full = true
		case <-r.watch.Changed():
		case <-views:
		case <-deadline:
			late = true
		}
		// When our own network is gone the ranking of before is the best there is.
		if !r.probe.Isolated() {
			r.rank(full)
			r.rankForPrincipals()
			r.publish()
		}
		if (r.allProbed || late) && r.sources.loaded() {
			r.becomeReady()
		}
	}
}

// setTable makes t the table: it is ranked by what is known, and then queries see it.
func (r *ranker) setTable(t *table) {
	r.kept.adopt(t, r.DNSLB)
	r.watch.Set(t.targets)
	r.table, r.serversChanged = t, true
	r.observed = t.observed // which nobody else has yet
	for i, target := range t.targets {
		r.observed.status[i] = r.watch.Status(target)
	}
	r.rankPools(t.pools)
	r.rankForPrincipals()
	r.DNSLB.table.Store(t)
}

// rank brings the answers up to date with what was measured: of all pools with a
// server whose health changed, and in a full pass of those with another estimate.
func (r *ranker) rank(full bool) {
	r.pass++
	r.allProbed = true
	var dirty []*pool
	for i, target := range r.table.targets {
		now, old := r.watch.Status(target), &r.observed.status[i]
		r.allProbed = r.allProbed && now.Probed
		if now.State == old.State && now.Failing == old.Failing && now.Probed == old.Probed && (!full || now.Estimate == old.Estimate) {
			continue
		}
		r.kept.mu.Lock()
		*old = now
		r.kept.mu.Unlock()
		for _, p := range r.table.byTarget[i] {
			if p.lastPass != r.pass {
				p.lastPass = r.pass
				dirty = append(dirty, p)
			}
		}
	}
	r.rankPools(dirty)
}

func (r *ranker) rankPools(pools []*pool) {
	var changes []poolSwitch
	for _, p := range pools {
		r.kept.mu.Lock()
		next, changed := r.decide(p, &p.state, &r.observed)
		if old := p.answer.Load(); !next.equal(old) {
			r.serversChanged = r.serversChanged || !next.sameServers(old)
			p.answer.Store(next)
		}
		r.kept.mu.Unlock()
		if changed != nil {
			changes = append(changes, poolSwitch{p, changed})
		}
	}
	r.logSwitches(changes, r.Node)
}

// decide brings a standing up to date with what is known from one place. It
// returns the answer, and how the first member changed, nil if it did not. The
// lock of what is kept must be held.
func (d *DNSLB) decide(p *pool, s *rankState, v *observations) (*answer, *switchEvent) {
	estimates := p.estimates(v)
	was := s.order[0]
	order, near, cause := p.rank(s, estimates, v)
	allDown := len(order) == 0
	switch {
	case !allDown:
		s.tied = near
	case s.allDown && !s.overridesChanged:
		order = s.order
	default:
		if order, _ = s.ranker.Decide(estimates, p.eligible(p.downLast(v))); len(order) == 0 {
			order = s.order // of servers that the operator says are down
		}
		s.tied = p.tiedWith(order, estimates)
	}
	first, wasAllDown := order[0], s.allDown
	switch {
	case allDown && !wasAllDown:
		cause = AllDown
	case allDown && s.removedFirst != nil:
		cause = Removed
	case allDown && s.overridesChanged && first != was:
		cause = Override
	case allDown:
		cause = ranking.Unchanged
	case wasAllDown && !s.overridesChanged:
		cause = ranking.Up
	case wasAllDown:
		cause = Override
	case s.removedFirst != nil:
		cause = Removed
	case s.overridesChanged && (cause == ranking.Up || cause == ranking.Down):
		cause = Override
	case cause == ranking.Down && !p.members[was].down(v):
		cause = p.members[was].demotionCause()
	}
	s.order, s.allDown, s.overridesChanged = order, allDown, false

	ttl := func(i int) uint32 {
		if allDown || v.status[p.members[i].target].Failing {
			return d.ttlLow
		}
		return d.ttlHigh
	}
	next := p.newAnswer(order, s.tied, ttl, allDown)
	if cause == ranking.Unchanged || first == was && !allDown && !wasAllDown && cause != Removed {
		return next, nil
	}
	c := &switchEvent{at: time.Now(), cause: cause, from: v.memberState(p.members[was]), to: v.memberState(p.members[first])}
	if s.removedFirst != nil {
		c.from, s.removedFirst = *s.removedFirst, nil
	}
	if cause != ranking.First {
		s.lastSwitch = c
	}
	return next, c
}

// rank ranks the members that are eligible, as at another place if they are ranked
// there.
func (p *pool) rank(s *rankState, estimates []ranking.Estimate, v *observations) (order, near []int, cause ranking.Cause) {
	eligible, there := p.eligibleWith(v)
	if there != nil {
		order, cause = s.ranker.Follow(there.first(eligible), estimates, eligible)
		if was := p.members[s.order[0]]; cause == ranking.Down && !was.down(v) && !was.drain {
			cause = ranking.Followed // it is set back there
		}
		order, near = there.sort(order)
		return order, near, cause
	}
	if order, cause = s.ranker.Decide(estimates, eligible); len(order) > 0 {
		near = p.tiedWith(order, estimates)
	}
	return order, near, cause
}

// eligibleWith says which members may be chosen by what is known from a place, and
// how they are ranked at another one if one of those is eligible, else nil.
func (p *pool) eligibleWith(v *observations) (eligible []bool, there *peerRanking) {
	eligible = p.eligible(func(m *member) bool { return !m.down(v) })
	c := v.peerRankings[p]
	if c == nil {
		return eligible, nil
	}
	both := slices.Clone(eligible)
	for i, m := range p.members {
		switch {
		case slices.Contains(c.order, i):
			// Of tiers the other node has seen more.
			both[i] = eligible[i] || !m.drain && !m.down(v)
		case c.whole:
			both[i] = false
		}
	}
	if c.first(both) == noMember {
		return eligible, nil
	}
	return both, c
}

// down reports whether a member counts as down.
func (m *member) down(v *observations) bool {
	switch m.order {
	case orderUp:
		return false
	case orderDown:
		return true
	}
	return v.status[m.target].State == latencyprobe.Down || v.downAtPrincipal != nil && v.downAtPrincipal[m.target]
}

// outageWindow is within what time of each other servers go down that are taken to
// have been lost by one event: it takes the slowest probe this long to find out.
const outageWindow = time.Minute

// downLast tells of members that are all down which of them were up last, so that an
// event which takes all of them leaves them ranked as they were, and not by which
// was found out last.
func (p *pool) downLast(v *observations) func(*member) bool {
	var last time.Time
	for _, m := range p.members {
		if since := v.status[m.target].Since; m.order != orderDown && since.After(last) {
			last = since
		}
	}
	return func(m *member) bool {
		return m.order != orderDown && last.Sub(v.status[m.target].Since) <= outageWindow
	}
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

// estimates returns what the members are ranked by.
func (p *pool) estimates(v *observations) []ranking.Estimate {
	out := make([]ranking.Estimate, len(p.members))
	for i, m := range p.members {
		out[i] = m.biased(v.status[m.target].Estimate)
	}
	return out
}

// biased adds what the operator adds to a server's latency.
func (m *member) biased(e ranking.Estimate) ranking.Estimate {
	if e.Measured() {
		e.RTT += milliseconds(m.bias)
		e.Value += milliseconds(m.bias)
	}
	return e
}

// tiedWith returns the members that count as equally fast as the first. They are
// in configured order: which one a site gets does not depend on the ranking.
func (p *pool) tiedWith(order []int, estimates []ranking.Estimate) []int {
	if p.options.within == 0 || !estimates[order[0]].Measured() {
		return nil
	}
	limit := estimates[order[0]].Value + milliseconds(p.options.within)
	var near []int
	for _, i := range order {
		if e := estimates[i]; e.Measured() && e.Value <= limit {
			near = append(near, i)
		}
	}
	slices.Sort(near)
	return near
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// becomeReady registers the node for the first time: not before it has
// measured, since DNS-B would send it resolvers.
func (d *DNSLB) becomeReady() {
	if d.ready.Swap(true) {
		return
	}
	d.logFirstServers()
	d.register()
}

func (d *DNSLB) register() { d.kept.register(d.config, d.generation.Load()) }

// generations numbers the instances, so that of two that overlap the younger
// one registers.
var generations atomic.Uint64

// reassert registers this instance's configuration again after a younger
// instance failed to start.
func (d *DNSLB) reassert() {
	d.generation.Store(generations.Add(1))
	d.kept.sharing.set(d.config, d.generation.Load())
	if d.Ready() {
		d.register()
	}
}
