package dnslb

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// rankState is how the members of a pool are ranked from one point of view. The
// goroutine that ranks changes it, under the lock of the block state.
type rankState struct {
	ranker     ranking.Ranker
	places     []uint16     // indexes of members: order and then tied; two bytes each, since there are many
	lastSwitch *switchEvent // nil: the first member has not changed

	removedFirst     *memberState // the first member before, which is no member any more; nil: it still is
	ranked           uint16       // how many places are the order
	overridesChanged bool         // members are under other overrides than at the last ranking
	allDown          bool         // no member was eligible
}

// first returns the first member as ranked last.
func (s *rankState) first() int { return int(s.places[0]) }

// order returns the members as ranked last, best first.
func (s *rankState) order() []int { return unpacked(s.places[:s.ranked]) }

// tied returns those of the order that count as equally fast as the first.
func (s *rankState) tied() []int { return unpacked(s.places[s.ranked:]) }

func unpacked(places []uint16) []int {
	if len(places) == 0 {
		return nil
	}
	members := make([]int, len(places))
	for n, i := range places {
		members[n] = int(i)
	}
	return members
}

// setOrder makes members the order, and those that are tied.
func (s *rankState) setOrder(order, tied []int) {
	if n := len(order) + len(tied); cap(s.places) < n {
		s.places = make([]uint16, 0, n)
	}
	s.places, s.ranked = s.places[:0], uint16(len(order)) // #nosec G115 -- at most ranking.MaxServers
	for _, members := range [][]int{order, tied} {
		for _, i := range members {
			s.places = append(s.places, uint16(i)) // #nosec G115 -- less than ranking.MaxServers
		}
	}
}

// apply makes a decision the rank state. event is the switch that it is, or nil.
func (s *rankState) apply(d decision, event *switchEvent) {
	s.setOrder(d.order, d.tied)
	s.allDown, s.overridesChanged = d.allDown, false
	if event == nil {
		return
	}
	s.removedFirst = nil
	if d.cause != ranking.First {
		s.lastSwitch = event
	}
}

// newRankState returns the rank state of members that are not measured yet. The
// rule must be one that the package ranking knows.
func newRankState(p *pool, rule string) rankState {
	r, err := ranking.NewRanker(rule, len(p.members))
	if err != nil {
		panic(err)
	}
	s := rankState{ranker: r}
	s.setOrder(p.configuredOrder(), nil)
	return s
}

// adopt takes over the rank state that the predecessor of a pool had, for members
// that are in both.
func (s *rankState) adopt(p, predecessor *pool, from *rankState) {
	index := make(map[netip.Addr]int, len(predecessor.members))
	for i, m := range predecessor.members {
		index[m.addr] = i
	}
	previous := make([]int, len(p.members)) // index in the predecessor, or noMember
	for i, m := range p.members {
		j, ok := index[m.addr]
		if !ok {
			j = noMember
		}
		previous[i] = j
	}
	s.overridesChanged = from.overridesChanged || slices.ContainsFunc(p.members, func(m *member) bool {
		j, ok := index[m.addr]
		return ok && predecessor.members[j].override != m.override
	})
	s.ranker.Adopt(&from.ranker, previous)
	s.lastSwitch, s.allDown, s.removedFirst = from.lastSwitch, from.allDown, from.removedFirst
	if first := from.first(); s.removedFirst == nil && !slices.Contains(previous, first) {
		m := predecessor.members[first]
		s.removedFirst = &memberState{server: m.label, addr: m.addr, removed: true}
	}
	order, tied, fromOrder, fromTied := s.order(), s.tied(), from.order(), from.tied()
	rank := func(i int) int {
		if j := slices.Index(fromOrder, previous[i]); previous[i] != noMember && j >= 0 {
			return j
		}
		return len(fromOrder)
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(a) - rank(b) })
	defer func() { s.setOrder(order, tied) }()
	if !s.allDown {
		return
	}
	// Nothing is ranked before a server is up: the last answer stays.
	if n := slices.IndexFunc(order, func(i int) bool { return rank(i) == len(fromOrder) }); n > 0 {
		order = order[:n]
	}
	for i, j := range previous {
		if j != noMember && slices.Contains(fromTied, j) {
			tied = append(tied, i)
		}
	}
}
