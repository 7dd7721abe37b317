package prefixmap

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

// Overlap is a registered prefix that several nodes registered, or that is inside
// a prefix of another node. The longest prefix wins, and at the same prefix the
// first node by name.
type Overlap struct {
	Prefix netip.Prefix `json:"prefix"`
	Nodes  []string     `json:"nodes"` // by name
}

// Overlaps returns the overlaps of a table, the first ones in the order of
// addresses up to a limit, and their total number. names are those of the nodes,
// by NodeID. It walks through the whole table.
func Overlaps(t *Table, names []string, limit int) (list []Overlap, total int) {
	var (
		covering []registered
		ids      []NodeID
		pacer    pacing.Pacer
	)
	for prefix, e := range t.AllSorted() { // a prefix comes before those in it
		pacer.Step()
		for len(covering) > 0 && !covering[len(covering)-1].prefix.Overlaps(prefix) {
			covering = covering[:len(covering)-1]
		}
		if !e.Registered() {
			continue
		}
		covering = append(covering, registered{prefix, e})
		if ids = nodesOf(covering, ids[:0]); len(ids) < 2 {
			continue
		}
		if total++; len(list) < limit {
			nodes := make([]string, len(ids))
			for i, id := range ids {
				nodes[i] = names[id]
			}
			slices.Sort(nodes)
			list = append(list, Overlap{prefix, nodes})
		}
	}
	return list, total
}

// registered is a prefix that a node registered.
type registered struct {
	prefix netip.Prefix
	entry  *Entry
}

// nodesOf appends the nodes that registered one of the prefixes to ids, each once.
func nodesOf(prefixes []registered, ids []NodeID) []NodeID {
	for _, p := range prefixes {
		for _, c := range p.entry.Claims {
			if !c.Operator && !c.Negated && !slices.Contains(ids, c.Node) {
				ids = append(ids, c.Node)
			}
		}
	}
	return ids
}
