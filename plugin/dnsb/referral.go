package dnsb

import (
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// refer delegates what was asked for to the node that is best for who asks.
func (s *snapshot) refer(state request.Request, c *cut) (int, error) {
	n, l := s.choose(c, source(state.W))
	if n == nil {
		return s.notReady(state)
	}
	n.counts[l].Inc()
	if l >= layerDefault {
		unmappedCount.WithLabelValues(s.conf.zone).Inc()
	}

	m := new(dns.Msg)
	m.SetReply(state.Req)
	qname := state.QName()
	ttl := min(uint32(soloTTL), s.conf.ttl)
	m.Ns = []dns.RR{&dns.NS{
		Hdr: dns.RR_Header{Name: qname[len(qname)-len(c.name):], Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: ttl},
		Ns:  n.fqdn,
	}}
	m.Extra = make([]dns.RR, len(n.Addresses), len(n.Addresses)+1)
	for i, addr := range n.Addresses {
		m.Extra[i] = address(n.fqdn, addr, 2*ttl)
	}
	var ede *dns.EDNS0_EDE
	if l == layerLast {
		ede = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer, ExtraText: "no node answers; this is the last one known"}
	}
	options(m, state.Req, ede)
	if !fits(state, m) {
		// Half of the addresses could be the half that does not answer.
		m.Truncated = true
		m.Ns, m.Extra = nil, nil
		options(m, state.Req, ede)
	}
	return dns.RcodeSuccess, state.W.WriteMsg(m)
}

// optSize is more than what an OPT record takes that the framework adds.
const optSize = 11 + 64

// fits reports whether a reply goes out whole.
func fits(state request.Request, m *dns.Msg) bool {
	if state.Proto() == "tcp" || len(m.Extra) <= 2 && len(m.Question[0].Name) < 128 {
		return true
	}
	m.Compress = true
	return m.Len()+optSize <= state.Size()
}
