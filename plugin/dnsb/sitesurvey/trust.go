package sitesurvey

import (
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
)

// A node is distrusted if others contradict at least leastContradicted of its latencies,
// and more than one in mostContradicted of those that they could check. Of honest nodes
// that is one in 20 at most, of liars mostly one in four.
const (
	leastContradicted = 2
	mostContradicted  = 8
)

// tally is what others can say of the latencies that a node measured.
type tally struct{ checked, contradicted int }

// judge finds the answers of a site that do not count, and reports whether these are
// others than before. mu is locked.
func (s *Survey) judge(one *site) (changed bool) {
	one.opinion = s.opinion
	var known []survey.Answer
	silent := 0
	for i := range one.answers {
		switch a := &one.answers[i]; {
		case a.measured():
			known = append(known, survey.Answer{Node: int(a.node), RTT: float64(a.rtt)})
		case a.ofSilence():
			silent++
		}
	}
	wrong := s.latencies.Implausible(known)
	g := s.groups[family(one.address)]
	others := g != nil && len(g.members) > 2 // with two nodes no answer can ever be checked
	for i := range one.answers {
		a := &one.answers[i]
		if !a.measured() {
			continue
		}
		n := s.nodes[a.node]
		a.contradicted = slices.Contains(wrong, int(a.node))
		// What only one node hears, the others cannot check.
		alone := len(known) == 1 && silent > 0 && !n.checked && others
		implausible := a.contradicted || n.distrusted || alone
		changed = changed || implausible != a.implausible
		a.implausible = implausible
		if a.contradicted && s.liars.Failed(n.name, "") {
			log.Warningf("Ignored implausible latency from node %q: %.1f ms to %s contradicts what other nodes measured, of the site and of each other", n.name, a.rtt, one.id.Prefix())
		}
	}
	return s.judgeRouters(one) || changed
}

// count adds the answers of a site to the tallies. mu is locked.
func (s *Survey) count(one *site) {
	measured := 0
	for _, a := range one.answers {
		if a.measured() {
			measured++
		}
	}
	if measured < 3 {
		return // nobody could tell who is right
	}
	for _, a := range one.answers {
		if a.measured() {
			t := s.tallies[a.node]
			t.checked++
			if a.contradicted {
				t.contradicted++
			}
			s.tallies[a.node] = t
		}
	}
}

// recall judges all that was stored, once it has shown which nodes are trusted. mu is
// locked.
func (s *Survey) recall() {
	for _, one := range s.list {
		s.judge(one)
		s.count(one)
	}
	s.conclude()
	for _, one := range s.list {
		if len(one.tasks) == 0 {
			s.judge(one)
			s.rank(one)
		}
	}
}

// conclude decides by the tallies, of all sites, which nodes are trusted. mu is locked.
func (s *Survey) conclude() {
	for _, n := range s.nodes {
		t := s.tallies[n.id]
		distrusted := t.contradicted >= leastContradicted && mostContradicted*t.contradicted > t.checked
		checked := t.checked > t.contradicted && !distrusted
		if distrusted != n.distrusted || checked != n.checked {
			s.opinion++
		}
		if distrusted && !n.distrusted {
			log.Warningf("Ignored all latencies from node %q: %d of %d contradict what other nodes measured", n.name, t.contradicted, t.checked)
		}
		if !distrusted && n.distrusted {
			log.Infof("Recovered: latencies from node %q agree with what other nodes measured", n.name)
		}
		n.distrusted, n.checked = distrusted, checked
	}
	clear(s.tallies)
}
