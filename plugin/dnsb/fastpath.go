package dnsb

import (
	"bytes"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

var _ fastpath.Answerer = (*DNSB)(nil)

// Answer implements the fastpath.Answerer interface. It refers to nodes that are live
// or drained, unless DS records or signatures belong to the referral.
func (d *DNSB) Answer(q *fastpath.Query, out []byte) (n int, ok bool) {
	s := d.snapshot.Load()
	if s == nil || d.signer != nil || q.Type == dns.TypeTXT { // TXT may ask for an explanation
		return 0, false
	}
	c, at := s.cutOfQuery(q)
	if c == nil || q.DO && len(c.ds) > 0 {
		return 0, false
	}
	p := s.plan(c, q.From)
	if p.node == nil || p.layer == layerLast {
		return 0, false
	}
	if n, ok = p.appendReferral(q, q.Suffix(at), s.conf, out); ok && !q.Trial {
		s.count(p, q.From)
	}
	return n, ok
}

// Basis implements the fastpath.Answerer interface. A referral comes from the snapshot
// alone, and no snapshot is set a second time.
func (d *DNSB) Basis(*fastpath.Query) any { return d.snapshot.Load() }

// cutOfQuery returns the cut at or above the name of a query, and the label at which
// its name begins. It returns none for a name in the map of a cut.
func (s *snapshot) cutOfQuery(q *fastpath.Query) (c *cut, at uint8) {
	for _, label := range q.Labels {
		name := q.Name[label:]
		if len(name) <= len(s.conf.zone) || bytes.HasPrefix(name, mapLabel) {
			break
		}
		if c, ok := s.cuts[string(name)]; ok {
			return c, label
		}
	}
	return nil, 0
}

var mapLabel = []byte(nodemap.Label + ".")

// appendReferral writes the referral of a cut with a name in wire form.
func (p plan) appendReferral(q *fastpath.Query, cut []byte, conf *config, out []byte) (n int, ok bool) {
	ttl, nodes := p.ttl(conf), []*node{p.node, p.deputy}
	if p.deputy == nil {
		nodes = nodes[:1]
	}
	addresses := 0
	for _, n := range nodes {
		addresses += len(n.Addresses)
	}
	b := q.Begin(out, false, dns.RcodeSuccess, 0, len(nodes), addresses)
	for _, n := range nodes {
		b = append(fastpath.AppendRecord(b, cut, dns.TypeNS, ttl, len(n.packed)), n.packed...)
	}
	for _, n := range nodes {
		for _, addr := range n.Addresses {
			b = fastpath.AppendAddress(b, n.packed, addr, 2*ttl)
		}
	}
	return q.End(b)
}

// count counts a referral of a resolver.
func (s *snapshot) count(p plan, from netip.Addr) {
	p.node.counts[p.layer].Inc()
	s.countForSurvey(p.layer, from)
	if p.layer >= layerDefault {
		s.unmappedCount.Inc()
		s.unmapped.Add(resolver.SiteOf(from), lastReferral{p.node.Node, p.layer})
	}
}

// packName returns a name in wire form.
func packName(name string) []byte {
	packed := make([]byte, len(name)+1)
	n, err := dns.PackDomainName(name, packed, 0, nil, false)
	if err != nil {
		return nil
	}
	return packed[:n]
}
