package dnsb

import (
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/edns"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// refer delegates what was asked for to the node that is best for who asks, and
// to its deputy if it has one and both fit.
func (s *snapshot) refer(state request.Request, c *cut) (int, error) {
	from := resolver.Addr(state.W)
	n, l := s.choose(c, from, nil)
	if n == nil {
		return s.notReady(state)
	}
	n.counts[l].Inc()
	if l >= layerDefault {
		unmappedCount.WithLabelValues(s.conf.zone).Inc()
	}

	problem := ""
	if l == layerLast {
		problem = "no node answers; this is the last one known"
	} else if deputy := s.deputy(n, c, from); deputy != nil {
		if m := s.referral(state, c, "", s.conf.ttl, n, deputy); fits(state, m) {
			return dns.RcodeSuccess, state.W.WriteMsg(m)
		}
	}
	m := s.referral(state, c, problem, min(soloTTL, s.conf.ttl), n)
	if !fits(state, m) {
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
		m.Ns = append(m.Ns, &dns.NS{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: ttl}, Ns: n.fqdn})
		for _, addr := range n.Addresses {
			m.Extra = append(m.Extra, address(n.fqdn, addr, 2*ttl))
		}
	}
	edns.Complete(m, state.Req, dns.ExtendedErrorCodeStaleAnswer, problem)
	return m
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
