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

// newPlaces returns the places of address prefix lists, by their number. A list
// claims the addresses that a prefix without negation matches best among its own
// (RFC 3123); of lists that claim an address the one with the longer prefix has
// it, and at the same prefix the one with the lower number, so the node itself.
func newPlaces(lists map[int][]registration.Prefix) *places {
	tables := make(map[int]*bart.Table[bool], len(lists))
	for id, list := range lists {
		t := new(bart.Table[bool])
		for _, p := range list {
			t.Insert(p.Prefix, !p.Negated)
		}
		tables[id] = t
	}
	out := new(places)
	for _, list := range lists {
		for _, p := range list {
			if _, done := out.table.Get(p.Prefix); !done {
				out.table.Insert(p.Prefix, placeOf(tables, p.Prefix))
			}
		}
	}
	return out
}

// placeOf returns the place of the addresses that no prefix of any list matches
// better than this one.
func placeOf(tables map[int]*bart.Table[bool], prefix netip.Prefix) int {
	place, longest := outside, -1
	for id, t := range tables {
		match, claimed, ok := t.LookupPrefixLPM(prefix)
		if !ok || !claimed {
			continue
		}
		if bits := match.Bits(); bits > longest || bits == longest && id < place {
			place, longest = id, bits
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
