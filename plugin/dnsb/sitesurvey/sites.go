package sitesurvey

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// together is how many nodes measure a site at the same time. Each waits so many
// seconds between two packets, so that in all no site gets more than one a second.
const together = 3

// site is a resolver site. Its fields belong to Survey.mu.
type site struct {
	id      resolver.Site
	index   int        // in Survey.list
	address netip.Addr // that is measured: of a resolver that asked
	other   netip.Addr // of another one; invalid: none
	fresh   bool       // the first other one, and was not measured yet
	tried   bool       // the other address was measured in this search, too
	routed  bool       // the search is for the last router on the way (routers.go)
	method  surveymsg.Method
	answers []answer // of this search, or of the last one
	tasks   []*task  // at most together
	seen    *atomic.Uint32

	searched  uint32 // seconds since 1970: when the last search ended; 0: none did
	checked   uint32 // likewise: the last measurements
	discarded uint32 // likewise: earlier answers do not count any more
	round     uint32 // of Survey.round, when it was advanced last
	opinion   uint32 // of Survey.opinion, when it was judged last
	before    answer // the best one before a check; with checking
	checking  bool   // the nearest nodes measure again, and no others
	searching bool   // a search goes on

	told uint32 // of seen, what the other servers know

	published *Site // nil: none
}

// sighted takes up the site of a resolver that asked. mu is locked.
func (s *Survey) sighted(id resolver.Site, addr netip.Addr, now time.Time) {
	if one := s.sites[id]; one != nil {
		one.seen.Store(s.hour.Load())
		if addr != one.address {
			one.fresh = one.fresh || !one.other.IsValid()
			one.other = addr
		}
		return
	}
	if !s.measurable(addr) {
		return
	}
	if len(s.sites) >= MaxSites {
		if s.full.Failed("") {
			log.Warningf("Ignored resolver site %s and others: the survey has %d sites, the most that it can have", id.Prefix(), MaxSites)
		}
		return
	}
	one := &site{id: id, address: addr, seen: new(atomic.Uint32)}
	one.seen.Store(s.hour.Load())
	s.add(one)
	if !s.isMine(id) {
		s.dirty[one] = true // the server whose it is learns of it
	}
	s.advance(one, now)
}

// add adds a site. mu is locked.
func (s *Survey) add(one *site) {
	one.index = len(s.list)
	s.sites[one.id], s.list = one, append(s.list, one)
	delete(s.removed, one.id)
}

// forget removes a site. mu is locked.
func (s *Survey) forget(one *site) {
	for _, t := range one.tasks {
		t.giveUp()
	}
	last := s.list[len(s.list)-1]
	s.list[one.index], last.index = last, one.index
	s.list = s.list[:len(s.list)-1]
	delete(s.sites, one.id)
	delete(s.dirty, one)
	s.removed[one.id] = true
	if one.published != nil {
		s.publish(one, nil)
	}
	s.full.Recovered()
}

// publish adds a site to the Table, or replaces it there. mu is locked.
func (s *Survey) publish(one *site, site *Site) {
	one.published = site
	s.table.Store(s.table.Load().with(one.id.Prefix(), site, s.names()))
}

// advance gives the next nodes a site to measure, or ends its search. It has no
// tasks. mu is locked.
func (s *Survey) advance(one *site, now time.Time) {
	g := s.groups[family(one.address)]
	if g == nil || len(g.members) == 0 {
		one.round = 0 // as soon as there are nodes
		return
	}
	if !s.isMine(one.id) {
		one.round = 0 // as soon as it is
		s.judge(one)
		s.rank(one)
		return
	}
	one.round = s.round
	for {
		s.judge(one)
		if one.routed && one.heard() {
			one.routed = false
		}
		asked := one.asked()
		next := g.nodes.Next(g.answersOf(asked))
		if silent(asked) || one.routed && routersDiffer(asked) {
			next = nil
		}
		if len(next) > 0 {
			if one.published == nil { // the best so far is better than a guess
				s.rank(one)
			}
			for _, id := range next[:min(together, len(next))] {
				s.assign(one, s.nodes[id], one.routed)
			}
			one.searching = true
			for _, t := range one.tasks {
				t.every = time.Duration(len(one.tasks)) * time.Second
			}
			return
		}
		if !slices.ContainsFunc(one.answers, answer.usable) && len(one.answers) > 0 && one.other.IsValid() && !one.tried && !one.routed {
			one.address, one.other = one.other, one.address
			one.fresh, one.tried, one.answers, one.method = false, true, nil, 0
			continue
		}
		if s.needsRouter(one, g) {
			one.routed = true
			continue
		}
		break
	}
	if len(one.answers) > 0 {
		if one.searching {
			one.searching, one.tried, one.searched = false, false, one.checked
			s.dirty[one] = true
		}
		s.rank(one)
		if one.published != nil && now.Sub(one.published.Measured[0].At) > forgetAfter {
			s.publish(one, nil) // nobody has heard of it for so long
		}
	}
}

// silent reports whether so many nodes heard nothing of a site, or of routers on the way,
// that no other node is asked.
func silent(answers []answer) bool {
	n := 0
	for _, a := range answers {
		switch a.outcome {
		case surveymsg.Measured:
			return false
		case surveymsg.Silent:
			n++
		}
	}
	return n >= together
}

// answersOf returns the answers of the nodes in a group as package survey has them. mu
// is locked.
func (g *group) answersOf(answers []answer) []survey.Answer {
	var known []survey.Answer
	for _, a := range answers {
		if g.has(a.node) {
			known = append(known, survey.Answer{Node: int(a.node), RTT: rttOf(a)})
		}
	}
	return known
}

// rank publishes the order of nodes by the answers of a site. The first node stays
// the first unless another one is clearly better. A site that is silent now keeps
// what was published, unless that has turned out to be wrong. mu is locked.
func (s *Survey) rank(one *site) {
	var usable []answer
	for _, a := range one.answers {
		if a.usable() {
			usable = append(usable, a)
		}
	}
	if len(usable) == 0 {
		if one.published != nil && slices.ContainsFunc(one.answers, func(a answer) bool {
			return (a.implausible || a.stray) && a.node == one.published.Measured[0].Node
		}) {
			s.publish(one, nil) // it was not true
		}
		return
	}
	slices.SortStableFunc(usable, func(a, b answer) int {
		return cmp.Or(cmp.Compare(a.rtt, b.rtt), strings.Compare(s.nodes[a.node].name, s.nodes[b.node].name))
	})
	routed := usable[0].routed() // as all others, see judgeRouters
	if one.published != nil && one.published.Routed == routed {
		first := one.published.Measured[0].Node
		i := slices.IndexFunc(usable, func(a answer) bool { return a.node == first })
		if i > 0 && !survey.Better(float64(usable[0].rtt), float64(usable[i].rtt)) {
			stays := usable[i]
			copy(usable[1:], usable[:i])
			usable[0] = stays
		}
	}
	site := &Site{Measured: make([]Measurement, len(usable)), Routed: routed, seen: one.seen}
	for i, a := range usable {
		site.Measured[i] = Measurement{a.node, time.Duration(float64(a.rtt) * float64(time.Millisecond)).Round(time.Microsecond), time.Unix(int64(a.at), 0)}
	}
	if one.published == nil || one.published.Routed != routed || !slices.Equal(one.published.Measured, site.Measured) {
		s.publish(one, site)
	}
}

// record takes an answer in place of an earlier one of the same node.
func (one *site) record(a answer) {
	one.checked = a.at
	if i := slices.IndexFunc(one.answers, func(other answer) bool { return other.node == a.node }); i >= 0 {
		one.answers[i] = a
		return
	}
	one.answers = append(one.answers, a)
}
