package dnsmsg

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// IsHost reports whether addr can be the address of a host.
func IsHost(addr netip.Addr) bool { return !addr.IsUnspecified() && !addr.IsMulticast() }

// Covers reports whether all addresses of a prefix are in outer.
func Covers(outer, prefix netip.Prefix) bool {
	return outer.Bits() <= prefix.Bits() && outer.Contains(prefix.Addr())
}

// AddressType returns the type of the record that holds an address: A or AAAA.
func AddressType(addr netip.Addr) uint16 {
	if addr.Is4() {
		return dns.TypeA
	}
	return dns.TypeAAAA
}

// AddressTypes returns the types of the records that hold the addresses, each
// once.
func AddressTypes(addrs []netip.Addr) []uint16 {
	var types []uint16
	for _, addr := range addrs {
		if rrtype := AddressType(addr); !slices.Contains(types, rrtype) {
			types = append(types, rrtype)
		}
	}
	return types
}

// Address returns the address of an A or AAAA record; ok is false for another
// record, and for one without an address.
func Address(rr dns.RR) (addr netip.Addr, ok bool) {
	switch rr := rr.(type) {
	case *dns.A:
		return netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		addr, ok = netip.AddrFromSlice(rr.AAAA)
		return addr, ok && addr.Is6()
	}
	return netip.Addr{}, false
}

// AddressRecord returns the A or AAAA record of an address. The TTL is in
// seconds.
func AddressRecord(owner string, addr netip.Addr, ttl uint32) dns.RR {
	h := Header(owner, AddressType(addr), ttl)
	if addr.Is4() {
		return &dns.A{Hdr: h, A: addr.AsSlice()}
	}
	return &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()}
}

// AddressRecords returns the records of those addresses that are of the type in
// h, A or AAAA.
func AddressRecords(h dns.RR_Header, addrs []netip.Addr) []dns.RR {
	var rrs []dns.RR
	for i, addr := range addrs {
		if AddressType(addr) != h.Rrtype {
			continue
		}
		if rrs == nil {
			rrs = make([]dns.RR, 0, len(addrs)-i)
		}
		rrs = append(rrs, AddressRecord(h.Name, addr, h.Ttl))
	}
	return rrs
}
