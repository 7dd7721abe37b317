package sitesurvey

import (
	"iter"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// Table is what nodes measured of sites. It is immutable; the next one shares what
// has not changed.
type Table struct {
	Names []string // of the nodes; Measurement.Node is an index
	sites *bart.Table[*Site]
}

func newTable() *Table { return &Table{sites: new(bart.Table[*Site])} }

// Site is what is known of the resolvers in a /24 or /48.
type Site struct {
	// Measured are the latencies that nodes measured, best first: not empty, each
	// node once. The first one is replaced only by one that is clearly better.
	Measured []Measurement
	// Routed tells that the latencies are those of a router on the way, as the
	// resolvers are silent.
	Routed bool

	seen *atomic.Uint32 // hours since 1970: when a resolver of the site asked last
}

// Measurement is the latency between a node and a site.
type Measurement struct {
	Node uint16 // index of Table.Names
	RTT  time.Duration
	At   time.Time // to the second
}

// Milliseconds returns the latency in milliseconds.
func (m Measurement) Milliseconds() float64 { return float64(m.RTT) / float64(time.Millisecond) }

// Lookup returns what is known of the site of an address, nil if nothing is.
func (t *Table) Lookup(addr netip.Addr) *Site {
	site, _ := t.sites.Lookup(addr)
	return site
}

// Over returns what is known of the site that covers a prefix, nil if nothing is.
func (t *Table) Over(prefix netip.Prefix) *Site {
	site, _ := t.sites.LookupPrefix(prefix)
	return site
}

// Get returns what is known of a site, nil if nothing is.
func (t *Table) Get(prefix netip.Prefix) *Site {
	site, _ := t.sites.Get(prefix)
	return site
}

// Size returns the number of sites.
func (t *Table) Size() int { return t.sites.Size() }

// All returns all sites, in the order of addresses.
func (t *Table) All() iter.Seq2[netip.Prefix, *Site] { return t.sites.AllSorted() }

// with returns a table in which a site is another one, or is not, if that is nil.
func (t *Table) with(prefix netip.Prefix, site *Site, names []string) *Table {
	if site == nil {
		return &Table{names, t.sites.DeletePersist(prefix)}
	}
	return &Table{names, t.sites.InsertPersist(prefix, site)}
}
