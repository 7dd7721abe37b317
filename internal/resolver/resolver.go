// Package resolver tells resolvers apart: by the address that a query comes
// from, and by the site that this address belongs to.
package resolver

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// nat64 is the well-known prefix in which IPv4 resolvers may appear (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Addr returns the address of the resolver that asks, as IPv4 if it is one in
// disguise.
func Addr(w dns.ResponseWriter) netip.Addr { return Bare(Source(w)) }

// Source returns the address of the resolver that asks, as it is in the packet.
func Source(w dns.ResponseWriter) netip.Addr {
	var addr netip.Addr
	switch a := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		addr = a.AddrPort().Addr()
	case *net.TCPAddr:
		addr = a.AddrPort().Addr()
	default: // that of a proxy protocol, which holds the proxy's inside
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			addr = ap.Addr()
		}
	}
	return addr.Unmap() // the form of IPv4 on a socket for both
}

// Bare returns an address without zone, and as IPv4 if it is one in disguise.
func Bare(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}

// Site hashes the /24 or /48 that an address is in: the resolvers of one site
// are to be treated alike.
func Site(addr netip.Addr) uint64 {
	if addr.Is4() {
		b := addr.As4()
		return Mix(uint64(binary.BigEndian.Uint32(b[:]) >> 8))
	}
	b := addr.As16()
	return Mix(binary.BigEndian.Uint64(b[:8]) >> 16)
}

// Hash is FNV-1a, mixed.
func Hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return Mix(h)
}

// Mix is the finalizer of SplitMix64.
func Mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
