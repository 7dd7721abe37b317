// Package explain is how dnsb and dnslb are asked by DNS why they answer what
// they do, and how they tell: by TXT records, one a line.
package explain

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// Label is the one in front of a name that is to be explained.
	Label = "_explain"
	// ttl is the shortest, in seconds: some resolvers keep records of TTL 0 for as
	// long as they like.
	ttl = 1
	// stringSize is that of a character-string (RFC 1035, section 3.3).
	stringSize = 255
)

// escape makes a string what the text form of a record has.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace

// TXT returns a line as a record. It has no empty character-string but for an
// empty line.
func TXT(owner, line string) dns.RR {
	rr := &dns.TXT{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: ttl}}
	for len(line) > stringSize {
		rr.Txt = append(rr.Txt, escape(line[:stringSize]))
		line = line[stringSize:]
	}
	rr.Txt = append(rr.Txt, escape(line))
	return rr
}

// Allows reports whether who asks from an address may know.
func Allows(networks []netip.Prefix, from netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(from) })
}

// Subject returns the address of the client subnet in a query (RFC 7871), as it
// was written, and whether there is one. One of length 0 tells nobody's address.
func Subject(r *dns.Msg) (netip.Addr, bool) {
	for _, s := range subnets(r) {
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
	for _, s := range subnets(m) {
		s.SourceScope = s.SourceNetmask
	}
}

func subnets(m *dns.Msg) []*dns.EDNS0_SUBNET {
	var all []*dns.EDNS0_SUBNET
	if o := m.IsEdns0(); o != nil {
		for _, option := range o.Option {
			if s, ok := option.(*dns.EDNS0_SUBNET); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// Clock writes a time as admin files have it (RFC 3339, in UTC).
func Clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
