package dnslb

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// pool is a set of servers in one address family, with one ranking for each
// point of view, for all services that have exactly these servers and the same
// options.
type pool struct {
	members  []*member // in configured order
	options  *options  // those of its services, which other pools may share
	services []string  // names

	state            rankState // by the observations of this node
	answer           atomic.Pointer[answer]
	principalStates  *[]*rankState                 // by the observations of principals, by slot; nil: there are none
	principalAnswers atomic.Pointer[[]*answer]     // by slot; nil: answer
	served           map[netip.Addr]*atomic.Uint64 // answers by their first address; nil: not counted
	past             *past                         // nil: nothing has happened yet, or it is not recorded
	sites            atomic.Pointer[siteRanking]   // nil: the pool is not ranked for sites
	formerSites      *siteRanking                  // of the predecessor, until sites are ranked; nil: none
	lastPass         uint32                        // of the ranking goroutine over this pool
	recorded         bool                          // it has a past
}

func newPool(options *options, members []*member, ttl uint32) *pool {
	p := &pool{members: members, options: options}
	p.state = newRankState(p, "")
	p.answer.Store(p.newAnswer(p.state.order(), nil, func(int) uint32 { return ttl }, false))
	return p
}

// predecessor returns the pool that the services of p have in another snapshot:
// one with the same servers, or else that of the first service which has one, or
// nil.
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

// configuredOrder returns the members by tier and as configured, drained ones
// last.
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

// allInOrder returns all members: those of an order, then the others as configured.
func (p *pool) allInOrder(order []int) []int {
	all := slices.Clone(order)
	for i := range p.members {
		if !slices.Contains(order, i) {
			all = append(all, i)
		}
	}
	return all
}

// qtype is the type of record that the pool answers.
func (p *pool) qtype() uint16 { return dnsmsg.AddressType(p.members[0].addr) }
