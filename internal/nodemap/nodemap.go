// Package nodemap is the map of a DNS-B as nodes have it: which nodes serve a
// client address, best first. It says what DNS-B decides by, and not what it
// decides, since nodes come and go faster than the map changes: who reads it
// leaves out the nodes that it knows to be gone.
//
// The map of a cut travels as the DNS zone _map.CUT (write.go, read.go), and
// becomes a Table (table.go), which queries read. With it come the latencies that
// nodes measured of resolver sites (site.go).
package nodemap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Label is the label below a cut that the zone of its map has.
const Label = "_map"

// ZoneOf returns the zone with the map of a cut.
func ZoneOf(cut string) string { return Label + "." + cut }

// CutOf returns the cut of a name that is the zone of a map or below it, in lower
// case, and whether it is one.
func CutOf(name string) (cut string, ok bool) {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if rest, found := strings.CutPrefix(name[off:], Label+"."); found {
			return rest, rest != ""
		}
	}
	return "", false
}

// Named is a node that the map names, and by which layer of DNS-B.
type Named struct {
	Node  string `json:"node"`
	Layer string `json:"layer"`
}

// The layers that name nodes for prefixes that somebody wrote down or nodes
// measured. They come before all others.
const (
	LayerPin          = "pin"
	LayerOperator     = "operator"
	LayerRegistration = "registration"
	LayerSurvey       = "survey"
)

func byPrefix(layer string) bool {
	return layer == LayerPin || layer == LayerOperator || layer == LayerRegistration || layer == LayerSurvey
}

// List is the nodes for some addresses, best first, each of them once. An empty
// one leaves the choice to rendezvous hashing over all nodes of the cut.
type List []Named

// text returns a list as words: a layer, '=' and the nodes that it names.
func (l List) text() string { return string(l.appendText(nil)) }

func (l List) appendText(b []byte) []byte {
	for i, n := range l {
		switch {
		case i > 0 && l[i-1].Layer == n.Layer:
			b = append(b, ',')
		case i > 0:
			b = append(b, ' ')
			fallthrough
		default:
			b = append(append(b, n.Layer...), '=')
		}
		b = append(b, n.Node...)
	}
	return b
}

// parseList reads what text returns.
func parseList(text string) (List, error) {
	var l List
	for word := range strings.FieldsSeq(text) {
		layer, nodes, ok := strings.Cut(word, "=")
		if !ok || !registration.IsLabel(layer) {
			return nil, fmt.Errorf("invalid word '%s': expected a layer, '=' and nodes", word)
		}
		for node := range strings.SplitSeq(nodes, ",") {
			if !registration.IsLabel(node) {
				return nil, fmt.Errorf("invalid node '%s'", node)
			}
			if slices.ContainsFunc(l, func(n Named) bool { return n.Node == node }) {
				return nil, fmt.Errorf("node %s is listed twice", node)
			}
			if len(l) == maxNodes {
				return nil, fmt.Errorf("list of more than %d nodes", maxNodes)
			}
			l = append(l, Named{node, layer})
		}
	}
	return l, nil
}

// The zone of a map: its records, and the words in them. docs/map.md describes it.
const (
	version   = "v=1"   // first word of the TXT record at the apex
	nodeLabel = "_node" // owner of one TXT record for each node of the cut
	listLabel = "_list" // N._list has list N: its nodes in TXT, and its prefixes in APL
	siteLabel = "_site" // owner of one TXT record for each site that nodes measured
	// routerLabel is the owner of one TXT record for each of these sites whose latencies
	// are those of a router on the way.
	routerLabel = "_router"
	recordTTL   = 0 // nobody should cache a map
)

// Limits of what is read.
const (
	// MaxBytes bounds a transfer: one of a million prefixes takes 7 MB, and 100,000
	// sites take 13 MB.
	MaxBytes    = 48 << 20
	maxPrefixes = 4_000_000
	maxLists    = 500_000
	maxNodes    = 20_000
	// MaxSites is how many sites a map has.
	MaxSites = 100_000
	// MaxLatencies is how many nodes measured one site.
	MaxLatencies = 16
	// maxRTT is the largest latency, in milliseconds.
	maxRTT = 10_000
)
