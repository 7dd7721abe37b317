package nodemap_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
)

// siteText returns a site of a table as words.
func siteText(t *nodemap.Table, site int) string {
	if site == nodemap.NoSite {
		return ""
	}
	prefix, latencies := t.Site(site)
	words := []string{prefix.String()}
	for _, l := range latencies {
		words = append(words, fmt.Sprintf("%s=%.1f@%d", t.Measuring[l.Node], l.RTT, l.At))
	}
	if t.Routed(site) {
		words = append(words, "by a router")
	}
	return strings.Join(words, " ")
}

// records returns the zone of a map as text.
func records(lists *nodemap.Lists, nodes ...string) (lines []string) {
	for rr := range lists.Records(cut, "b1.gslb.example.org.", nodes) {
		if _, ok := rr.(*dns.TXT); ok {
			lines = append(lines, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	return lines
}

func TestSitesTravel(t *testing.T) {
	at := time.Unix(1769772003, 0)
	sites := []nodemap.Site{
		{netip.MustParsePrefix("198.51.100.0/24"), []nodemap.Measurement{{"par1", 12340 * time.Microsecond, at}, {"lon1", 20 * time.Millisecond, at.Add(-59 * time.Second)}, {"other", time.Second, at.Add(-2 * time.Hour)}}, false},
		{netip.MustParsePrefix("203.0.113.0/24"), nil, true}, // not measured
		{netip.MustParsePrefix("2001:db8:1::/48"), []nodemap.Measurement{{"lon1", time.Nanosecond, at}}, true},
	}
	lists := nodemap.NewLists(nodemaptest.InOrder(map[netip.Prefix]nodemap.List{netip.MustParsePrefix("0.0.0.0/0"): nodemaptest.List("default=lon1")})).WithSites(slices.Values(sites))
	lines := records(lists, "par1", "lon1")
	for _, want := range []string{
		`_site._map.svc.gslb.example.org. 0 IN TXT "198.51.100.0/24 1769772003 par1=12.3 lon1=20.0 other=1000.0,120"`,
		`_site._map.svc.gslb.example.org. 0 IN TXT "2001:db8:1::/48 1769772003 lon1=0.1"`,
		`_router._map.svc.gslb.example.org. 0 IN TXT "2001:db8:1::/48"`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("Expected %s in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	table, err := nodemaptest.Read(t, cut, lists, "par1", "lon1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		addr, want string
		length     int
	}{
		{"198.51.100.7", "198.51.100.0/24 par1=12.3@1769772003 lon1=20.0@1769772003 other=1000.0@1769764803", 24},
		{"198.51.101.7", "", 24},
		{"198.51.98.7", "", 22},
		{"203.0.113.7", "", 5},
		{"2001:db8:1:ff::1", "2001:db8:1::/48 lon1=0.1@1769772003 by a router", 48},
		{"2001:db8::1", "", 48},
	} {
		c, site, length := table.LookupSite(netip.MustParseAddr(tc.addr))
		if got := siteText(table, site); got != tc.want || length != tc.length {
			t.Errorf("Expected %q for %s in a /%d, got %q in a /%d", tc.want, tc.addr, tc.length, got, length)
		}
		if four := netip.MustParseAddr(tc.addr).Is4(); text(table, c) != "default=lon1" && four {
			t.Errorf("Expected the nodes of the list around %s, got %q", tc.addr, text(table, c))
		}
	}
}

// TestOldReadersIgnoreSites checks that all of a site is in records whose names a
// reader of an earlier version does not know.
func TestOldReadersIgnoreSites(t *testing.T) {
	lists := nodemap.NewLists(nodemaptest.InOrder(map[netip.Prefix]nodemap.List{netip.MustParsePrefix("198.51.100.0/24"): nodemaptest.List("survey=par1", "default=lon1")}))
	site := nodemap.Site{netip.MustParsePrefix("198.51.100.0/24"), []nodemap.Measurement{{"par1", time.Millisecond, time.Unix(1, 0)}}, true}
	before, after := records(lists, "par1"), records(lists.WithSites(slices.Values([]nodemap.Site{site})), "par1")
	after = slices.DeleteFunc(after, func(line string) bool {
		return strings.HasPrefix(line, "_site._map.") || strings.HasPrefix(line, "_router._map.")
	})
	if !slices.Equal(before, after) {
		t.Errorf("Expected no other records than\n%s\ngot\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func TestSitesAreBounded(t *testing.T) {
	var many []nodemap.Measurement
	for i := range nodemap.MaxLatencies + 5 {
		many = append(many, nodemap.Measurement{fmt.Sprintf("n%d", i), time.Millisecond, time.Unix(9, 0)})
	}
	sites := func(yield func(nodemap.Site) bool) {
		for i := range nodemap.MaxSites + 10 {
			if !yield(nodemap.Site{netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32), many, false}) {
				return
			}
		}
	}
	table, err := nodemaptest.Read(t, cut, new(nodemap.Lists).WithSites(sites))
	if err != nil || table.Sites() != nodemap.MaxSites {
		t.Fatalf("Expected %d sites, got %d: %v", nodemap.MaxSites, table.Sites(), err)
	}
	if _, l := table.Site(0); len(l) != nodemap.MaxLatencies {
		t.Errorf("Expected %d latencies, got %d", nodemap.MaxLatencies, len(l))
	}
}

func TestReaderRefusesSites(t *testing.T) {
	for text, want := range map[string]string{
		"198.51.100.0/24 100 par1=1.5":                            "",
		"198.51.100.0/24 100 par1=1.5 lon1=10000,1":               "",
		"198.51.100.1/24 100 par1=1.5":                            "invalid prefix '198.51.100.1/24' of a site",
		"par1 100 par1=1.5":                                       "invalid prefix 'par1'",
		"198.51.100.0/24 par1=1.5":                                "site 198.51.100.0/24: invalid time 'par1=1.5'",
		"198.51.100.0/24 100":                                     "no latency",
		"198.51.100.0/24 100 par1":                                "invalid latency 'par1'",
		"198.51.100.0/24 100 par1=NaN":                            "invalid latency 'par1=NaN'",
		"198.51.100.0/24 100 par1=Inf":                            "invalid latency",
		"198.51.100.0/24 100 par1=0":                              "invalid latency",
		"198.51.100.0/24 100 par1=-1":                             "invalid latency",
		"198.51.100.0/24 100 par1=10001":                          "invalid latency",
		"198.51.100.0/24 100 =1":                                  "invalid latency",
		"198.51.100.0/24 100 par1=1,2":                            "invalid time in 'par1=1,2'",
		"198.51.100.0/24 100 par1=1,x":                            "invalid time in",
		"198.51.100.0/24 100 par1=1 par1=2":                       "a node is listed twice",
		"198.51.100.0/24 100" + strings.Repeat(" n%d=1", 17):      "more than 16 nodes",
		"198.51.96.0/20 100 par1=1;198.51.100.0/24 100 par1=1":    "sites overlap: 198.51.96.0/20 and 198.51.100.0/24",
		"198.51.100.0/24 100 par1=1;198.51.100.0/24 100 lon1=1":   "sites overlap",
		"198.51.100.0/24 4294967296 par1=1":                       "invalid time '4294967296'",
		"::ffff:198.51.100.0/120 100 par1=1":                      "invalid prefix",
		"198.51.100.0/24 100 par1=1;2001:db8:1::/48 100 par1=1":   "",
		"198.51.100.0/24 100 par1=1 later":                        "invalid latency 'later'",
		"198.51.100.0/24 4294967295 par1=1,67108864 lon1=1":       "invalid time",
		"router 198.51.100.0/24;198.51.100.0/24 1 par1=1":         "",
		"198.51.100.0/24 1 par1=1;router 198.51.100.0/24 later":   "",
		"198.51.100.0/24 1 par1=1;router 203.0.113.0/24":          "",
		"198.51.100.0/24 1 par1=1;router 198.51.100.1/24":         "invalid prefix '198.51.100.1/24'",
		"198.51.100.0/24 1 par1=1;router":                         "invalid prefix 'router'",
		"255.255.255.0/24 1 par1=1;0.0.0.0/24 2 par1=1":           "",
		"ffff:ffff:ffff::/48 1 par1=1;::/48 2 par1=1;::/48 1 a=1": "sites overlap",
	} {
		r := nodemap.NewReader(cut)
		var err error
		add := func(line string) {
			rr, parseErr := dns.NewRR(line)
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			if err == nil {
				err = r.Add(rr)
			}
		}
		for i := range strings.Count(text, "%d") {
			text = strings.Replace(text, "%d", fmt.Sprint(i), 1)
		}
		soa := "_map." + cut + " 0 IN SOA b1.example.org. hostmaster.example.org. 7 1 1 1 0"
		add(soa)
		add("_map." + cut + ` 0 IN TXT "v=1"`)
		for site := range strings.SplitSeq(text, ";") {
			owner := "_site"
			if prefix, ok := strings.CutPrefix(site, "router "); ok {
				owner, site = "_router", prefix
			}
			add(owner + "._map." + cut + ` 0 IN TXT "` + site + `"`)
		}
		add(soa)
		if err == nil {
			_, err = r.Table()
		}
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: Expected %q, got %q", text, want, got)
		}
	}
}

// TestBlocksOfSitesMatchNaiveSearch checks that the largest aligned block around an
// address has one list and one site, and that none is larger.
func TestBlocksOfSitesMatchNaiveSearch(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6)) // #nosec G404 -- a repeatable test
	for range 300 {
		six := random.IntN(2) == 0
		lists := make(map[netip.Prefix]nodemap.List)
		for range random.IntN(12) {
			layer := []string{"operator", "registration", "survey", "default"}[random.IntN(4)]
			lists[randomPrefix(random, six)] = nodemap.List{{[]string{"a", "b"}[random.IntN(2)], layer}}
		}
		var sites []nodemap.Site
		for range random.IntN(12) {
			p := randomPrefix(random, six)
			if !slices.ContainsFunc(sites, func(s nodemap.Site) bool { return s.Prefix.Overlaps(p) }) {
				sites = append(sites, nodemap.Site{p, []nodemap.Measurement{{"a", time.Duration(1+random.IntN(9)) * time.Millisecond, time.Unix(9, 0)}}, random.IntN(2) == 0})
			}
		}
		table, err := nodemaptest.Read(t, cut, nodemap.NewLists(nodemaptest.InOrder(lists)).WithSites(slices.Values(sites)), "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		want := func(addr netip.Addr) string {
			longest, list := -1, nodemap.List(nil)
			for prefix, l := range lists {
				if prefix.Contains(addr) && prefix.Bits() > longest {
					longest, list = prefix.Bits(), l
				}
			}
			out := words(list)
			if len(list) > 0 && (list[0].Layer == "operator" || list[0].Layer == "registration") {
				return out
			}
			for _, s := range sites {
				if s.Prefix.Contains(addr) {
					out += " at " + s.Prefix.String()
				}
			}
			return out
		}
		edges := maps.Clone(lists)
		for _, s := range sites {
			edges[s.Prefix] = nil
		}
		for range 50 {
			addr := randomPrefix(random, six).Addr()
			c, site, length := table.LookupSite(addr)
			got := text(table, c)
			if site != nodemap.NoSite {
				prefix, _ := table.Site(site)
				first := prefix.Addr()
				for _, s, _ := table.LookupSite(first); s != site; _, s, _ = table.LookupSite(first) {
					_, length := table.Lookup(first)
					first = last(netip.PrefixFrom(first, length)).Next()
				}
				if c, _ := table.Lookup(first); table.SiteCandidates(site) != c {
					t.Fatalf("Expected the nodes of %s for site %s", first, prefix)
				}
				got += " at " + prefix.String()
			}
			if got != want(addr) {
				t.Fatalf("Expected %q for %s, got %q; map: %v %v", want(addr), addr, got, lists, sites)
			}
			block := netip.PrefixFrom(addr, length).Masked()
			if at, ok := differs(block, edges, want, want(addr)); !ok {
				t.Fatalf("Expected %q for all of %s, got %q for %s; map: %v %v", want(addr), block, want(at), at, lists, sites)
			}
			if length > 0 {
				if _, ok := differs(netip.PrefixFrom(addr, length-1).Masked(), edges, want, want(addr)); ok {
					t.Fatalf("Expected a prefix shorter than %s around %s; map: %v %v", block, addr, lists, sites)
				}
			}
		}
	}
}

func TestSiteMoves(t *testing.T) {
	read := func(texts ...string) *nodemap.Table {
		var sites []nodemap.Site
		for _, text := range texts {
			fields := strings.Fields(text)
			s := nodemap.Site{Prefix: netip.MustParsePrefix(fields[0])}
			for _, word := range fields[1:] {
				node, rtt, _ := strings.Cut(word, "=")
				d, err := time.ParseDuration(rtt)
				if err != nil {
					t.Fatal(err)
				}
				s.Measured = append(s.Measured, nodemap.Measurement{node, d, time.Unix(int64(len(texts)), 0)})
			}
			sites = append(sites, s)
		}
		table, err := nodemaptest.Read(t, cut, new(nodemap.Lists).WithSites(slices.Values(sites)))
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	before := read("192.0.2.0/24 b=1ms", "198.51.100.0/24 b=1ms c=2ms", "203.0.113.0/24 b=3ms", "2001:db8:1::/48 b=4ms")
	after := read("198.51.100.0/24 b=1ms c=2ms", "198.51.101.0/24 b=1ms", "203.0.113.0/24 a=3ms", "2001:db8:1::/48 b=4.1ms", "2001:db8:2::/48 b=4ms")
	from, measured := after.SiteMoves(before)
	if !slices.Equal(from, []int32{1, nodemap.NoSite, 2, 3, nodemap.NoSite}) || !slices.Equal(measured, []bool{false, true, true, true, true}) {
		t.Errorf("Expected one site as before, three others and a new one, got %v %v", from, measured)
	}
	if !after.SameNodes(3, before, 3) || after.SameNodes(2, before, 2) {
		t.Error("Expected another latency by the same node, and another node")
	}
}

// BenchmarkSites shows what 100,000 sites that eight of 40 nodes measured take to make,
// on the wire, and to read.
func BenchmarkSites(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a benchmark
	sites := make([]nodemap.Site, 100_000)
	for i := range sites {
		sites[i].Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		for _, n := range random.Perm(40)[:8] {
			sites[i].Measured = append(sites[i].Measured, nodemap.Measurement{fmt.Sprintf("node%d", n), time.Duration(1+random.IntN(200)) * time.Millisecond, time.Unix(1769772003-int64(random.IntN(90)), 0)})
		}
	}
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	var lists *nodemap.Lists
	b.Run("make", func(b *testing.B) {
		before := heap()
		for b.Loop() {
			lists = new(nodemap.Lists).WithSites(slices.Values(sites))
		}
		b.ReportMetric(heap()-before, "MiB")
	})
	soa := packed(b, nodemap.SOA(cut, "b1.gslb.example.org.", 7))
	wire, bytes := [][]byte{soa}, 0
	for rr := range lists.Records(cut, "b1.gslb.example.org.", nil) {
		p := packed(b, rr)
		wire, bytes = append(wire, p), bytes+len(p)-len(rr.Header().Name)+1 // names are compressed
	}
	wire = append(wire, soa)
	b.Run("read", func(b *testing.B) {
		before := heap()
		var table *nodemap.Table
		for b.Loop() {
			table = takeUp(b, wire)
		}
		b.ReportMetric(heap()-before, "MiB")
		b.ReportMetric(float64(bytes)/1e6, "MB-on-the-wire")
		b.ReportMetric(float64(table.Sites()), "sites")
	})
}
