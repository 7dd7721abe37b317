package peerview

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// A resolver belongs to this node, to a principal or to no known node. Slots
// number the nodes; those of principals are above Own.
const (
	Outside = -1 // of no known node
	Own     = 0  // of this node
)

// Set is the views that a node follows now as a deputy, and for whom. It is
// immutable.
type Set struct {
	Views []*View // by slot; nil where there is none

	fetched bool // now has the map of DNS-B, not only what this node registers
	now     Slots
	former  []Slots // of previous maps, oldest first, while resolvers hold referrals that follow them
}

// Slots tell by a map to which slot an address belongs. The zero value has no map.
type Slots struct {
	Map   *nodemap.Table
	Nodes []int // the slots of the nodes of the map, by NodeID; Outside if not known
}

// NewSlots returns the Slots of a map, which may be nil. slot returns that of a
// node.
func NewSlots(m *nodemap.Table, slot func(node string) int) Slots {
	if m == nil {
		return Slots{}
	}
	s := Slots{Map: m, Nodes: make([]int, len(m.Names))}
	for id, node := range m.Names {
		s.Nodes[id] = slot(node)
	}
	return s
}

// of returns the slot of the first known node that the map names for an address,
// whether it names it for a prefix, and the site of the address.
func (s *Slots) of(addr netip.Addr) (slot int, byPrefix bool, site int) {
	candidates, site, _ := s.Map.LookupSite(addr)
	slot, byPrefix = s.First(candidates)
	return slot, byPrefix, site
}

// First returns the slot of the first known node among candidates, or Outside, and
// whether it is named for a prefix.
func (s *Slots) First(candidates *nodemap.Candidates) (slot int, byPrefix bool) {
	for i, id := range candidates.Nodes {
		if slot := s.Nodes[id]; slot != Outside {
			return slot, i < candidates.ByPrefix
		}
	}
	return Outside, false
}

// SubnetSlot returns the slot of the first known node that the map of DNS-B names
// for a client subnet, or Outside, its site, or nodemap.NoSite, and the length of the
// largest prefix with the address for which the map names the same nodes and which is
// of one site or none. Where it names none, as DNS-B
// hashes, and as long as there is no map, that is a site at least.
//
// Where the map names nodes for no prefix, a former map counts, as for resolvers: a
// node that is restarted withdraws its prefixes, and has them again in a moment. The
// length depends on the maps, and not on which nodes are known: resolvers must not
// hold answers for prefixes that overlap.
func (s *Set) SubnetSlot(addr netip.Addr) (slot, site, length int) {
	hashed := resolver.SiteLength(addr)
	if !s.fetched {
		return Outside, nodemap.NoSite, hashed
	}
	candidates, site, length := s.now.Map.LookupSite(addr)
	slot, _ = s.now.First(candidates)
	if candidates.ByPrefix > 0 {
		return slot, site, length
	}
	if len(candidates.Nodes) == 0 {
		length = max(length, hashed)
	}
	for i := len(s.former) - 1; i >= 0; i-- {
		former, l := s.former[i].Map.Lookup(addr)
		length = max(length, l)
		if former.ByPrefix > 0 {
			if known, byPrefix := s.former[i].First(former); byPrefix {
				slot, site = known, nodemap.NoSite
			}
			break
		}
	}
	return slot, site, length
}

// Slots returns the slots of the nodes of the map of DNS-B. They have no map as long
// as there is none.
func (s *Set) Slots() Slots {
	if !s.fetched {
		return Slots{}
	}
	return s.now
}

// Named returns the nodes that the map names for an address, best first, and the
// largest prefix around it with the same nodes. Without a map of DNS-B the prefix
// is invalid.
func (s *Set) Named(addr netip.Addr) (netip.Prefix, []nodemap.Named) {
	named := []nodemap.Named{}
	if !s.fetched || !addr.IsValid() {
		return netip.Prefix{}, named
	}
	c, length := s.now.Map.Lookup(addr)
	for i, id := range c.Nodes {
		named = append(named, nodemap.Named{Node: s.now.Map.Names[id], Layer: c.Layers[i]})
	}
	return netip.PrefixFrom(addr, length).Masked(), named
}

// NewSet returns the set of views for whose resolvers the slots are.
func NewSet(views []*View, now Slots) *Set {
	return &Set{Views: views, fetched: now.Map != nil, now: now}
}

// Slot returns the slot of a resolver, or Outside, and its site, or nodemap.NoSite. It
// needs the address only if there is a map.
//
// A resolver for whose prefix the map names no known node any more is that of the
// node which a former map names: it may hold a referral by that, and what this node
// measured for it is closer to the truth than what another one measures. So it has no
// site then.
func (s *Set) Slot(from func() netip.Addr) (slot, site int) {
	if s.now.Map == nil && s.former == nil {
		return Outside, nodemap.NoSite
	}
	addr := from()
	slot, site = Outside, nodemap.NoSite
	if s.now.Map != nil {
		var byPrefix bool
		if slot, byPrefix, site = s.now.of(addr); byPrefix {
			return slot, site
		}
	}
	for i := len(s.former) - 1; i >= 0; i-- {
		if former, byPrefix, _ := s.former[i].of(addr); byPrefix {
			return former, nodemap.NoSite
		}
	}
	return slot, site
}
