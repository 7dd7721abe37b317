package dnsb

import (
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// prerequisites returns an error unless those of an UPDATE hold (RFC 2136,
// section 3.2). It is a *registration.Error. There are at most maxPrerequisites.
func (s *snapshot) prerequisites(rrs []dns.RR) error {
	type key struct {
		name   string
		rrtype uint16
	}
	wanted := make(map[key][]dns.RR) // RRsets that must exist with these values
	known := make(map[key][]dns.RR)
	rrset := func(name string, rrtype uint16) []dns.RR {
		k := key{name, rrtype}
		if _, ok := known[k]; !ok {
			known[k] = s.rrset(name, rrtype)
		}
		return known[k]
	}
	for _, rr := range rrs {
		h := rr.Header()
		name := dns.CanonicalName(h.Name)
		fail := func(rcode int, reason string) error {
			return &registration.Error{Rcode: rcode, Text: fmt.Sprintf("prerequisite %s %s: %s", name, dns.Type(h.Rrtype), reason)}
		}
		if h.Ttl != 0 {
			return fail(dns.RcodeFormatError, "TTL is not 0")
		}
		if !dns.IsSubDomain(s.conf.zone, name) {
			return fail(dns.RcodeNotZone, "name is not in the zone")
		}
		if h.Class != dns.ClassINET && h.Rdlength != 0 {
			return fail(dns.RcodeFormatError, "data with a class other than IN")
		}
		anyType := h.Rrtype == dns.TypeANY
		exists := anyType && s.inUse(name) || !anyType && len(rrset(name, h.Rrtype)) > 0
		switch {
		case h.Class == dns.ClassANY && !exists && anyType:
			return fail(dns.RcodeNameError, "name is not in use")
		case h.Class == dns.ClassANY && !exists:
			return fail(dns.RcodeNXRrset, "RRset does not exist")
		case h.Class == dns.ClassNONE && exists && anyType:
			return fail(dns.RcodeYXDomain, "name is in use")
		case h.Class == dns.ClassNONE && exists:
			return fail(dns.RcodeYXRrset, "RRset exists")
		case h.Class == dns.ClassINET && anyType:
			return fail(dns.RcodeFormatError, "type ANY with class IN")
		case h.Class == dns.ClassINET:
			k := key{name, h.Rrtype}
			wanted[k] = append(wanted[k], rr)
		case h.Class != dns.ClassANY && h.Class != dns.ClassNONE:
			return fail(dns.RcodeFormatError, "class is not IN, ANY or NONE")
		}
	}
	for k, rrs := range wanted {
		if !sameRRset(rrset(k.name, k.rrtype), rrs) {
			return &registration.Error{Rcode: dns.RcodeNXRrset, Text: fmt.Sprintf("prerequisite %s %s: RRset has other records", k.name, dns.Type(k.rrtype))}
		}
	}
	return nil
}

// inUse reports whether name has records (RFC 2136, section 2.4.4).
func (s *snapshot) inUse(name string) bool {
	if c := s.cuts[name]; c != nil {
		return len(c.nodes) > 0
	}
	o := s.owners[name]
	return o != nil && (o.apex || o.isNode || o.part != nil || len(o.addresses) > 0)
}

// rrset returns the records of one type at name. A cut has its DS records, and
// the NS records of all its nodes.
func (s *snapshot) rrset(name string, rrtype uint16) []dns.RR {
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

// sameRRset reports whether two RRsets have the same data, whatever their TTLs.
func sameRRset(a, b []dns.RR) bool {
	notIn := func(rrset []dns.RR) func(dns.RR) bool {
		return func(rr dns.RR) bool {
			return !slices.ContainsFunc(rrset, func(other dns.RR) bool { return dns.IsDuplicate(rr, other) })
		}
	}
	return !slices.ContainsFunc(a, notIn(b)) && !slices.ContainsFunc(b, notIn(a))
}
