package dnsb

import (
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// prerequisites returns nil if those of an UPDATE hold (RFC 2136, section 3.2).
func (s *snapshot) prerequisites(rrs []dns.RR) error {
	type set struct {
		name   string
		rrtype uint16
	}
	values := make(map[set][]dns.RR)
	for _, rr := range rrs {
		h := rr.Header()
		name := dns.CanonicalName(h.Name)
		fail := func(rcode int, why string) error {
			return &registration.Error{Rcode: rcode, Text: fmt.Sprintf("prerequisite %s %s: %s", name, dns.Type(h.Rrtype), why)}
		}
		if h.Ttl != 0 {
			return fail(dns.RcodeFormatError, "its TTL must be 0")
		}
		if !dns.IsSubDomain(s.conf.zone, name) {
			return fail(dns.RcodeNotZone, "not in the zone")
		}
		if h.Class != dns.ClassINET && h.Rdlength != 0 {
			return fail(dns.RcodeFormatError, "it must have no data")
		}
		whole := h.Rrtype == dns.TypeANY
		exists := whole && s.inUse(name) || !whole && len(s.set(name, h.Rrtype)) > 0
		switch {
		case h.Class == dns.ClassANY && !exists && whole:
			return fail(dns.RcodeNameError, "there is no such name")
		case h.Class == dns.ClassANY && !exists:
			return fail(dns.RcodeNXRrset, "there are no such records")
		case h.Class == dns.ClassNONE && exists && whole:
			return fail(dns.RcodeYXDomain, "the name is in use")
		case h.Class == dns.ClassNONE && exists:
			return fail(dns.RcodeYXRrset, "there are such records")
		case h.Class == dns.ClassINET && whole:
			return fail(dns.RcodeFormatError, "no type")
		case h.Class == dns.ClassINET:
			values[set{name, h.Rrtype}] = append(values[set{name, h.Rrtype}], rr)
		case h.Class != dns.ClassANY && h.Class != dns.ClassNONE:
			return fail(dns.RcodeFormatError, "its class must be IN, ANY or NONE")
		}
	}
	for set, want := range values {
		if !sameSet(s.set(set.name, set.rrtype), want) {
			return &registration.Error{Rcode: dns.RcodeNXRrset, Text: fmt.Sprintf("prerequisite %s %s: the records are others", set.name, dns.Type(set.rrtype))}
		}
	}
	return nil
}

// inUse reports whether there are records at name.
func (s *snapshot) inUse(name string) bool {
	if c := s.cuts[name]; c != nil {
		return len(c.nodes) > 0
	}
	o := s.owners[name]
	return o != nil && (o.apex || o.node != nil || o.part != nil || len(o.addresses) > 0)
}

// set returns the records of one type at name, at a cut its DS records or the NS
// records of all its nodes.
func (s *snapshot) set(name string, rrtype uint16) []dns.RR {
	if c := s.cuts[name]; c != nil {
		if rrtype == dns.TypeDS {
			return c.dsRecords(name, s.conf.ttl)
		}
		var rrs []dns.RR
		for _, id := range c.nodes {
			if rrtype == dns.TypeNS {
				rrs = append(rrs, &dns.NS{Hdr: dnsmsg.Header(name, dns.TypeNS, 0), Ns: s.nodes[id].fqdn})
			}
		}
		return rrs
	}
	if o := s.owners[name]; o != nil {
		rrs, _ := s.records(o, name, rrtype)
		return rrs
	}
	return nil
}

func sameSet(a, b []dns.RR) bool {
	in := func(set []dns.RR) func(dns.RR) bool {
		return func(rr dns.RR) bool {
			return !slices.ContainsFunc(set, func(other dns.RR) bool { return dns.IsDuplicate(rr, other) })
		}
	}
	return !slices.ContainsFunc(a, in(b)) && !slices.ContainsFunc(b, in(a))
}
