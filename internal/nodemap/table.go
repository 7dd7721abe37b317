package nodemap

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
)

// NodeID is the number of a node in one Table.
type NodeID int32

// Candidates are a List in a Table, without the nodes that do not serve the cut.
type Candidates struct {
	Nodes    []NodeID
	Layers   []string // of Nodes
	ByPrefix int      // how many of Nodes, the first ones, are named for a prefix
}

// Table tells which nodes serve an address. It is immutable. The addresses of a
// family are divided into blocks, which follow one another and have one list each;
// neighbors have different lists.
type Table struct {
	Names    []string // of the nodes of the cut, sorted; a NodeID is an index
	Prefixes int      // that the map had

	lists  []Candidates
	first4 []ipnum.V4 // of the blocks, sorted; the first one is 0
	list4  []uint32   // of the blocks: an index of lists
	first6 []ipnum.V6
	list6  []uint32
}

// Lookup returns the nodes for an address, and the length of the largest prefix
// with the address whose addresses all have these nodes. Such prefixes do not
// overlap.
func (t *Table) Lookup(addr netip.Addr) (c *Candidates, length int) {
	if addr.Is4() {
		a := ipnum.FromV4(addr)
		low, high := 0, len(t.first4)
		for high-low > 1 {
			if middle := int(uint(low+high) >> 1); t.first4[middle] <= a { // #nosec G115 -- an index
				low = middle
			} else {
				high = middle
			}
		}
		if low > 0 {
			length = 1 + a.Common(t.first4[low]-1)
		}
		if high < len(t.first4) {
			length = max(length, 1+a.Common(t.first4[high]))
		}
		return &t.lists[t.list4[low]], length
	}
	a := ipnum.FromV6(addr)
	low, high := 0, len(t.first6)
	for high-low > 1 {
		if middle := int(uint(low+high) >> 1); !a.Less(t.first6[middle]) { // #nosec G115 -- an index
			low = middle
		} else {
			high = middle
		}
	}
	if low > 0 {
		length = 1 + a.Common(t.first6[low].Previous())
	}
	if high < len(t.first6) {
		length = max(length, 1+a.Common(t.first6[high]))
	}
	return &t.lists[t.list6[low]], length
}

// Blocks returns the number of blocks in both families.
func (t *Table) Blocks() int { return len(t.first4) + len(t.first6) }
