package dnsb

import "net/netip"

// families are those of the addresses of a node.
type families uint8

const (
	family4 families = 1 << iota
	family6

	// anyFamily asks for none in particular: many resolvers have both.
	anyFamily families = 0
)

// familyOf returns the family over which a resolver asks. One in the NAT64 prefix
// asks over IPv4, and what translates it is on this side.
func familyOf(addr netip.Addr) families {
	if addr.Is4() {
		return family4
	}
	return family6
}

func familiesOf(addrs []netip.Addr) (all families) {
	for _, addr := range addrs {
		all |= familyOf(addr)
	}
	return all
}

// hold reports whether a family is among these.
func (f families) hold(family families) bool { return f&family == family }

func (f families) String() string {
	if f == family4 {
		return "IPv4"
	}
	return "IPv6"
}
