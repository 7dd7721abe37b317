package registration

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Prefix is one item of an address prefix list (RFC 3123). Negated means that
// the node is not near the addresses for which this is the longest match.
type Prefix struct {
	netip.Prefix
	Negated bool
}

// String returns the prefix, with a leading "!" if it is negated.
func (p Prefix) String() string {
	if p.Negated {
		return "!" + p.Prefix.String()
	}
	return p.Prefix.String()
}

// APL returns the prefix as an item of an APL record.
func (p Prefix) APL() dns.APLPrefix {
	addr := p.Addr()
	return dns.APLPrefix{
		Negation: p.Negated,
		Network:  net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(p.Bits(), addr.BitLen())},
	}
}

// size returns the length of an APL item in bytes. Trailing zeros are not sent
// (RFC 3123, section 4).
func (p Prefix) size() int { return 4 + (p.Bits()+7)/8 }

// ParseAPL returns the prefixes of an APL record. The error is an *Error: an
// item is of neither IPv4 nor IPv6, or has bits set beyond its length.
func ParseAPL(apl *dns.APL) ([]Prefix, error) {
	prefixes := make([]Prefix, len(apl.Prefixes))
	for i, item := range apl.Prefixes {
		p, err := parseItem(item)
		if err != nil {
			return nil, err
		}
		prefixes[i] = p
	}
	return prefixes, nil
}

func parseItem(item dns.APLPrefix) (Prefix, error) {
	addr, ok := netip.AddrFromSlice(item.Network.IP)
	bits, size := item.Network.Mask.Size()
	if !ok || size != addr.BitLen() {
		return Prefix{}, formErr("invalid APL item: expected address family 1 (IPv4) or 2 (IPv6)")
	}
	p := Prefix{Prefix: netip.PrefixFrom(addr, bits), Negated: item.Negation}
	if addr.Is4In6() {
		return Prefix{}, formErr("invalid APL item '%s': write IPv4 prefixes with address family 1", p)
	}
	if p.Masked() != p.Prefix {
		return Prefix{}, formErr("invalid prefix '%s': bits are set beyond its length, did you mean %s?", p, p.Masked())
	}
	return p, nil
}

// prefixList collects the prefixes of a node in order, each of them once.
type prefixList struct {
	items   []Prefix
	negated map[netip.Prefix]bool // of all items
}

// add fails for a prefix that is in the list with the other negation.
func (l *prefixList) add(prefixes []Prefix) error {
	l.items = slices.Grow(l.items, len(prefixes))
	if l.negated == nil {
		l.negated = make(map[netip.Prefix]bool)
	}
	for _, p := range prefixes {
		negated, known := l.negated[p.Prefix]
		if known && negated != p.Negated {
			return formErr("APL items %s and !%s contradict each other", p.Prefix, p.Prefix)
		}
		if !known {
			l.negated[p.Prefix] = p.Negated
			l.items = append(l.items, p)
		}
	}
	return nil
}
