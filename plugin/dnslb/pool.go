package dnslb

import (
	"math"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// pool is a set of servers in one address family, with one ranking, for all
// services that have exactly this set and the same options.
type pool struct {
	members          []*member // in configured order
	options          options
	services         []string  // names
	state            rankState // as measured from here
	answer           atomic.Pointer[answer]
	principalStates  []*rankState              // for the resolvers of principals, by slot
	principalAnswers atomic.Pointer[[]*answer] // by slot; nil: answer
	lastPass         uint64                    // of the ranking goroutine that saw it last
}

// rankState is how the members of a pool are ranked from one point of view. The
// goroutine that ranks changes it, under the lock of the block state.
type rankState struct {
	ranker     *ranking.Ranker
	order      []int        // of members, best first, as ranked last
	tied       []int        // of these, those that count as equally fast as the first
	lastSwitch *switchEvent // nil: the first member has not changed

	removedFirst     *memberState // the first member before, which is no member any more; nil: it still is
	overridesChanged bool         // members are under other overrides than at the last ranking
	allDown          bool         // no member was eligible
}

// apply makes a decision the rank state. event is the switch that it is, or nil.
func (s *rankState) apply(d decision, event *switchEvent) {
	s.order, s.tied, s.allDown, s.overridesChanged = d.order, d.tied, d.allDown, false
	if event == nil {
		return
	}
	s.removedFirst = nil
	if d.cause != ranking.First {
		s.lastSwitch = event
	}
}

func newPool(svc serviceConfig, members []*member, ttl uint32) *pool {
	p := &pool{members: members, options: svc.options, services: []string{svc.name}}
	p.state = newRankState(p, "")
	p.answer.Store(p.newAnswer(p.state.order, nil, func(int) uint32 { return ttl }, false))
	return p
}

// newRankState returns that of members which nothing is known of. The rule is one
// that ranking knows.
func newRankState(p *pool, rule string) rankState {
	r, err := ranking.NewRanker(rule, len(p.members))
	if err != nil {
		panic(err)
	}
	return rankState{ranker: r, order: p.configuredOrder()}
}

// predecessor returns the pool that the services of p had predecessor another snapshot: one with the
// same servers, or else that of the first which was there, nil if none was.
func (p *pool) predecessor(t *snapshot) (found *pool) {
	for _, name := range p.services {
		old := t.names[name].service.pool(p.qtype())
		if old == nil {
			continue
		}
		if slices.EqualFunc(p.members, old.members, func(a, b *member) bool { return a.addr == b.addr }) {
			return old
		}
		if found == nil {
			found = old
		}
	}
	return found
}

// adopt takes over the standing that a pool had before, as far as the members
// are the same.
func (s *rankState) adopt(p, old *pool, from *rankState) {
	index := make(map[netip.Addr]int, len(old.members))
	for i, m := range old.members {
		index[m.addr] = i
	}
	was := make([]int, len(p.members))
	for i, m := range p.members {
		j, ok := index[m.addr]
		if !ok {
			j = -1
		}
		was[i] = j
	}
	s.overridesChanged = from.overridesChanged || slices.ContainsFunc(p.members, func(m *member) bool {
		j, ok := index[m.addr]
		return ok && old.members[j].override != m.override
	})
	s.ranker.Adopt(from.ranker, was)
	s.lastSwitch, s.allDown, s.removedFirst = from.lastSwitch, from.allDown, from.removedFirst
	if first := from.order[0]; s.removedFirst == nil && !slices.Contains(was, first) {
		s.removedFirst = &memberState{server: old.members[first].label, addr: old.members[first].addr, removed: true}
	}
	place := func(i int) int {
		if j := slices.Index(from.order, was[i]); was[i] >= 0 && j >= 0 {
			return j
		}
		return len(from.order)
	}
	slices.SortStableFunc(s.order, func(a, b int) int { return place(a) - place(b) })
	if !s.allDown {
		return
	}
	// Nothing is ranked before a server is up: what was answered stays.
	if n := slices.IndexFunc(s.order, func(i int) bool { return place(i) == len(from.order) }); n > 0 {
		s.order = s.order[:n]
	}
	for i, j := range was {
		if j >= 0 && slices.Contains(from.tied, j) {
			s.tied = append(s.tied, i)
		}
	}
}

// configuredOrder returns the members by tier and as configured, those that are
// drained last.
func (p *pool) configuredOrder() []int {
	order := make([]int, len(p.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := p.members[a], p.members[b]
		switch {
		case x.drain != y.drain && y.drain:
			return -1
		case x.drain != y.drain:
			return 1
		}
		return x.tier - y.tier
	})
	return order
}

// qtype is the type of record that the pool answers.
func (p *pool) qtype() uint16 {
	return dnsmsg.AddressType(p.members[0].addr)
}

// answer is what a pool answers now. It is immutable.
type answer struct {
	addrs   []netip.Addr // best first
	tied    []tiedMember // of them, those that count as equally fast; nil: the order decides
	count   int          // how many addresses to answer
	ttl     uint32       // seconds; of near ones, each has its own
	allDown bool         // no server is up: all this is of the last ranking
}

type tiedMember struct {
	addr   netip.Addr
	hash   uint64
	weight float64
	rank   int    // from 1
	ttl    uint32 // seconds
}

func (a *answer) equal(b *answer) bool {
	return a.ttl == b.ttl && a.allDown == b.allDown && slices.Equal(a.addrs, b.addrs) && slices.Equal(a.tied, b.tied)
}

// sameServers reports whether answers differ in nothing but TTLs.
func (a *answer) sameServers(b *answer) bool {
	return slices.Equal(a.addrs, b.addrs) && slices.EqualFunc(a.tied, b.tied, func(x, y tiedMember) bool { return x.addr == y.addr })
}

// newAnswer returns the answer of a ranking, of which the near members count
// as equally fast. ttl is that of an answer which a member leads.
func (p *pool) newAnswer(order, near []int, ttl func(member int) uint32, allDown bool) *answer {
	a := &answer{count: p.options.answers, ttl: ttl(order[0]), allDown: allDown}
	choose := len(near) > 1
	if !choose {
		order = order[:min(a.count, len(order))]
	}
	a.addrs = make([]netip.Addr, len(order))
	for i, m := range order {
		a.addrs[i] = p.members[m].addr
	}
	if choose {
		for _, i := range near {
			m := p.members[i]
			a.tied = append(a.tied, tiedMember{m.addr, m.hash, float64(m.weight), 1 + slices.Index(order, i), ttl(i)})
		}
	}
	return a
}

// pick returns the addresses for a resolver, which rank the first of them has,
// from 1, and their TTL. Among equally fast servers it chooses by weighted
// rendezvous hashing (the highest of -w/ln u) of the resolver's site: a site keeps
// its server, and one that comes or goes moves no sites between the others.
func (a *answer) pick(site func() uint64) (picked []netip.Addr, rank int, ttl uint32) {
	if a.tied == nil {
		return a.addrs, 1, a.ttl
	}
	seed := site()
	best, most := 0, math.Inf(-1)
	for i, c := range a.tied {
		if score := resolver.WeightedScore(seed, c.hash, c.weight); score > most {
			best, most = i, score
		}
	}
	chosen := a.tied[best]
	picked = make([]netip.Addr, 1, a.count)
	picked[0] = chosen.addr
	for _, addr := range a.addrs {
		if len(picked) == a.count {
			break
		}
		if addr != chosen.addr {
			picked = append(picked, addr)
		}
	}
	return picked, chosen.rank, chosen.ttl
}
