package resolver

import (
	"encoding/binary"
	"net/netip"
)

// Site is the /24 or /48 of a resolver, in 8 bytes. The zero value is no site.
type Site uint64

const (
	site4    Site = 1 << 63 // with the first 24 bits of an IPv4 address
	site6    Site = 1 << 62 // with the first 48 bits of an IPv6 address
	siteBits Site = 1<<48 - 1
)

// SiteOf returns the site of a normalized address.
func SiteOf(addr netip.Addr) Site {
	if addr.Is4() {
		b := addr.As4()
		return site4 | Site(binary.BigEndian.Uint32(b[:])>>8)
	}
	b := addr.As16()
	return site6 | Site(binary.BigEndian.Uint64(b[:8])>>16)
}

// SiteLength returns how long the prefix of a site with such addresses is.
func SiteLength(addr netip.Addr) int {
	if addr.Is4() {
		return 24
	}
	return 48
}

// Prefix returns the prefix of the site.
func (s Site) Prefix() netip.Prefix {
	if s&site4 != 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(s)<<8) // #nosec G115 -- 24 bits
		return netip.PrefixFrom(netip.AddrFrom4(b), 24)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(s)<<16)
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// Hash returns the hash of the site, for rendezvous hashing.
func (s Site) Hash() uint64 { return mix(uint64(s & siteBits)) }
