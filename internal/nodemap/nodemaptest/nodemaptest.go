// Package nodemaptest makes maps for tests.
package nodemaptest

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
)

// List makes a list of words LAYER=NODE.
func List(words ...string) (l nodemap.List) {
	for _, word := range words {
		layer, node, _ := strings.Cut(word, "=")
		l = append(l, nodemap.Named{Node: node, Layer: layer})
	}
	return l
}

// InOrder returns prefixes and their lists as nodemap.NewLists wants them.
func InOrder(lists map[netip.Prefix]nodemap.List) iter.Seq2[netip.Prefix, nodemap.List] {
	return func(yield func(netip.Prefix, nodemap.List) bool) {
		for _, prefix := range slices.SortedFunc(maps.Keys(lists), netip.Prefix.Compare) {
			if !yield(prefix, lists[prefix]) {
				return
			}
		}
	}
}

// Read returns the Table of the map of a cut with serial 7. All records were packed
// and unpacked.
func Read(tb testing.TB, cut string, lists *nodemap.Lists, nodes ...string) (*nodemap.Table, error) {
	tb.Helper()
	const nameserver = "b1.gslb.example.org."
	r := nodemap.NewReader(cut)
	soa := nodemap.SOA(cut, nameserver, 7)
	records := append([]dns.RR{soa}, slices.Collect(lists.Records(cut, nameserver, nodes))...)
	for _, rr := range append(records, soa) {
		b := make([]byte, dns.Len(rr)+300)
		n, err := dns.PackRR(rr, b, 0, nil, false)
		if err != nil {
			tb.Fatal(err)
		}
		got, _, err := dns.UnpackRR(b[:n], 0)
		if err != nil {
			tb.Fatal(err)
		}
		if err := r.Add(got); err != nil {
			return nil, err
		}
	}
	if r.Serial != 7 {
		tb.Errorf("Expected serial 7, got %d", r.Serial)
	}
	return r.Table()
}

// Table returns the map of words LAYER=NODE by prefix, in which all nodes serve the
// cut.
func Table(tb testing.TB, words map[string]string) *nodemap.Table {
	tb.Helper()
	return WithSites(tb, words, nil)
}

// MeasuredAt is when the sites of WithSites were measured.
var MeasuredAt = time.Unix(1769772003, 0)

// WithSites is Table for a map with sites: of words NODE=MILLISECONDS, best first, by
// prefix. The word "router" says that they are those of a router on the way.
func WithSites(tb testing.TB, words, measured map[string]string) *nodemap.Table {
	tb.Helper()
	lists := make(map[netip.Prefix]nodemap.List, len(words))
	nodes := make(map[string]bool)
	for prefix, text := range words {
		list := List(strings.Fields(text)...)
		lists[netip.MustParsePrefix(prefix)] = list
		for _, n := range list {
			nodes[n.Node] = true
		}
	}
	sites := make([]nodemap.Site, 0, len(measured))
	for _, prefix := range slices.Sorted(maps.Keys(measured)) {
		s := nodemap.Site{Prefix: netip.MustParsePrefix(prefix)}
		for word := range strings.FieldsSeq(measured[prefix]) {
			if word == "router" {
				s.Routed = true
				continue
			}
			node, ms, _ := strings.Cut(word, "=")
			rtt, err := time.ParseDuration(ms + "ms")
			if err != nil {
				tb.Fatal(err)
			}
			s.Measured = append(s.Measured, nodemap.Measurement{Node: node, RTT: rtt, At: MeasuredAt})
		}
		sites = append(sites, s)
	}
	t, err := Read(tb, "svc.gslb.example.org.", nodemap.NewLists(InOrder(lists)).WithSites(slices.Values(sites)), slices.Sorted(maps.Keys(nodes))...)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}
