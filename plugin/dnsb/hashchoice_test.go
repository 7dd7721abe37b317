package dnsb

import (
	"fmt"
	"sync"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// TestChoicesAreThoseOfHashing checks that what is remembered of sites is what
// hashing chooses, also while several queries remember.
func TestChoicesAreThoseOfHashing(t *testing.T) {
	from := resolvers()[:3*choiceSlots]
	for _, n := range []int{1, fewNodes - 1, fewNodes, 1000, choiceSlots - 1, choiceSlots} {
		m := new(members)
		for i := range n {
			m.hashes = append(m.hashes, resolver.Hash(fmt.Sprintf("n%d", i)))
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range 2 {
					for _, addr := range from[:min(len(from), 4_000_000/n)] {
						site := resolver.SiteOf(addr).Hash()
						if got, want := m.hashed(site), m.highest(site); got != want {
							t.Errorf("%d nodes, %s: expected node %d, got %d", n, addr, want, got)
						}
					}
				}
			})
		}
		wg.Wait()
		if known := m.choices.Load(); (known != nil) != (n >= fewNodes && n < choiceSlots) {
			t.Errorf("%d nodes: expected choices to be remembered of many nodes only", n)
		}
	}
}

// TestHashChoosesEligible checks that the choice of a site falls on another node
// while its node is not eligible, and on it again afterwards.
func TestHashChoosesEligible(t *testing.T) {
	const nodes = 100
	p := newFakeProber()
	d := started(t, cutLines(1, nodes), func() prober { return p })
	from := resolvers()[:500]
	choose := func() (ids []nodeID) {
		t.Helper()
		s := d.snapshot.Load()
		for _, addr := range from {
			found, last, ok := s.firstEligible(s.cuts["c0."+testZone], addr)
			if !ok || last || found.layer != layerHash {
				t.Fatalf("Expected a live node by the hash of the site, got %+v", found)
			}
			ids = append(ids, found.id)
		}
		return ids
	}
	before := choose()
	dead := before[0]
	addr := d.snapshot.Load().nodes[dead].Addresses[0].String()
	p.say(addr, silent)
	d.refresh()
	for range 2 { // the second time by what is remembered
		for i, id := range choose() {
			if id == dead || before[i] != dead && id != before[i] {
				t.Fatalf("Expected only the sites of the dead node to change, got node %d for node %d", id, before[i])
			}
		}
	}
	p.say(addr, answering)
	d.refresh()
	for i, id := range choose() {
		if id != before[i] {
			t.Fatalf("Expected node %d again, got node %d", before[i], id)
		}
	}
}
