package dnslb

import (
	"math"
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// answer is the current answer of a pool. It is immutable.
type answer struct {
	addrs   []netip.Addr // best first
	tied    []tiedMember // one of them is first, by the resolver site; nil: the order decides
	count   int          // addresses in an answer
	ttl     uint32       // seconds; each tied member has its own
	allDown bool         // no server is up: this is the last ranking
}

// tiedMember is a member that is tied with the first one.
type tiedMember struct {
	addr   netip.Addr
	hash   uint64
	weight float64
	rank   int    // from 1
	ttl    uint32 // seconds
}

func (a *answer) equal(b *answer) bool {
	return a == b || a.ttl == b.ttl && a.allDown == b.allDown && slices.Equal(a.addrs, b.addrs) && slices.Equal(a.tied, b.tied)
}

// sameServers reports whether two answers differ in TTLs alone.
func (a *answer) sameServers(b *answer) bool {
	return slices.Equal(a.addrs, b.addrs) && slices.EqualFunc(a.tied, b.tied, func(x, y tiedMember) bool { return x.addr == y.addr })
}

// newAnswer returns the answer of a ranking. ttl returns the TTL of an answer in
// which a member is first.
func (p *pool) newAnswer(order, tied []int, ttl func(member int) uint32, allDown bool) *answer {
	choose := len(tied) > 1
	if !choose && p.options.answers == 1 {
		return p.members[order[0]].answerAlone(ttl(order[0]), allDown)
	}
	a := &answer{count: p.options.answers, ttl: ttl(order[0]), allDown: allDown}
	if !choose {
		order = order[:min(a.count, len(order))]
	}
	a.addrs = make([]netip.Addr, len(order))
	for i, m := range order {
		a.addrs[i] = p.members[m].addr
	}
	if choose {
		for _, i := range tied {
			m := p.members[i]
			a.tied = append(a.tied, tiedMember{m.addr, m.hash, float64(m.weight), 1 + slices.Index(order, i), ttl(i)})
		}
	}
	return a
}

// answerAlone returns the answer with the address of a member alone. It has few of them,
// and most pools have one of these. Whoever builds a snapshot, and then who ranks it, may
// call it.
func (m *member) answerAlone(ttl uint32, allDown bool) *answer {
	for _, a := range m.alone {
		if a.ttl == ttl && a.allDown == allDown {
			return a
		}
	}
	a := &answer{addrs: []netip.Addr{m.addr}, count: 1, ttl: ttl, allDown: allDown}
	m.alone = append(m.alone, a)
	return a
}

// pick returns the addresses for a resolver, the rank of the first one, from 1,
// and their TTL. Among tied members it picks by weighted rendezvous hashing: a
// resolver site keeps its server, and one that comes or goes moves no sites between
// the others. site returns the hash of the resolver site.
func (a *answer) pick(site func() uint64) (picked []netip.Addr, rank int, ttl uint32) {
	if a.tied == nil {
		return a.addrs, 1, a.ttl
	}
	seed := site()
	first, highest := 0, math.Inf(-1)
	for i, c := range a.tied {
		if score := resolver.WeightedScore(seed, c.hash, c.weight); score > highest {
			first, highest = i, score
		}
	}
	chosen := a.tied[first]
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
