package dnslb

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/edns"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

const (
	// nsTTL is no longer than the TTL of DNS-B's referral to a node without a
	// deputy: resolvers that take the child's NS set must come back in time.
	nsTTL = 30
	// negativeTTL is the TTL of negative answers (RFC 2308, section 5).
	negativeTTL = 30
)

func reply(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	edns.Complete(m, r, 0, "")
	return m
}

// explain says what is wrong with an answer.
func explain(m, r *dns.Msg, text string) { edns.Complete(m, r, dns.ExtendedErrorCodeOther, text) }

// ranked answers the addresses of a service.
func (d *DNSLB) ranked(w dns.ResponseWriter, r *dns.Msg, a *answer, zone string) (m *dns.Msg, result string) {
	m = reply(r)
	q := r.Question[0]
	if !a.allDown {
		m.Answer = records(q, a.pick(func() uint64 { return resolver.Site(resolver.Addr(w)) }), a.ttl)
		return m, resultRanked
	}
	switch {
	case d.allDown.refuse:
		m.Rcode, m.Authoritative = dns.RcodeRefused, false
		explain(m, r, "all servers are down")
	case d.allDown.addrs != nil:
		if m.Answer = records(q, d.allDown.of(q.Qtype), a.ttl); len(m.Answer) == 0 {
			m.Ns = []dns.RR{d.soa(zone, zone)}
		}
		explain(m, r, "all servers are down; these addresses are for that case")
	default:
		m.Answer = records(q, a.addrs, a.ttl)
		explain(m, r, "all servers are down; this is the last ranking")
	}
	return m, resultAllDown
}

// records returns fresh records, since plugins above may change them.
func records(q dns.Question, addrs []netip.Addr, ttl uint32) []dns.RR {
	rrs := make([]dns.RR, len(addrs))
	for i, addr := range addrs {
		hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
		if q.Qtype == dns.TypeA {
			rrs[i] = &dns.A{Hdr: hdr, A: net.IP(addr.AsSlice())}
		} else {
			rrs[i] = &dns.AAAA{Hdr: hdr, AAAA: net.IP(addr.AsSlice())}
		}
	}
	return rrs
}

// authority answers what is not an address of a service.
func (d *DNSLB) authority(r *dns.Msg, qname string, qtype uint16, n name, exists bool) (*dns.Msg, string) {
	m := reply(r)
	owner, zone := r.Question[0].Name, n.zone
	switch {
	case !exists:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{d.soa(zone, zone)}
		return m, resultNXDomain

	case qtype == dns.TypeANY && (n.service != nil || qname == zone):
		// RFC 8482, section 4.2.
		m.Answer = []dns.RR{&dns.HINFO{
			Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: negativeTTL},
			Cpu: "RFC8482",
		}}
		return m, resultAuthority

	case qtype == dns.TypeSOA && qname == zone:
		m.Answer = []dns.RR{d.soa(owner, zone)}
		return m, resultAuthority

	// Only ever to an NS question: a resolver that takes a volunteered NS set
	// for the referral never returns to DNS-B.
	case qtype == dns.TypeNS && qname == zone:
		m.Answer = []dns.RR{&dns.NS{
			Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: nsTTL},
			Ns:  d.nameserver(zone),
		}}
		return m, resultAuthority
	}
	m.Ns = []dns.RR{d.soa(zone, zone)}
	return m, resultNoData
}

func (d *DNSLB) soa(owner, zone string) dns.RR {
	ns := d.nameserver(zone)
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:      ns,
		Mbox:    "hostmaster." + zone,
		Serial:  d.loaded,
		Refresh: 7200,
		Retry:   1800,
		Expire:  86400,
		Minttl:  negativeTTL,
	}
}

// nameserver is the name under which DNS-B refers to this node: NODE.lb.ZONE.
// Until DNS-B told its zone it is taken to be the parent of the cut. A zone that
// no DNS-B refers to is its own name server.
func (d *DNSLB) nameserver(zone string) string {
	if d.Node == "" {
		return zone
	}
	if ns := d.kept.nodeName(); ns != "" {
		return ns
	}
	return registration.Name(d.Node, above(zone))
}
