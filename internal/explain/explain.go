// Package explain answers queries that ask for an explanation: lines of text, each
// in a TXT record, below a reserved label.
package explain

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
)

// Label is the label in front of the name to explain.
const Label = "_explain"

const (
	// ttl is the TTL of the records in seconds. Some resolvers keep records of TTL 0
	// for a default time.
	ttl = 1
	// maxSize is how many bytes the records of a reply take with compressed names. It
	// leaves room for the question, OPT and TSIG in the 64 KiB of a message.
	maxSize = 60_000
)

// Records returns the lines as TXT records. If not all of them fit into one
// message, the last record tells how many are missing.
func Records(owner string, lines []string) []dns.RR {
	rrs := make([]dns.RR, 0, len(lines))
	size := 0
	for i, line := range lines {
		rr := record(owner, line)
		if size += dns.Len(record(".", line)) + 1; size > maxSize { // a compressed name has 2 bytes
			return append(rrs, record(owner, "left out, as the message is full: "+plural.Of(len(lines)-i, "line")))
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

func record(owner, line string) dns.RR {
	return dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, ttl), line)
}

// Allowed reports whether a client may ask for explanations: its address is in one
// of the networks.
func Allowed(networks []netip.Prefix, client netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(client) })
}

// Subject returns the address in the client subnet of a query (RFC 7871), as it
// is in the option. A query without the option, or with one of length 0, has no
// subject.
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

// SetScope limits a reply to the client subnet of its query.
func SetScope(reply *dns.Msg) {
	for s := range dnsmsg.Options[*dns.EDNS0_SUBNET](reply) {
		s.SourceScope = s.SourceNetmask
	}
}

// Time formats a time as admin files have it (RFC 3339, in UTC).
func Time(t time.Time) string { return t.UTC().Format(time.RFC3339) }
