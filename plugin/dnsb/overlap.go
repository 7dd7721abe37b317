package dnsb

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"
)

// Overlap is a prefix that a node registered, and that others registered too or
// registered one around it. The longest prefix wins, and at the same prefix the
// first node by name.
type Overlap struct {
	Prefix netip.Prefix `json:"prefix"`
	Nodes  []string     `json:"nodes"` // by name
}

// overlaps are those of one table.
type overlaps struct {
	of    *bart.Table[*entry]
	total int
	list  []Overlap // the first ones, in the order of addresses
}

const (
	// overlapEvery is how often overlaps are looked for when the table has
	// changed: it takes a walk through all of it, a fifth of a second for a million
	// prefixes, which neither queries nor registrations wait for.
	overlapEvery = 30 * time.Second
	// maxOverlaps bounds the list.
	maxOverlaps = 1000
)

// Overlaps returns the prefixes that several nodes registered, the first thousand,
// and how many there are. Both are up to half a minute old.
func (d *DNSB) Overlaps() ([]Overlap, int) {
	o := d.overlaps.Load()
	if o == nil {
		return nil, 0
	}
	return slices.Clone(o.list), o.total
}

// watchOverlaps counts overlaps, and logs their number when it has changed, until
// ctx ends.
func (d *DNSB) watchOverlaps(ctx context.Context) {
	ticker := time.NewTicker(overlapEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s, before := d.snapshot.Load(), d.overlaps.Load()
		if before != nil && before.of == s.prefixes {
			continue
		}
		o := s.findOverlaps()
		d.overlaps.Store(o)
		switch {
		case before == nil && o.total == 0, before != nil && before.total == o.total:
		case o.total == 0:
			log.Infof("No two nodes register overlapping prefixes any more")
		default:
			log.Warningf("%d prefixes are registered by several nodes, or inside those of another node, such as %s by %s", o.total, o.list[0].Prefix, o.list[0].Nodes)
		}
	}
}

// findOverlaps walks through the table, in which prefixes come behind those that
// cover them.
func (s *snapshot) findOverlaps() *overlaps {
	type around struct {
		prefix netip.Prefix
		entry  *entry
	}
	o := &overlaps{of: s.prefixes}
	var (
		path []around
		ids  []nodeID
	)
	for prefix, e := range s.prefixes.AllSorted() {
		for len(path) > 0 && !path[len(path)-1].prefix.Overlaps(prefix) {
			path = path[:len(path)-1]
		}
		if !e.Registered() {
			continue
		}
		path = append(path, around{prefix, e})
		ids = ids[:0]
		for _, a := range path {
			for _, claim := range a.entry.Claims {
				if !claim.Operator && !claim.Negated && !slices.Contains(ids, claim.Node) {
					ids = append(ids, claim.Node)
				}
			}
		}
		if len(ids) < 2 {
			continue
		}
		if o.total++; len(o.list) < maxOverlaps {
			nodes := make([]string, len(ids))
			for i, id := range ids {
				nodes[i] = s.names[id]
			}
			slices.Sort(nodes)
			o.list = append(o.list, Overlap{prefix, nodes})
		}
	}
	return o
}
