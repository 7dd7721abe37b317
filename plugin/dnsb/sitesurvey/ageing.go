package sitesurvey

import (
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

const (
	// The nearest nodes measure a site again each day, and a search begins anew each
	// week: after 10 days 90 to 93 % of the sites still have the same nearest node.
	daily  = 24 * time.Hour
	hourly = time.Hour
	weekly = 7 * daily
	// checkNodes is how many nodes measure a site again each day.
	checkNodes = 2
	// idleAfter is when a site is not measured any more because no resolver of it
	// asks, and forgetAfter when it is forgotten.
	idleAfter   = 2 * daily
	forgetAfter = 4 * weekly
	// tellEvery is how often the other servers are told that resolvers of a site ask.
	tellEvery = daily / 2
	// reviewAtOnce is how many sites are reviewed in one Tick: all of them in less
	// than two minutes, some milliseconds each time.
	reviewAtOnce = 2000
)

// review does what is due for some of the sites. mu is locked.
func (s *Survey) review(now time.Time) {
	for range min(reviewAtOnce, len(s.list)) {
		if s.cursor >= len(s.list) {
			s.cursor = 0
			s.conclude()
		}
		one := s.list[s.cursor]
		s.cursor++
		if one.opinion != s.opinion && len(one.tasks) == 0 && s.judge(one) {
			one.round = 0 // perhaps other nodes are to measure it
			s.rank(one)
		}
		s.count(one)
		s.reviewSite(one, now)
		if len(s.list) == 0 {
			return
		}
	}
	for _, n := range s.nodes { // nodes that are not active measure nothing
		for _, t := range slices.Clone(n.given) {
			if t.site == nil && now.Sub(t.given) > reportWithin {
				s.finish(t, unreported(t, now), now)
			}
		}
	}
}

func (s *Survey) reviewSite(one *site, now time.Time) {
	for _, t := range slices.Clone(one.tasks) {
		if late := !t.given.IsZero() && now.Sub(t.given) > reportWithin; late || !t.node.active(now) {
			s.finish(t, unreported(t, now), now)
		}
	}
	if len(one.tasks) > 0 {
		return
	}
	if s.shared && one.seen.Load() >= one.told+uint32(tellEvery/time.Hour) {
		s.dirty[one] = true
	}
	idle := time.Duration(hours(now)-min(hours(now), one.seen.Load())) * time.Hour
	switch {
	case idle > forgetAfter:
		s.forget(one)
	case idle > idleAfter, !s.isMine(one.id):
	case one.searchDue(now):
		s.searchAnew(one, now)
	case one.published != nil && age(one.checked, now) > daily:
		s.check(one, now)
	case one.round != s.round && (one.searched >= unix(s.started) || len(one.answers) == 0 || now.Sub(s.started) > activeFor):
		s.advance(one, now) // what was stored: when all nodes have come back
	}
}

// searchDue reports whether a search is to begin anew.
func (one *site) searchDue(now time.Time) bool {
	switch {
	case len(one.answers) == 0:
		return false
	case one.published == nil && age(one.checked, now) > one.pause(), age(one.searched, now) > weekly:
		return true
	}
	return one.published != nil && one.published.Routed && one.fresh // it may be one that answers
}

// searchAnew begins a search without the answers of the last one. mu is locked.
func (s *Survey) searchAnew(one *site, now time.Time) {
	one.answers, one.discarded, one.tried, one.routed = nil, unix(now), false, false
	s.advance(one, now)
}

// pause returns how long after a search without a result the next one begins: each
// day if the site is silent, each hour if no node could measure it.
func (one *site) pause() time.Duration {
	if slices.ContainsFunc(one.answers, func(a answer) bool { return a.measured() || a.ofSilence() }) {
		return daily
	}
	return hourly
}

// check makes the nearest nodes measure a site again. mu is locked.
func (s *Survey) check(one *site, now time.Time) {
	g := s.groups[family(one.address)]
	if g == nil {
		return
	}
	one.before = answer{outcome: surveymsg.Silent}
	for _, m := range one.published.Measured[:min(checkNodes, len(one.published.Measured))] {
		if g.has(m.Node) {
			s.assign(one, s.nodes[m.Node], one.published.Routed)
		}
		if i := slices.IndexFunc(one.answers, func(a answer) bool { return a.node == m.Node }); i >= 0 && m == one.published.Measured[0] {
			one.before = one.answers[i]
		}
	}
	for _, t := range one.tasks {
		t.every = time.Duration(len(one.tasks)) * time.Second
	}
	one.checking = len(one.tasks) > 0
	if !one.checking { // these nodes are gone
		s.searchAnew(one, now)
	}
}

// endCheck ends a check, and reports whether a search is to begin: the latency of the
// nearest node has changed much, or resolvers that were silent are heard. The answers of
// the check count in it. mu is locked.
func (s *Survey) endCheck(one *site) bool {
	one.checking = false
	i := slices.IndexFunc(one.answers, func(a answer) bool { return a.node == one.published.Measured[0].Node })
	heard := one.published.Routed && one.heard()
	if i >= 0 && !heard && !survey.Moved(rttOf(one.answers[i]), rttOf(one.before)) {
		return false
	}
	one.discarded = one.checked - min(one.checked, uint32(daily/time.Second)/2)
	one.answers = slices.DeleteFunc(one.answers, func(a answer) bool { return a.at < one.discarded })
	return true
}
