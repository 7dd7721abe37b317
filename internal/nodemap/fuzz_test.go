package nodemap_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
)

// FuzzReader checks that a zone, records one after the other in wire form, is an
// error or a table: with known nodes for each address, and the same nodes for all
// addresses in the block around it.
func FuzzReader(f *testing.F) {
	lists := nodemap.NewLists(nodemaptest.InOrder(map[netip.Prefix]nodemap.List{
		netip.MustParsePrefix("0.0.0.0/0"): nodemaptest.List("default=lon1"), netip.MustParsePrefix("192.0.2.0/25"): nodemaptest.List("pin=par1", "default=lon1"),
		netip.MustParsePrefix("2001:db8::/32"): nil, netip.MustParsePrefix("255.255.255.255/32"): nodemaptest.List("operator=par1"),
	})).WithSites(slices.Values([]nodemap.Site{
		{netip.MustParsePrefix("192.0.0.0/16"), []nodemap.Measurement{{"par1", time.Millisecond, time.Unix(100, 0)}, {"fra1", time.Second, time.Unix(3, 0)}}, false},
		{netip.MustParsePrefix("2001:db8:1::/48"), []nodemap.Measurement{{"lon1", time.Millisecond, time.Unix(100, 0)}}, true},
	}))
	soa := nodemap.SOA(cut, ".", 1)
	var zone []byte
	for _, rr := range append(append([]dns.RR{soa}, slices.Collect(lists.Records(cut, ".", []string{"par1", "lon1"}))...), soa) {
		b := make([]byte, dns.Len(rr)+300)
		n, err := dns.PackRR(rr, b, 0, nil, false)
		if err != nil {
			f.Fatal(err)
		}
		zone = append(zone, b[:n]...)
	}
	f.Add(zone, []byte{192, 0, 2, 1})
	f.Add(zone[:len(zone)-10], []byte{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, zone, address []byte) {
		r := nodemap.NewReader(cut)
		for off := 0; off < len(zone); {
			rr, next, err := dns.UnpackRR(zone, off)
			if err != nil || next <= off || r.Add(rr) != nil {
				return
			}
			off = next
		}
		table, err := r.Table()
		if err != nil {
			return
		}
		addr, ok := netip.AddrFromSlice(address)
		if !ok {
			return
		}
		addr = addr.Unmap()
		c, site, length := table.LookupSite(addr)
		if site != nodemap.NoSite {
			prefix, latencies := table.Site(site)
			if len(latencies) == 0 || !prefix.Contains(addr) {
				t.Errorf("Expected latencies of a site with %s, got %v of %s", addr, latencies, prefix)
			}
		}
		for _, id := range c.Nodes {
			if table.Names[id] == "" {
				t.Errorf("Expected a name of node %d", id)
			}
		}
		block, err := addr.Prefix(length)
		if err != nil {
			t.Fatalf("Expected a prefix around %s, got length %d", addr, length)
		}
		for _, other := range []netip.Addr{block.Addr(), last(block)} {
			if got, at, l := table.LookupSite(other); got != c || at != site || l > length {
				t.Errorf("Expected the same nodes and site for %s as for %s in %s", other, addr, block)
			}
		}
	})
}
