package dnslb

import (
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// withCurrentHints returns records in which the SVCB and HTTPS records of services
// have the addresses that are answered now as hints (RFC 9460, section 7.3), and a
// TTL that is no longer than that of these addresses. It does not modify rrs.
func (d *DNSLB) withCurrentHints(c *client, snap *snapshot, rrs []dns.RR) []dns.RR {
	services := make([]*service, len(rrs))
	found := false
	for i, rr := range rrs {
		// AliasMode, priority 0, has no parameters.
		if b := binding(rr); b != nil && b.Priority > 0 {
			target := b.Target
			if target == "." {
				target = rr.Header().Name
			}
			n, _ := snap.lookup(strings.ToLower(target))
			services[i], found = n.service, found || n.service != nil
		}
	}
	if !found {
		return rrs
	}

	hinted, copied := make([]dns.RR, 0, len(rrs)), make([]bool, 0, len(rrs))
	ttl := d.ttlHigh
	for i, rr := range rrs {
		if s := services[i]; s != nil {
			v4, v6 := d.selectFor(c, s.a, dns.TypeA), d.selectFor(c, s.aaaa, dns.TypeAAAA)
			rr = withValue(rr, dnsmsg.WithHints(binding(rr).Value, v4.addrs, v6.addrs))
			ttl = min(ttl, v4.ttl, v6.ttl)
		}
		// A signature of another signer does not match the hints.
		if _, signature := rr.(*dns.RRSIG); !signature || !isBinding(dnsmsg.CoveredType(rr)) {
			hinted, copied = append(hinted, rr), append(copied, services[i] != nil)
		}
	}
	// The records of an RRset have one TTL (RFC 2181, section 5.2).
	for i, rr := range hinted {
		switch {
		case copied[i]:
			rr.Header().Ttl = min(rr.Header().Ttl, ttl)
		case isBinding(rr.Header().Rrtype):
			hinted[i] = dnsmsg.LimitTTL(rr, ttl)
		}
	}
	return hinted
}

// withValue returns a copy of an SVCB or HTTPS record with other parameters.
func withValue(rr dns.RR, value []dns.SVCBKeyValue) dns.RR {
	if https, ok := rr.(*dns.HTTPS); ok {
		c := *https
		c.Value = value
		return &c
	}
	c := *rr.(*dns.SVCB)
	c.Value = value
	return &c
}

func isBinding(rrtype uint16) bool { return rrtype == dns.TypeSVCB || rrtype == dns.TypeHTTPS }

// binding returns the data of an SVCB or HTTPS record, which have the same form,
// nil for another record.
func binding(rr dns.RR) *dns.SVCB {
	switch rr := rr.(type) {
	case *dns.SVCB:
		return rr
	case *dns.HTTPS:
		return &rr.SVCB
	}
	return nil
}
