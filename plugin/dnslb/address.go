package dnslb

import (
	"net/netip"

	"github.com/miekg/dns"
)

// isHost reports whether an address can be one of a host.
func isHost(addr netip.Addr) bool { return !addr.IsUnspecified() && !addr.IsMulticast() }

// addressOf returns the address of an A or AAAA record; ok is false for another
// record, and for one without an address.
func addressOf(rr dns.RR) (addr netip.Addr, ok bool) {
	switch rr := rr.(type) {
	case *dns.A:
		return netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA)
	}
	return netip.Addr{}, false
}
