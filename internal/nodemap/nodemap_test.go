package nodemap_test

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const cut = "svc.gslb.example.org."

// words returns a list as words LAYER=NODE.
func words(l nodemap.List) string {
	var words []string
	for _, n := range l {
		words = append(words, n.Layer+"="+n.Node)
	}
	return strings.Join(words, " ")
}

// text returns candidates in the same form.
func text(t *nodemap.Table, c *nodemap.Candidates) string {
	var words []string
	for i, id := range c.Nodes {
		words = append(words, c.Layers[i]+"="+t.Names[id])
	}
	return strings.Join(words, " ")
}

func TestLookup(t *testing.T) {
	lists := nodemap.NewLists(nodemaptest.InOrder(map[netip.Prefix]nodemap.List{
		netip.MustParsePrefix("0.0.0.0/0"):        nodemaptest.List("default=lon1"),
		netip.MustParsePrefix("192.0.2.0/24"):     nodemaptest.List("pin=par1", "operator=lon1", "default=fra1"),
		netip.MustParsePrefix("192.0.2.0/25"):     nodemaptest.List("pin=par1", "operator=lon1", "default=fra1"), // as around it
		netip.MustParsePrefix("192.0.2.128/25"):   nodemaptest.List("registration=other", "default=lon1"),
		netip.MustParsePrefix("255.255.255.0/24"): nodemaptest.List("operator=par1"),
		netip.MustParsePrefix("2001:db8::/32"):    nodemaptest.List("operator=par1", "operator=fra1"),
		netip.MustParsePrefix("2001:db8:1::/48"):  nil,
		netip.MustParsePrefix("ffff::/16"):        nodemaptest.List("operator=fra1"),
	}))
	table, err := nodemaptest.Read(t, cut, lists, "par1", "lon1", "fra1")
	if err != nil {
		t.Fatal(err)
	}
	if lists.Prefixes != 7 || table.Prefixes != 7 {
		t.Errorf("Expected the 7 prefixes that differ from those around them, got %d and %d", lists.Prefixes, table.Prefixes)
	}
	for _, tc := range []struct {
		addr, want string
		length     int
	}{
		{"0.0.0.0", "default=lon1", 1},
		{"192.0.1.255", "default=lon1", 23},
		{"192.0.2.127", "pin=par1 operator=lon1 default=fra1", 25},
		{"192.0.2.128", "default=lon1", 25}, // the other node does not serve the cut
		{"192.0.3.0", "default=lon1", 24},
		{"255.255.255.255", "operator=par1", 24},
		{"255.255.254.0", "default=lon1", 24},
		{"::1", "", 3},
		{"2001:db8::1", "operator=par1 operator=fra1", 48},
		{"2001:db8:2::1", "operator=par1 operator=fra1", 47},
		{"2001:db8:1::1", "", 48},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "operator=fra1", 16},
	} {
		c, length := table.Lookup(netip.MustParseAddr(tc.addr))
		if got := text(table, c); got != tc.want || length != tc.length {
			t.Errorf("Expected %q for a /%d around %s, got %q for a /%d", tc.want, tc.length, tc.addr, got, length)
		}
	}
}

// TestBlocksMatchNaiveSearch uses random prefixes in a small part of both families.
func TestBlocksMatchNaiveSearch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a repeatable test
	nodes := []string{"a", "b", "c", "d"}
	for range 200 {
		six := random.IntN(2) == 0
		lists := make(map[netip.Prefix]nodemap.List)
		for range random.IntN(30) {
			var l nodemap.List
			for _, i := range random.Perm(len(nodes))[:random.IntN(3)] {
				l = append(l, nodemap.Named{nodes[i], "operator"})
			}
			lists[randomPrefix(random, six)] = l
		}
		table, err := nodemaptest.Read(t, cut, nodemap.NewLists(nodemaptest.InOrder(lists)), nodes...)
		if err != nil {
			t.Fatal(err)
		}
		want := func(addr netip.Addr) string {
			longest, text := -1, ""
			for prefix, l := range lists {
				if prefix.Contains(addr) && prefix.Bits() > longest {
					longest, text = prefix.Bits(), words(l)
				}
			}
			return text
		}
		for range 50 {
			addr := randomPrefix(random, six).Addr()
			c, length := table.Lookup(addr)
			if got := text(table, c); got != want(addr) {
				t.Fatalf("Expected %q for %s, got %q; map: %v", want(addr), addr, got, lists)
			}
			// All addresses at which the map may change in the prefix have the same nodes,
			// and the prefix that is one bit shorter has some that do not.
			block := netip.PrefixFrom(addr, length).Masked()
			if at, ok := differs(block, lists, want, want(addr)); !ok {
				t.Fatalf("Expected %q for all of %s, got %q for %s; map: %v", want(addr), block, want(at), at, lists)
			}
			if length > 0 {
				wider := netip.PrefixFrom(addr, length-1).Masked()
				if _, ok := differs(wider, lists, want, want(addr)); ok {
					t.Fatalf("Expected a prefix shorter than %s around %s; map: %v", block, addr, lists)
				}
			}
		}
	}
}

// differs returns an address in a block with other nodes, and false if there is one.
// The nodes can change only where a prefix begins or ends.
func differs(block netip.Prefix, lists map[netip.Prefix]nodemap.List, want func(netip.Addr) string, text string) (netip.Addr, bool) {
	edges := []netip.Addr{block.Addr(), last(block)}
	for prefix := range lists {
		edges = append(edges, prefix.Addr(), last(prefix), last(prefix).Next())
	}
	for _, addr := range edges {
		if addr.IsValid() && block.Contains(addr) && want(addr) != text {
			return addr, false
		}
	}
	return netip.Addr{}, true
}

func last(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func randomPrefix(random *rand.Rand, six bool) netip.Prefix {
	addr := netip.AddrFrom4([4]byte{byte(random.IntN(2) * 255), 0, byte(random.IntN(3)), byte(random.IntN(256))})
	if six {
		addr = netip.AddrFrom16([16]byte{byte(random.IntN(2) * 255), 0, 7: byte(random.IntN(256)), 8: byte(random.IntN(256)), 15: byte(random.IntN(256))})
	}
	return netip.PrefixFrom(addr, random.IntN(addr.BitLen()+1)).Masked()
}

func TestTableOfOneNode(t *testing.T) {
	table := nodemap.NewTable("par1", []registration.Prefix{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		{Prefix: netip.MustParsePrefix("192.0.2.128/25"), Negated: true},
		{Prefix: netip.MustParsePrefix("2001:db8::/32")},
	})
	for addr, want := range map[string]string{
		"192.0.2.1": "registration=par1", "192.0.2.129": "", "2001:db8::1": "registration=par1", "::1": "", "192.0.3.1": "",
	} {
		if c, _ := table.Lookup(netip.MustParseAddr(addr)); text(table, c) != want {
			t.Errorf("Expected %q for %s, got %q", want, addr, text(table, c))
		}
	}
}

func TestCutOf(t *testing.T) {
	for name, want := range map[string]string{
		"_map." + cut: cut, "1._list._map." + cut: cut, "_map.": "", cut: "", `a\._map.` + cut: "", "_mapx." + cut: "",
	} {
		if got, ok := nodemap.CutOf(name); got != want || ok != (want != "") {
			t.Errorf("Expected %q for %s, got %q", want, name, got)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	good := []string{
		"_map.CUT 0 IN SOA b1.example.org. hostmaster.example.org. 7 1 1 1 0", `_map.CUT 0 IN TXT "v=1"`, `_node._map.CUT 0 IN TXT "par1 later=1"`,
		`0._list._map.CUT 0 IN TXT "operator=par1,lon1 default=fra1"`, "0._list._map.CUT 0 IN APL 1:192.0.2.0/24 2:2001:db8::/32",
		`_later._map.CUT 0 IN TXT "anything"`, "_map.CUT 0 IN SOA b1.example.org. hostmaster.example.org. 7 1 1 1 0",
	}
	for _, tc := range []struct {
		name    string
		replace int
		by      []string
		want    string
	}{
		{"good", 0, []string{good[0]}, ""},
		{"another version", 1, []string{`_map.CUT 0 IN TXT "v=2"`}, "TXT record of _map.svc.gslb.example.org.: unknown version \"v=2\", expected \"v=1\""},
		{"no version", 1, nil, "no TXT record with the version"},
		{"broken off", 6, nil, "transfer with 1 SOA records"},
		{"another zone", 1, []string{`_map.other.example.org. 0 IN TXT "v=1"`}, "which is not in the zone"},
		{"a list twice", 3, []string{good[3], good[3]}, "the list is given twice"},
		{"no list", 3, nil, "list 0 has prefixes and no nodes"},
		{"a prefix twice", 4, []string{good[4], good[4]}, "a prefix is given twice"},
		{"a negated prefix", 4, []string{"0._list._map.CUT 0 IN APL !1:192.0.2.0/24"}, "prefix 192.0.2.0/24 is negated"},
		{"no layer", 3, []string{`0._list._map.CUT 0 IN TXT "par1"`}, "invalid word 'par1': expected a layer, '=' and nodes"},
		{"a node twice", 3, []string{`0._list._map.CUT 0 IN TXT "pin=par1 default=par1"`}, "node par1 is listed twice"},
		{"no node", 3, []string{`0._list._map.CUT 0 IN TXT "pin=par1,"`}, "invalid node ''"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lines := slices.Replace(slices.Clone(good), tc.replace, tc.replace+1, tc.by...)
			r := nodemap.NewReader(cut)
			var err error
			for _, line := range lines {
				rr, parseErr := dns.NewRR(strings.ReplaceAll(line, "CUT", cut))
				if parseErr != nil {
					t.Fatal(parseErr)
				}
				err = cmp.Or(err, r.Add(rr))
			}
			if err == nil {
				_, err = r.Table()
			}
			if got := fmt.Sprint(err); tc.want == "" && err != nil || !strings.Contains(got, tc.want) && tc.want != "" {
				t.Errorf("Expected %q, got %q", tc.want, got)
			}
		})
	}
}

// million returns a map of so many prefixes with a hundred different lists.
func million(n int) iter.Seq2[netip.Prefix, nodemap.List] {
	lists := make([]nodemap.List, 100)
	for i := range lists {
		for j := range 3 {
			lists[i] = append(lists[i], nodemap.Named{fmt.Sprintf("node%d", (i*7+j)%40), "operator"})
		}
	}
	return func(yield func(netip.Prefix, nodemap.List) bool) {
		random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a benchmark
		for i := range n {
			a := uint32(1<<24 + i*3<<8) // #nosec G115 -- below 1<<32
			if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), 0}), 24), lists[random.IntN(len(lists))]) {
				return
			}
		}
	}
}

func millionNodes() (nodes []string) {
	for i := range 40 {
		nodes = append(nodes, fmt.Sprintf("node%d", i))
	}
	return nodes
}

var sizes = []int{100_000, 1_000_000}

func BenchmarkNewLists(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				nodemap.NewLists(million(n))
			}
		})
	}
}

// packed returns a record in wire form, without compression.
func packed(b *testing.B, rr dns.RR) []byte {
	b.Helper()
	buffer := make([]byte, dns.Len(rr)+300)
	n, err := dns.PackRR(rr, buffer, 0, nil, false)
	if err != nil {
		b.Fatal(err)
	}
	return buffer[:n]
}

// takeUp reads the packed records of a transfer.
func takeUp(b *testing.B, wire [][]byte) *nodemap.Table {
	b.Helper()
	r := nodemap.NewReader(cut)
	for _, packed := range wire {
		rr, _, err := dns.UnpackRR(packed, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Add(rr); err != nil {
			b.Fatal(err)
		}
	}
	table, err := r.Table()
	if err != nil {
		b.Fatal(err)
	}
	return table
}

// BenchmarkTakeUp reads the messages of a transfer.
func BenchmarkTakeUp(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			soa := nodemap.SOA(cut, "b1.gslb.example.org.", 7)
			var wire [][]byte
			bytes := 0
			records := func(yield func(dns.RR) bool) {
				_ = yield(soa)
				nodemap.NewLists(million(n)).Records(cut, "b1.gslb.example.org.", millionNodes())(yield)
				_ = yield(soa)
			}
			for rr := range records {
				p := packed(b, rr)
				wire, bytes = append(wire, p), bytes+len(p)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var table *nodemap.Table
			for b.Loop() {
				table = takeUp(b, wire)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
			b.ReportMetric(float64(bytes)/1e6, "MB-on-the-wire")
			b.ReportMetric(float64(table.Blocks()), "blocks")
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes {
		table, err := nodemaptest.Read(b, cut, nodemap.NewLists(million(n)), millionNodes()...)
		if err != nil {
			b.Fatal(err)
		}
		random := rand.New(rand.NewPCG(3, 4)) // #nosec G404 -- a benchmark
		addrs := make([]netip.Addr, 1<<16)
		for i := range addrs {
			a := random.Uint32()
			addrs[i] = netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Lookup(addrs[i&0xffff])
			}
		})
	}
}
