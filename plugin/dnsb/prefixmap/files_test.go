package prefixmap

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap/prefixmaptest"
)

func TestPositions(t *testing.T) {
	m, err := readFiles(t, "# map\n\n10.0.0.0/8 a\n 2001:DB8:0::/32 b\n\t10.1.0.0/16\ta\n", "", "11.0.0.0/8 c # the only one\n")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]string{
		"10.0.0.0/8": "map0:3", "2001:db8::/32": "map0:4", "10.1.0.0/16": "map0:5", "11.0.0.0/8": "map2:1",
		"10.0.0.0/9": "map0, map1, map2", "2001:db8::/33": "map0, map1, map2", "10.0.0.0/7": "map0, map1, map2",
	} {
		files := strings.Split(m.Publish().Position(netip.MustParsePrefix(prefix)), ", ")
		for i, f := range files {
			files[i] = filepath.Base(f)
		}
		if got := strings.Join(files, ", "); got != want {
			t.Errorf("Expected %s for %s, got %s", want, prefix, got)
		}
	}
}

// TestTableOfFilesIsLikeTree compares the table of a map file, with and without changes by
// registrations, with a tree of all its prefixes.
func TestTableOfFilesIsLikeTree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8)) // #nosec G404 -- a test
	address := func() netip.Addr {
		if r.IntN(3) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(256))})
		}
		return netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))})
	}
	prefix := func() netip.Prefix {
		addr := address()
		bits := r.IntN(33)
		if addr.Is6() {
			bits = r.IntN(65)
		}
		return netip.PrefixFrom(addr, bits).Masked()
	}
	for range 8 {
		var lines []string
		operators := make(map[netip.Prefix]string)
		for range r.IntN(1000) {
			p, nodes := prefix(), []string{"a", "b", "c a", "!b", "G1"}[r.IntN(5)]
			if _, ok := operators[p]; !ok {
				operators[p] = nodes
				lines = append(lines, p.String()+" "+nodes)
			}
		}
		m, err := readFiles(t, strings.Join(lines, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		plain := newTestMap()
		for p, nodes := range operators {
			if nodes != "G1" {
				plain.Add(p, plain.OperatorEntry(strings.Fields(nodes)))
			}
		}
		changed := &testMap{m, make(map[string][]registration.Prefix)}
		for range 4 {
			node := []string{"a", "x"}[r.IntN(2)]
			registered := make(map[netip.Prefix]bool)
			var prefixes []registration.Prefix
			for range r.IntN(300) {
				if p := prefix(); !registered[p] {
					registered[p] = true
					prefixes = append(prefixes, registration.Prefix{Prefix: p, Negated: r.IntN(5) == 0})
				}
			}
			for _, each := range []*testMap{changed, plain} {
				each.register(node, prefixes)
			}
			compareTables(t, changed, plain, address)
		}
		for _, node := range []string{"a", "x"} {
			changed.register(node, nil)
			plain.register(node, nil)
		}
		compareTables(t, changed, plain, address)
		if n := changed.table.changes.Size(); n != 0 {
			t.Fatalf("Expected the prefixes of the file alone, got %d others", n)
		}
	}
}

// compareTables compares the table of a map with that of one that has no files.
func compareTables(t *testing.T, m, plain *testMap, address func() netip.Addr) {
	t.Helper()
	got, want := m.Publish(), plain.Publish()
	if g, w := dump(got, m.Names()), dump(want, plain.Names()); !slices.Equal(g, w) {
		t.Fatalf("Expected\n%s\ngot\n%s", strings.Join(w, "\n"), strings.Join(g, "\n"))
	}
	text := func(m *testMap, e *Entry) string {
		if e == nil {
			return "none"
		}
		line := ""
		for _, c := range e.Claims {
			line += fmt.Sprintf(" %s/%v/%v", m.Names()[c.Node], c.Operator, c.Negated)
		}
		return line
	}
	supernets := func(m *testMap, table *Table, p netip.Prefix) (list []string) {
		for covering, e := range table.Supernets(p) {
			list = append(list, covering.String()+text(m, e))
		}
		return list
	}
	for range 300 {
		addr := address()
		a, okA := got.Lookup(addr)
		b, okB := want.Lookup(addr)
		if okA != okB || text(m, a) != text(plain, b) || got.Longest(addr) != want.Longest(addr) {
			t.Fatalf("Expected %v of %s for %s, got %v of %s", text(plain, b), want.Longest(addr), addr, text(m, a), got.Longest(addr))
		}
		for _, bits := range []int{addr.BitLen(), addr.BitLen() / 2, 24, 0} {
			p := netip.PrefixFrom(addr, bits).Masked()
			if g, w := supernets(m, got, p), supernets(plain, want, p); !slices.Equal(g, w) {
				t.Fatalf("Expected around %s\n%s\ngot\n%s", p, strings.Join(w, "\n"), strings.Join(g, "\n"))
			}
			a, okA := got.Get(p)
			b, okB := want.Get(p)
			if okA != okB || text(m, a) != text(plain, b) {
				t.Fatalf("Expected %s for %s, got %s", text(plain, b), p, text(m, a))
			}
		}
	}
	for range got.AllSorted() { // and the iterators stop
		break
	}
	for range got.Supernets(netip.MustParsePrefix("10.1.1.1/32")) {
		break
	}
}

// BenchmarkRegistered looks up addresses among a million prefixes that 100 nodes have
// registered, one after the other, and tells the memory that they take.
func BenchmarkRegistered(b *testing.B) {
	const nodes, each = 100, 10_000
	prefixes := prefixmaptest.Prefixes(nodes*each, 1)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := New()
	for i := range nodes {
		registered := make([]registration.Prefix, each)
		for j := range registered {
			registered[j].Prefix = prefixes[i*each+j]
		}
		m.Register(fmt.Sprintf("n%d", i), nil, registered, nil)
		m.Publish()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	table, r := m.Publish(), rand.New(rand.NewPCG(7, 7)) // #nosec G404 -- a benchmark
	from := make([]netip.Addr, 1<<16)
	for i := range from {
		from[i] = prefixes[r.IntN(len(prefixes))].Addr()
	}
	for i := 0; b.Loop(); i++ {
		if _, ok := table.Lookup(from[i&0xffff]); !ok {
			b.Fatal("Expected an entry")
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
}

// BenchmarkTable looks up addresses in the table of a map file and in a tree of the same
// prefixes. It shows what either costs the garbage collector.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		prefixes := prefixmaptest.Prefixes(n, 1)
		var text strings.Builder
		for i, p := range prefixes {
			fmt.Fprintln(&text, p, "abc"[i%3:i%3+1])
		}
		m, err := readFiles(b, text.String())
		if err != nil {
			b.Fatal(err)
		}
		table, tree := m.Publish(), new(bart.Table[*Entry])
		for prefix, e := range table.AllSorted() {
			tree.Insert(prefix, e)
		}
		from := make([]netip.Addr, 1<<16)
		r := rand.New(rand.NewPCG(7, 7)) // #nosec G404 -- a benchmark
		for i := range from {
			from[i] = prefixes[r.IntN(n)].Addr()
		}
		for name, lookup := range map[string]func(netip.Addr) (*Entry, bool){"file": table.Lookup, "tree": tree.Lookup} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if _, ok := lookup(from[i&0xffff]); !ok {
						b.Fatal("Expected an entry")
					}
				}
			})
		}
	}
}

func TestReadMakesLittleGarbage(t *testing.T) {
	const prefixes = 200_000
	var content bytes.Buffer
	for i := range prefixes {
		fmt.Fprintf(&content, "%d.%d.%d.0/24 n%d\n", 1+i>>16, i>>8&255, i&255, i%50)
	}
	path := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(path, content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	files, err := Read([]string{path}, isGroup, nil)
	runtime.ReadMemStats(&after)
	if err != nil || files.len() != prefixes {
		t.Fatalf("Expected all prefixes, got %d: %v", files.len(), err)
	}
	// Of these 20 stay, the text has 17, and each line of it becomes a string.
	if perPrefix := (after.TotalAlloc - before.TotalAlloc) / prefixes; perPrefix > 130 {
		t.Errorf("Expected at most 130 bytes to be allocated for a prefix, got %d", perPrefix)
	}
}
