package peerview

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// A resolver belongs to this node, to a principal or to no known node. Slots
// number the nodes; those of principals are above Own.
const (
	Outside = -1 // of no known node
	Own     = 0  // of this node
)

// PrefixList is the list of prefixes of one slot. It claims the addresses whose
// longest match in the list is not negated (RFC 3123).
type PrefixList struct {
	Slot     int
	Prefixes []registration.Prefix
}

// Prefixes know to which slot a resolver belongs. They are immutable.
type Prefixes struct {
	slots bart.Table[int]
}

// NewPrefixes merges lists: of several that claim an address the one with the
// longer prefix has it, and at the same prefix the one that comes first.
func NewPrefixes(lists []PrefixList) *Prefixes {
	claims := make([]*bart.Table[bool], len(lists))
	for i, l := range lists {
		claims[i] = new(bart.Table[bool])
		for _, p := range l.Prefixes {
			claims[i].Insert(p.Prefix, !p.Negated)
		}
	}
	out := new(Prefixes)
	for _, l := range lists {
		for _, p := range l.Prefixes {
			if _, done := out.slots.Get(p.Prefix); !done {
				out.slots.Insert(p.Prefix, slotOf(lists, claims, p.Prefix))
			}
		}
	}
	return out
}

// slotOf returns the slot of the addresses whose longest match in all lists is
// this prefix.
func slotOf(lists []PrefixList, claims []*bart.Table[bool], prefix netip.Prefix) int {
	slot, longest := Outside, -1
	for i, c := range claims {
		if match, claimed, ok := c.LookupPrefixLPM(prefix); ok && claimed && match.Bits() > longest {
			slot, longest = lists[i].Slot, match.Bits()
		}
	}
	return slot
}

// Slot returns the slot of a resolver, or Outside.
func (p *Prefixes) Slot(resolver netip.Addr) int {
	if slot, ok := p.slots.Lookup(resolver); ok {
		return slot
	}
	return Outside
}
