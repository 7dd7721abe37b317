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

// writtenDown reports whether the first node is one that somebody named for a prefix:
// the operator, or itself.
func (c *Candidates) writtenDown() bool {
	return len(c.Layers) > 0 && (c.Layers[0] == LayerPin || c.Layers[0] == LayerOperator || c.Layers[0] == LayerRegistration)
}

// Table tells which nodes serve an address. It is immutable. The addresses of a
// family are divided into blocks, which follow one another and have one list each;
// neighbors have different lists, or are of different sites.
type Table struct {
	Names     []string // of the nodes of the cut, sorted; a NodeID is an index
	Prefixes  int      // that the map had
	Measuring []string // nodes that measured sites, sorted; of any cut

	lists  []Candidates
	first4 []ipnum.V4 // of the blocks, sorted; the first one is 0
	list4  []uint32   // of the blocks: an index of lists
	first6 []ipnum.V6
	list6  []uint32

	sites sites
	site4 []int32 // of the blocks: a number, or NoSite; nil: there are no sites
	site6 []int32
}

// Lookup returns the nodes for an address, and the length of the largest prefix
// with the address whose addresses all have these nodes. Such prefixes do not
// overlap. All addresses in one are of one site, or of none.
func (t *Table) Lookup(addr netip.Addr) (c *Candidates, length int) {
	c, _, length = t.LookupSite(addr)
	return c, length
}

// LookupSite is Lookup. It also returns the number of the site of the address, or
// NoSite.
func (t *Table) LookupSite(addr netip.Addr) (c *Candidates, site, length int) {
	site = NoSite
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
		if low < len(t.site4) {
			site = int(t.site4[low])
		}
		return &t.lists[t.list4[low]], site, length
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
	if low < len(t.site6) {
		site = int(t.site6[low])
	}
	return &t.lists[t.list6[low]], site, length
}

// Blocks returns the number of blocks in both families.
func (t *Table) Blocks() int { return len(t.first4) + len(t.first6) }
