package dnslb

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Places by whose measurements a resolver is answered.
const (
	// outside is the place of a resolver that belongs to no node known here. It
	// gets the answer of here.
	outside = -1
	// here is the place of the node's own resolvers. Places of other nodes, of
	// which this one is a deputy, are numbered from 1.
	here = 0
)

// places tell to which place a resolver belongs. They are immutable.
type places struct {
	table bart.Table[int]
}

// prefixClaim is an address prefix list of a place. It claims the addresses that a
// prefix without negation matches best among its own (RFC 3123).
type prefixClaim struct {
	place    int
	prefixes []registration.Prefix
}

// newPlaces returns the places of these claims: of several to an address the one
// with the longer prefix has it, and at the same prefix the one that comes first.
func newPlaces(claims []prefixClaim) *places {
	tables := make([]*bart.Table[bool], len(claims))
	for i, c := range claims {
		tables[i] = new(bart.Table[bool])
		for _, p := range c.prefixes {
			tables[i].Insert(p.Prefix, !p.Negated)
		}
	}
	out := new(places)
	for _, c := range claims {
		for _, p := range c.prefixes {
			if _, done := out.table.Get(p.Prefix); !done {
				out.table.Insert(p.Prefix, placeOf(claims, tables, p.Prefix))
			}
		}
	}
	return out
}

// placeOf returns the place of the addresses that no prefix of any claim matches
// better than this one.
func placeOf(claims []prefixClaim, tables []*bart.Table[bool], prefix netip.Prefix) int {
	place, longest := outside, -1
	for i, t := range tables {
		if match, claimed, ok := t.LookupPrefixLPM(prefix); ok && claimed && match.Bits() > longest {
			place, longest = claims[i].place, match.Bits()
		}
	}
	return place
}

// of returns the place of a resolver, or outside.
func (p *places) of(resolver netip.Addr) int {
	if place, ok := p.table.Lookup(resolver); ok {
		return place
	}
	return outside
}
