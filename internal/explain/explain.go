// Package explain is how dnsb and dnslb are asked by DNS why they answer what
// they do, and how they tell: by TXT records, one a line.
package explain

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	// Label is the one in front of a name that is to be explained.
	Label = "_explain"
	// ttl is the shortest, in seconds: some resolvers keep records of TTL 0 for as
	// long as they like.
	ttl = 1
)

// TXT returns a line as a record.
func TXT(owner, line string) dns.RR {
	return dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, ttl), line)
}

// Allows reports whether who asks from an address may know.
func Allows(networks []netip.Prefix, from netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(from) })
}

// Subject returns the address of the client subnet in a query (RFC 7871), as it
// was written, and whether there is one. One of length 0 tells nobody's address.
func Subject(r *dns.Msg) (netip.Addr, bool) {
	for s := range dnsmsg.Options[*dns.EDNS0_SUBNET](r) {
		if s.SourceNetmask == 0 {
			continue
		}
		if addr, ok := netip.AddrFromSlice(s.Address); ok {
			if s.Family == 1 {
				addr = addr.Unmap()
			}
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// Scope says in a reply that it is about the client subnet of the query, and for
// no other one.
func Scope(m *dns.Msg) {
	for s := range dnsmsg.Options[*dns.EDNS0_SUBNET](m) {
		s.SourceScope = s.SourceNetmask
	}
}

// Clock writes a time as admin files have it (RFC 3339, in UTC).
func Clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
