package sitesurvey

import (
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// The resolvers of a silent site are behind a router that perhaps answers. Latencies to
// it compare only if it is the same one for all nodes: what is behind it adds the same to
// each. Routers answer by the address of an interface, and a node that is near a network
// may enter it by another router than others, or not get beyond its own provider. So the
// latencies count only of the network, a /24 or /48, where most nodes end.

// leastAgreeing is how many nodes must end at the same network.
const leastAgreeing = 2

// needsRouter reports whether nodes are to search for a router, after a site turned out
// to be silent of which nothing better is known. mu is locked.
func (s *Survey) needsRouter(one *site, g *group) bool {
	if one.routed || !slices.ContainsFunc(one.answers, answer.ofSilence) || slices.ContainsFunc(one.answers, answer.usable) || len(g.members) < leastAgreeing {
		return false
	}
	s.rank(one) // what was published may have turned out to be wrong
	return one.published == nil || one.published.Routed
}

// asked returns the answers of the nodes that are not to be asked again in this search.
// In one for routers these are the ones that did so, or claim to hear the site.
func (one *site) asked() []answer {
	if !one.routed {
		return one.answers
	}
	return slices.DeleteFunc(slices.Clone(one.answers), func(a answer) bool { return !a.routed() && a.outcome != surveymsg.Measured })
}

// heard reports whether a node hears the resolvers themselves.
func (one *site) heard() bool {
	return slices.ContainsFunc(one.answers, func(a answer) bool { return a.usable() && !a.routed() })
}

// routersDiffer reports whether so many nodes searched for routers, and have no network
// in common, that no other node is asked.
func routersDiffer(answers []answer) bool {
	n := 0
	for _, a := range answers {
		if a.routed() && a.outcome != surveymsg.Declined {
			n++
		}
	}
	return n >= together && !slices.ContainsFunc(answers, answer.usable)
}

// judgeRouters finds the latencies to routers that count, and reports whether these are
// others than before. If a node hears the resolvers themselves, none do. Contradictions
// are not counted: an honest node may have met another router of the network. mu is locked.
func (s *Survey) judgeRouters(one *site) (changed bool) {
	if !one.routed {
		return false
	}
	network, ok := s.commonNetwork(one.answers)
	ok = ok && !one.heard()
	var known []survey.Answer
	for _, a := range one.answers {
		if ok && a.routed() && a.router == network {
			known = append(known, survey.Answer{Node: int(a.node), RTT: float64(a.rtt)})
		}
	}
	wrong := s.latencies.Implausible(known)
	known = slices.DeleteFunc(known, func(a survey.Answer) bool { return slices.Contains(wrong, a.Node) || s.nodes[a.Node].distrusted })
	// A network whose routers are in several places says nothing of the resolvers.
	ok = ok && len(known) >= leastAgreeing && s.latencies.OnePlace(known)
	for i := range one.answers {
		a := &one.answers[i]
		if !a.hasRouter() {
			continue
		}
		implausible := slices.Contains(wrong, int(a.node)) || s.nodes[a.node].distrusted
		stray := !ok || a.router != network
		changed = changed || implausible != a.implausible || stray != a.stray
		a.implausible, a.stray = implausible, stray
	}
	return changed
}

// commonNetwork returns the network where more than half of the nodes end that found a
// router. mu is locked.
func (s *Survey) commonNetwork(answers []answer) (network resolver.Site, ok bool) {
	count, all := make(map[resolver.Site]int), 0
	for _, a := range answers {
		if !a.hasRouter() || s.nodes[a.node].distrusted {
			continue
		}
		all++
		if count[a.router]++; count[a.router] > count[network] {
			network = a.router
		}
	}
	return network, count[network] >= leastAgreeing && 2*count[network] > all
}
