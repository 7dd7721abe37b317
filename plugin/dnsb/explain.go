package dnsb

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// Explanation says why a resolver is referred to certain nodes, at one moment, as a
// Go value and as JSON.
type Explanation struct {
	At         time.Time    `json:"at"`
	Zone       string       `json:"zone"`
	Cut        string       `json:"cut"`
	Address    netip.Addr   `json:"address"`          // as in the question
	LookedUp   netip.Addr   `json:"looked_up"`        // the same, or the IPv4 address in it
	Layer      string       `json:"layer"`            // "last": no node of the cut answers
	Prefix     netip.Prefix `json:"prefix,omitzero"`  // that matched; absent if the layer has none
	Source     string       `json:"source,omitempty"` // the line, registration or database that says so
	Candidates []Candidate  `json:"candidates"`       // in the order of the search, the first 100
	Referral   []Referred   `json:"referral"`         // best first; a message that is too small has only the first
	TTL        uint32       `json:"ns_ttl"`           // TTL of the NS records, in seconds
	Reason     string       `json:"reason"`           // in one sentence
	Overlaps   []string     `json:"overlaps"`         // all nodes that the same prefix names, if there are several

	// Survey is what nodes measured of the resolver site, if the survey knows it.
	Survey *sitesurvey.SiteStatus `json:"survey,omitempty"`

	// Without are the nodes of the cut without client subnets that are not dead, the
	// first 100, if others have them.
	Without []string `json:"without_client_subnets,omitempty"`
}

// Candidate is a node that the search considered.
type Candidate struct {
	Node   string       `json:"node"`
	State  string       `json:"state"`         // live, stale, drained, dead, denied, absent, or "other" for one that does not serve the cut
	Why    string       `json:"why,omitempty"` // the reason, of its probe or of an override
	Layer  string       `json:"layer"`
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Of     string       `json:"deputy_of,omitempty"` // its principal, which is not live
	Chosen bool         `json:"chosen"`
}

// Referred is a node in the referral.
type Referred struct {
	Node      string       `json:"node"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

const (
	// maxCandidates bounds those of an explanation, besides the chosen one: a cut
	// may have ten thousand nodes.
	maxCandidates = 100
	// maxNamedCuts bounds the cuts that an error names.
	maxNamedCuts = 20
)

// States of a candidate that a node itself does not have.
const (
	stateDenied = "denied" // the node, or the operator, denied a prefix of the resolver
	stateAbsent = "absent" // the node is not registered
	stateOther  = "other"  // the node serves other cuts
)

// Explain says why a resolver at an address is referred to certain nodes when it
// asks for a name. There is an error for a name that is not at or below a cut, and
// for a cut that no node serves.
func (d *DNSB) Explain(name string, from netip.Addr) (Explanation, error) {
	return d.snapshot.Load().explain(name, from)
}

func (s *snapshot) explain(name string, from netip.Addr) (Explanation, error) {
	e := Explanation{
		At: time.Now(), Zone: s.conf.zone, Address: from, LookedUp: resolver.Normalize(from),
		Candidates: []Candidate{}, Referral: []Referred{}, Overlaps: []string{},
	}
	if !from.IsValid() {
		return e, fmt.Errorf("no address to explain")
	}
	c := s.cutOf(dns.CanonicalName(name))
	switch {
	case c == nil && len(s.cuts) == 0:
		return e, fmt.Errorf("there are no cuts: no node has registered one")
	case c == nil:
		if n := len(s.cuts); n > maxNamedCuts {
			return e, fmt.Errorf("%s is not at or below one of the %d cuts", name, n)
		}
		return e, fmt.Errorf("%s is not at or below a cut; the cuts are: %s", name, strings.Join(s.cutNames(), " "))
	}
	e.Cut = c.name
	p := s.plan(c, e.LookedUp)
	if p.node == nil {
		return e, fmt.Errorf("no node serves %s: the answer is SERVFAIL", c.name)
	}
	e.Layer = p.layer.String()
	e.TTL = p.ttl(s.conf)
	for _, n := range []*node{p.node, p.deputy} {
		if n != nil {
			e.Referral = append(e.Referral, Referred{n.Node, n.fqdn, slices.Clone(n.Addresses)})
		}
	}
	all, chosen := s.considered(c, e.LookedUp)
	for i, one := range all {
		candidate := s.candidate(one, e.Cut)
		candidate.Chosen = i == chosen
		e.Candidates = append(e.Candidates, candidate)
	}
	at := all[chosen]
	e.Prefix, e.Source = at.prefix, s.source(p.named(), at)
	if named := s.namedAt(at.prefix); len(named) > 1 && at.layer <= layerRegistration {
		e.Overlaps = named
	}
	if s.sites != nil {
		if site, ok := s.survey.Site(e.LookedUp); ok {
			e.Survey = &site
		}
	}
	if c.differs() {
		_, e.Without = s.byClientSubnets(c)
		e.Without = e.Without[:min(len(e.Without), maxCandidates)]
	}
	e.Reason = s.reason(p, at, c, e.LookedUp)
	return e, nil
}

func (s *snapshot) cutNames() []string {
	return slices.Sorted(maps.Keys(s.cuts))
}

// considered is a candidate, and where the search considered it.
type considered struct {
	candidate
	list, pass int
	prefix     netip.Prefix // the zero value: the layer has none
	family     families     // that it must have, or anyFamily
}

// considered returns the candidates of the pass in which a node was found, up to
// the end of the list in which it is, and the index of that node.
func (s *snapshot) considered(c *cut, from netip.Addr) (all []considered, chosen int) {
	q := search{snapshot: s, cut: c, from: from}
	chosen = -1
	q.candidates(func(c candidate) bool {
		if chosen >= 0 && (q.list != all[chosen].list || len(all) >= maxCandidates) {
			return false
		}
		if len(all) > 0 && q.pass != all[0].pass {
			all = all[:0]
		}
		prefix := q.prefix
		if !prefix.IsValid() && (c.layer == layerOperator || c.layer == layerRegistration) {
			prefix = s.prefixes.Longest(from)
		}
		all = append(all, considered{c, q.list, q.pass, prefix, q.family})
		if chosen < 0 && c.verdict == eligible {
			chosen = len(all) - 1
		}
		return true
	})
	return all, chosen
}

func (s *snapshot) candidate(c considered, cut string) Candidate {
	out := Candidate{Layer: c.layer.String(), Prefix: c.prefix}
	if c.principal != nil {
		out.Of = c.principal.Node
	}
	n := s.nodes[c.id]
	if n == nil {
		out.Node, out.State = s.names[c.id], stateAbsent
		return out
	}
	serving := n.serving(cut)
	out.Node, out.State, out.Why = n.Node, string(serving.state), s.why(n, serving.state, serving.reason)
	switch {
	case c.verdict == isDenied:
		out.State, out.Why = stateDenied, ""
	case c.verdict == otherCut:
		out.State, out.Why = stateOther, ""
	case c.verdict == otherFamily && out.Why == "":
		out.Why = "no " + c.family.String() + " address"
	}
	return out
}

// why returns the reason for the state of a node, or of one of its cuts. A dead one
// may have a reason of its probe.
func (s *snapshot) why(n *node, state nodeState, reason string) string {
	switch state {
	case nodeDrained:
		o := s.overrides.drained[n.Node]
		return o.Reason + ", until " + explain.Time(o.Until)
	case nodeDead:
		if reason == "" {
			return "lease ended, not probed"
		}
		return reason
	case nodeStale:
		return "lease ended at " + explain.Time(n.record.LeaseEnd)
	}
	return ""
}

// namedAt returns the nodes that are named at a prefix of the map, in order.
func (s *snapshot) namedAt(prefix netip.Prefix) []string {
	if !prefix.IsValid() {
		return nil
	}
	var nodes []string
	if e, ok := s.prefixes.Get(prefix); ok {
		for _, claim := range e.Claims {
			if name := s.names[claim.Node]; !claim.Negated && !slices.Contains(nodes, name) {
				nodes = append(nodes, name)
			}
		}
	}
	return nodes
}

// source returns the line, the registration or the database by which a node was
// found.
func (s *snapshot) source(n *node, at considered) string {
	switch at.layer {
	case layerPin:
		if pin, ok := s.overrides.pins.Get(at.prefix); ok {
			return pin.override.Position()
		}
	case layerOperator:
		return s.lineOf(at.prefix)
	case layerRegistration:
		if n.record != nil {
			return fmt.Sprintf("registration of %s, lease until %s", n.Node, explain.Time(n.record.LeaseEnd))
		}
	case layerSurvey:
		return s.surveySource(n, at)
	case layerASN, layerCountry, layerContinent:
		return fmt.Sprintf("'%s' line for %s", at.layer, s.geoRuleAt(at))
	case layerDefault:
		return "'default' in the Corefile"
	case layerLocation:
		return strings.Join(s.conf.databases, ", ")
	}
	return ""
}

// reason says in one sentence why a node was chosen.
func (s *snapshot) reason(p plan, at considered, c *cut, from netip.Addr) string {
	var b strings.Builder
	name, which := p.named().Node, "an eligible node"
	if p.principal != nil {
		which = "an eligible node or deputy"
	}
	switch at.layer {
	case layerPin:
		pin, _ := s.overrides.pins.Get(at.prefix)
		fmt.Fprintf(&b, "%s is pinned to %s until %s (%s)", at.prefix, name, explain.Time(pin.override.Until), pin.override.Reason)
	case layerSurvey:
		to := at.prefix.String()
		if site := s.sites.Get(at.prefix); site != nil && site.Routed {
			to = "a router on the way to " + to
		}
		fmt.Fprintf(&b, "no prefix with an eligible node covers the address; %s is the first eligible node by the latencies that were measured to %s", name, to)
	case layerASN, layerCountry, layerContinent:
		fmt.Fprintf(&b, "no prefix with an eligible node covers the address; the databases place it in %s, whose first eligible node is %s", s.geoRuleAt(at), name)
	case layerLocation:
		fmt.Fprintf(&b, "no prefix and no default has an eligible node; %s is the node nearest to the location of %s in the databases", name, at.prefix)
	case layerDefault:
		fmt.Fprintf(&b, "no prefix with an eligible node covers the address; %s is the first eligible default node", name)
	case layerHash:
		fmt.Fprintf(&b, "no prefix and no default has an eligible node; hashing the resolver site chose %s among the %s of the cut", name, plural.Of(len(c.nodes), "node"))
	case layerRegistration:
		fmt.Fprintf(&b, "%s registered %s, the longest prefix with %s", name, at.prefix, which)
	default:
		fmt.Fprintf(&b, "the operator named %s for %s, the longest prefix with an eligible node", name, at.prefix)
	}
	switch {
	case p.layer == layerLast:
		b.WriteString("; no node of the cut answers, so this is the last known one")
	case p.node.serving(c.name).state == nodeDrained:
		b.WriteString("; it is drained, but no other node of the cut is live")
	}
	if p.principal != nil {
		fmt.Fprintf(&b, "; it is %s, and %s is its first eligible deputy", p.principal.serving(c.name).state, p.node.Node)
	}
	with := ""
	if len(p.named().beside(p.node)) < len(p.named().deputies) {
		with = " with client-subnets"
	}
	switch {
	case p.layer == layerLast && p.deputy != nil:
		fmt.Fprintf(&b, "; %s is another one", p.deputy.Node)
	case p.layer == layerLast:
	case p.deputy != nil && p.principal != nil:
		fmt.Fprintf(&b, "; %s is the next eligible deputy%s", p.deputy.Node, with)
	case p.deputy != nil:
		fmt.Fprintf(&b, "; %s is its first eligible deputy%s", p.deputy.Node, with)
	case s.deputy(p.named().deputies, p, c, from) != nil:
		fmt.Fprintf(&b, "; %s has client-subnets, so no deputy without it is named beside it", p.node.Node)
	}
	return b.String()
}

// geoRuleAt returns the AS, country or continent whose rule names a node.
func (s *snapshot) geoRuleAt(at considered) string {
	where, ok := s.geo.Get(at.prefix)
	if !ok {
		return ""
	}
	return rulesOf(where)[at.layer-layerASN].name
}

// lineOf returns the position of the line in which the operator wrote a prefix.
func (s *snapshot) lineOf(prefix netip.Prefix) string {
	for _, op := range s.conf.prefixes {
		if op.prefix == prefix {
			return op.at
		}
	}
	return s.prefixes.Position(prefix)
}
