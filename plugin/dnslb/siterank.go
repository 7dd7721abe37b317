package dnslb

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

const (
	// maxSiteMembers is how many members of a group have a rank for a site. Those
	// after them are ranked as for the resolvers of the node.
	maxSiteMembers = 8
	// maxSiteOrders is how many different orders of members the sites of all pools
	// have. Beyond that only the first member of each group is ranked.
	maxSiteOrders = 200_000
)

// siteRanking is how a pool with servers beside nodes is ranked for the sites of the
// map. It is immutable but for byKey, which belongs to the ranking goroutine.
//
// The sites are many and the orders of members few. So a change of the health of a
// server changes the answers of orders, and a change of a latency the order of sites.
type siteRanking struct {
	table   *nodemap.Table
	servers siteServers
	orderOf []uint32 // by site: index of orders
	orders  []siteOrder
	answers []*answer // by order; nil: the point of view decides, as no member in it is eligible
	byKey   map[string]uint32
	bases   map[int]*siteBasis // by slot
	foreign bool               // it is that of a pool with other members or settings
}

// siteServers are the members of a pool as package survey has them, by slot: of the
// node that is nearest to a site. With client subnets, where all nodes have all views,
// they are the same for all slots, and that of Own.
type siteServers map[int][]survey.Server

func (s siteServers) of(slot int) []survey.Server {
	if servers, ok := s[slot]; ok {
		return servers
	}
	return s[peerview.Own]
}

// siteOrder is an order of members, for the sites of one slot.
type siteOrder struct {
	slot    int
	members []uint16 // group by group, the lowest latency first, maxSiteMembers of each; none: no latency is known
	tied    []uint8  // by place: which members of its group are tied with it; nil: none are
}

// siteBasis is what answers are made of beside the order.
type siteBasis struct {
	eligible []bool
	failing  []bool
}

func (b *siteBasis) equal(other *siteBasis) bool {
	return other != nil && slices.Equal(b.eligible, other.eligible) && slices.Equal(b.failing, other.failing)
}

// rankedBySite reports whether a member stands beside a node, so that the latencies of
// sites to that node are those to the member.
func (p *pool) rankedBySite() bool {
	return slices.ContainsFunc(p.members, func(m *member) bool { return m.beside != "" })
}

// siteAnswer returns the answer of a pool for a site of the map that the views go by,
// nil if the point of view decides. address returns one in the site.
func (p *pool) siteAnswer(views *peerview.Set, site int, address func() netip.Addr) *answer {
	r, site := p.siteAt(views, site, address)
	if site == nodemap.NoSite {
		return nil
	}
	return r.answers[r.orderOf[site]]
}

// siteAt returns the ranking for sites and the number that a site has in it, or
// nodemap.NoSite. When there is another map, it takes a moment until that is ranked;
// the sites of the previous one count so long.
func (p *pool) siteAt(views *peerview.Set, site int, address func() netip.Addr) (*siteRanking, int) {
	if p == nil {
		return nil, nodemap.NoSite
	}
	r := p.sites.Load()
	if r == nil {
		return nil, nodemap.NoSite
	}
	if slots := views.Slots(); slots.Map != r.table {
		site = nodemap.NoSite
		if slots.Map != nil {
			_, site, _ = r.table.LookupSite(address())
		}
	}
	return r, site
}

// siteGroups returns the members that can be chosen at the same time, those that are
// chosen first first.
func (p *pool) siteGroups() (groups [][]int) {
	for _, i := range p.configuredOrder() {
		if n := len(groups) - 1; n >= 0 && p.sameGroup(groups[n][0], i) {
			groups[n] = append(groups[n], i)
		} else {
			groups = append(groups, []int{i})
		}
	}
	return groups
}

func (p *pool) sameGroup(i, j int) bool {
	a, b := p.members[i], p.members[j]
	return a.drain == b.drain && a.tier == b.tier
}

// siteOrderer finds the order of the members of a pool for one site after the other.
type siteOrderer struct {
	pool   *pool
	groups [][]int
	next   *siteRanking
	spare  int // how many more orders there may be

	// Scratch space:
	answers []survey.Answer
	values  []float64 // by member: latency with bias, NaN: not known
	order   siteOrder
	key     []byte
}

func newSiteOrderer(p *pool, next *siteRanking, spare int) *siteOrderer {
	return &siteOrderer{pool: p, groups: p.siteGroups(), next: next, spare: spare, values: make([]float64, len(p.members))}
}

// find returns the order of a site. previous is the order that it had, if the same
// nodes have measured it before, else nil.
func (o *siteOrderer) find(site, slot int, previous *siteOrder) uint32 {
	_, latencies := o.next.table.Site(site)
	o.answers = siteAnswers(o.answers[:0], latencies)
	known := false
	for i, s := range o.next.servers.of(slot) {
		o.values[i] = s.Estimate(o.answers).RTT + milliseconds(o.pool.members[i].bias)
		known = known || !math.IsNaN(o.values[i])
	}
	o.order = siteOrder{slot, o.order.members[:0], o.order.tied[:0]}
	if known {
		for _, group := range o.groups {
			o.sort(group, previous)
		}
	}
	return o.intern()
}

// siteAnswers returns the latencies of a site as package survey has them.
func siteAnswers(answers []survey.Answer, latencies []nodemap.Latency) []survey.Answer {
	for _, l := range latencies {
		answers = append(answers, survey.Answer{Node: int(l.Node), RTT: float64(l.RTT)})
	}
	return answers
}

// sort appends the members of a group. Each passes those before it whose latency is
// higher: if there is a previous order, much higher, so that what changes a little
// changes nothing.
func (o *siteOrderer) sort(group []int, previous *siteOrder) {
	begin := len(o.order.members)
	insert := func(i int) {
		at := len(o.order.members)
		for m := begin; m < at; m++ {
			if o.passes(i, int(o.order.members[m]), previous != nil) {
				at = m
				break
			}
		}
		o.order.members = slices.Insert(o.order.members, at, uint16(i)) // #nosec G115 -- an index of members, see siteRanker
	}
	ranked := func(i int) bool { return previous != nil && slices.Contains(previous.members, uint16(i)) } // #nosec G115 -- likewise
	if previous != nil {
		for _, i := range previous.members {
			if slices.Contains(group, int(i)) {
				insert(int(i))
			}
		}
	}
	for _, i := range group {
		if !ranked(i) {
			insert(i)
		}
	}
	o.order.members = o.order.members[:min(len(o.order.members), begin+maxSiteMembers)]
	if o.pool.options.within == 0 {
		return
	}
	within := milliseconds(o.pool.options.within)
	places := o.order.members[begin:]
	for _, i := range places {
		mask := uint8(0)
		for at, j := range places {
			if o.values[j] <= o.values[i]+within {
				mask |= 1 << at
			}
		}
		o.order.tied = append(o.order.tied, mask)
	}
}

// passes reports whether member i goes before member j.
func (o *siteOrderer) passes(i, j int, clearly bool) bool {
	a, b := o.values[i], o.values[j]
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return !math.IsNaN(a)
	case clearly:
		return survey.Better(a, b)
	}
	return a < b
}

// intern returns the index of the order.
func (o *siteOrderer) intern() uint32 {
	if index, ok := o.next.byKey[string(o.makeKey())]; ok {
		return index
	}
	if o.spare <= 0 {
		members := o.order.members[:0]
		for n, i := range o.order.members {
			if n == 0 || !o.pool.sameGroup(int(members[len(members)-1]), int(i)) {
				members = append(members, i)
			}
		}
		o.order.members, o.order.tied = members, o.order.tied[:0]
		if index, ok := o.next.byKey[string(o.makeKey())]; ok {
			return index
		}
	}
	return o.add(siteOrder{o.order.slot, slices.Clone(o.order.members), slices.Clone(o.order.tied)}, string(o.key))
}

// makeKey makes the key of the order, which no other order has.
func (o *siteOrderer) makeKey() []byte {
	o.key = binary.LittleEndian.AppendUint16(o.key[:0], uint16(o.order.slot)) // #nosec G115 -- at most peerview.maxPrincipals
	for _, i := range o.order.members {
		o.key = binary.LittleEndian.AppendUint16(o.key, i)
	}
	o.key = append(o.key, o.order.tied...)
	return o.key
}

func (o *siteOrderer) add(order siteOrder, key string) uint32 {
	index := uint32(len(o.next.orders)) // #nosec G115 -- at most as many as there are sites
	o.next.orders, o.next.answers = append(o.next.orders, order), append(o.next.answers, nil)
	o.next.byKey[key] = index
	o.spare--
	return index
}

// keep returns the index of an order that sites had before.
func (o *siteOrderer) keep(order *siteOrder) uint32 {
	o.order.slot, o.order.members, o.order.tied = order.slot, append(o.order.members[:0], order.members...), append(o.order.tied[:0], order.tied...)
	return o.intern()
}

// answer returns the answer for the sites of an order, nil if it has no member that
// is eligible.
func (o *siteOrder) answer(p *pool, b *siteBasis, ttlLow, ttlHigh uint32) *answer {
	first := slices.IndexFunc(o.members, func(i uint16) bool { return b.eligible[i] })
	if first < 0 {
		return nil
	}
	order := make([]int, 0, len(p.members))
	for _, i := range o.members {
		if b.eligible[i] {
			order = append(order, int(i))
		}
	}
	for _, i := range p.state.order() {
		if b.eligible[i] && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	ttl := func(member int) uint32 {
		if b.failing[member] {
			return ttlLow
		}
		return ttlHigh
	}
	return p.newAnswer(order, o.tiedWith(p, first, b.eligible), ttl, false)
}

// tiedWith returns the eligible members that are tied with the one at a place, in
// configured order.
func (o *siteOrder) tiedWith(p *pool, place int, eligible []bool) (tied []int) {
	if len(o.tied) == 0 {
		return nil
	}
	begin := slices.IndexFunc(o.members, func(i uint16) bool { return p.sameGroup(int(i), int(o.members[place])) })
	for at := range maxSiteMembers {
		if o.tied[place]&(1<<at) == 0 {
			continue
		}
		if i := int(o.members[begin+at]); eligible[i] {
			tied = append(tied, i)
		}
	}
	slices.Sort(tied)
	return tied
}
