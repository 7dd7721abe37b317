// Package resolver identifies resolvers by source address and site, and spreads
// them over nodes and servers by rendezvous hashing.
package resolver

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// nat64 is the well-known prefix of IPv4 addresses in IPv6 (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Address returns the normalized source address of a query. It is invalid if the
// writer has no IP address.
func Address(w dns.ResponseWriter) netip.Addr { return Normalize(SourceAddress(w)) }

// SourceAddress returns the source address of a query as it is in the packet.
func SourceAddress(w dns.ResponseWriter) netip.Addr {
	var addr netip.Addr
	switch a := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		addr = a.AddrPort().Addr()
	case *net.TCPAddr:
		addr = a.AddrPort().Addr()
	default: // an address from the proxy protocol is of an unexported type
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			addr = ap.Addr()
		}
	}
	return addr.Unmap() // a dual-stack socket has IPv4 in IPv6 form
}

// Normalize returns an address without zone, and the IPv4 address that an
// IPv4-mapped or NAT64 address holds.
func Normalize(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}
