package dnslb

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

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

// newRankState returns the rank state of members that are not measured yet. The
// rule must be one that the package ranking knows.
func newRankState(p *pool, rule string) rankState {
	r, err := ranking.NewRanker(rule, len(p.members))
	if err != nil {
		panic(err)
	}
	return rankState{ranker: r, order: p.configuredOrder()}
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
	s.ranker.Adopt(from.ranker, previous)
	s.lastSwitch, s.allDown, s.removedFirst = from.lastSwitch, from.allDown, from.removedFirst
	if first := from.order[0]; s.removedFirst == nil && !slices.Contains(previous, first) {
		m := predecessor.members[first]
		s.removedFirst = &memberState{server: m.label, addr: m.addr, removed: true}
	}
	rank := func(i int) int {
		if j := slices.Index(from.order, previous[i]); previous[i] != noMember && j >= 0 {
			return j
		}
		return len(from.order)
	}
	slices.SortStableFunc(s.order, func(a, b int) int { return rank(a) - rank(b) })
	if !s.allDown {
		return
	}
	// Nothing is ranked before a server is up: the last answer stays.
	if n := slices.IndexFunc(s.order, func(i int) bool { return rank(i) == len(from.order) }); n > 0 {
		s.order = s.order[:n]
	}
	for i, j := range previous {
		if j != noMember && slices.Contains(from.tied, j) {
			s.tied = append(s.tied, i)
		}
	}
}
