package dnsb

import (
	"net/netip"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// plan is what a referral names, as far as it fits into the message.
type plan struct {
	node, deputy *node // nil: none; if no node answers, deputy is another one that is known
	principal    *node // the node that is not live, whose deputies they are; nil: node is named for itself
	layer        layer
}

// plan returns what a referral of a cut names. It has no node only if no node
// serves the cut.
func (s *snapshot) plan(c *cut, from netip.Addr) (p plan) {
	found, last, ok := s.firstEligible(c, from)
	if !ok {
		return p
	}
	p.node, p.layer = s.nodes[found.id], found.layer
	if last {
		p.layer = layerLast
		p.deputy = s.lastKnown(p.node, c, from)
		return p
	}
	p.principal = found.principal
	p.deputy = s.deputy(p.named().beside(p.node), p, c, from)
	return p
}

// named returns the node that the map, an override or the operator names: the
// node itself, or its principal.
func (p plan) named() *node {
	if p.principal != nil {
		return p.principal
	}
	return p.node
}

// deputy returns the first of these deputies that is live for a cut, that a
// resolver can reach, and that the referral does not name already; nil if there is
// none.
func (s *snapshot) deputy(ids []nodeID, p plan, c *cut, from netip.Addr) *node {
	n, family := p.named(), familyOf(from)
	if !n.families.hold(family) {
		family = anyFamily // the resolver has the other one too, if it can use n
	}
	for _, id := range ids {
		if id != n.id && id != p.node.id && c.state(id) == servesLive && s.nodes[id].families.hold(family) && !s.denies(s.nodes[id], from) {
			return s.nodes[id]
		}
	}
	return nil
}

// lastKnown returns the node that a referral names beside another one while no node
// of a cut answers, nil if there is none: one of them may be dead, and the other out
// of reach of this server alone.
func (s *snapshot) lastKnown(beside *node, c *cut, from netip.Addr) (found *node) {
	q, family := search{snapshot: s, cut: c, from: from}, familyOf(from)
	if !beside.families.hold(family) {
		family = anyFamily
	}
	q.candidates(func(one candidate) bool {
		n := s.nodes[one.id]
		if one.verdict == eligible && n != beside && n.ClientSubnets == beside.ClientSubnets && n.families.hold(family) && !s.denies(n, from) {
			found = n
		}
		return found == nil
	})
	return found
}

// ttl returns the TTL of the NS records.
func (p plan) ttl(conf *config) uint32 {
	if p.deputy == nil || p.layer == layerLast {
		return min(soloTTL, conf.ttl)
	}
	return conf.ttl
}

// refer delegates what was asked for to the node that is best for who asks, and
// to its deputy, or another known node, if there is one and both fit.
func (s *snapshot) refer(state request.Request, c *cut) (int, error) {
	from := resolver.Address(state.W)
	p := s.plan(c, from)
	if p.node == nil {
		return s.notReady(state)
	}
	s.count(p, from)

	problem := ""
	if p.layer == layerLast {
		problem = "no node answers, these were the last known"
	}
	if p.deputy != nil {
		if m := s.referral(state, c, problem, p.ttl(s.conf), p.node, p.deputy); s.fits(state, c, m) {
			return dns.RcodeSuccess, state.W.WriteMsg(m)
		}
		p.deputy = nil
	}
	m := s.referral(state, c, problem, p.ttl(s.conf), p.node)
	if !s.fits(state, c, m) {
		// Half of the addresses could be the half that does not answer.
		m = s.referral(state, c, problem, 0)
		m.Truncated = true
	}
	return dns.RcodeSuccess, state.W.WriteMsg(m)
}

// referral returns a referral to nodes, best first.
func (s *snapshot) referral(state request.Request, c *cut, problem string, ttl uint32, nodes ...*node) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(state.Req)
	qname := state.QName()
	owner, size := qname[len(qname)-len(c.name):], 1
	for _, n := range nodes {
		size += len(n.Addresses)
	}
	m.Ns, m.Extra = make([]dns.RR, 0, len(nodes)), make([]dns.RR, 0, size)
	for _, n := range nodes {
		m.Ns = append(m.Ns, &dns.NS{Hdr: dnsmsg.Header(owner, dns.TypeNS, ttl), Ns: n.fqdn})
		for _, addr := range n.Addresses {
			m.Extra = append(m.Extra, dnsmsg.AddressRecord(n.fqdn, addr, 2*ttl))
		}
	}
	if state.Do() {
		m.Ns = append(m.Ns, c.dsRecords(owner, s.conf.ttl)...)
	}
	dnsmsg.SetError(m, state.Req, dns.ExtendedErrorCodeStaleAnswer, problem)
	return m
}

// optSize is more than what an OPT record takes that the framework adds.
const optSize = 11 + 64

// nsecSize is what an NSEC record takes beside its names.
const nsecSize = 32

// fits reports whether a reply goes out whole.
func (s *snapshot) fits(state request.Request, c *cut, m *dns.Msg) bool {
	room := optSize
	if s.signatures > 0 && state.Do() {
		// Those of the DS records, or of two NSEC records: ours, and the one that
		// dnssec makes of its own.
		room += s.signatures + len(c.name)
		if len(c.ds) == 0 {
			room += s.signatures + 3*len(m.Question[0].Name) + 2*nsecSize
		}
	} else if len(m.Extra) <= 2 && len(m.Question[0].Name) < 128 {
		return true
	}
	if state.Proto() == "tcp" {
		return true
	}
	m.Compress = true
	return m.Len()+room <= state.Size()
}
