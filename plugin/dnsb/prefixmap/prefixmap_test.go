package prefixmap

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// testMap is a Map that knows what nodes have registered.
type testMap struct {
	*Map
	registered map[string][]registration.Prefix
}

func newTestMap() *testMap { return &testMap{New(), make(map[string][]registration.Prefix)} }

func (m *testMap) register(node string, prefixes []registration.Prefix) {
	m.Register(node, m.registered[node], prefixes, nil)
	m.registered[node] = prefixes
}

// parse parses prefixes; '!' negates one.
func parse(texts []string) []registration.Prefix {
	var prefixes []registration.Prefix
	for _, text := range texts {
		bare, negated := strings.CutPrefix(text, "!")
		prefixes = append(prefixes, registration.Prefix{Prefix: netip.MustParsePrefix(bare), Negated: negated})
	}
	return prefixes
}

// dump returns the entries of a table as text, in order.
func dump(table *Table, names []string) []string {
	var out []string
	for prefix, e := range table.AllSorted() {
		line := prefix.String()
		for _, c := range e.Claims {
			line += fmt.Sprintf(" %s/%v/%v", names[c.Node], c.Operator, c.Negated)
		}
		out = append(out, line)
	}
	return out
}

func TestOperatorEntries(t *testing.T) {
	m := New()
	first := m.OperatorEntry([]string{"a", "!b"})
	if same := m.OperatorEntry([]string{"a", "!b"}); same != first || len(m.entries) != 1 {
		t.Error("Expected equal entries to be one")
	}
	if !m.Excluded(m.ID("b")) || m.Excluded(m.ID("a")) {
		t.Error("Expected b to be excluded somewhere, and a not")
	}
	prefix := netip.MustParsePrefix("10.0.0.0/8")
	if !m.Add(prefix, first) || m.Add(prefix, m.OperatorEntry([]string{"c"})) || m.Operators() != 1 {
		t.Errorf("Expected one operator prefix, got %d", m.Operators())
	}
	if got := dump(m.Publish(), m.Names()); !slices.Equal(got, []string{"10.0.0.0/8 c/true/false"}) {
		t.Errorf("Expected the last entry, got %v", got)
	}
}

func TestRegistrationsAreOrderedByName(t *testing.T) {
	m := newTestMap()
	m.Add(netip.MustParsePrefix("10.0.0.0/8"), m.OperatorEntry([]string{"z"}))
	for _, node := range []string{"c", "a", "b"} {
		m.register(node, parse([]string{"10.0.0.0/8"}))
	}
	want := []string{"10.0.0.0/8 z/true/false a/false/false b/false/false c/false/false"}
	if got := dump(m.Publish(), m.Names()); !slices.Equal(got, want) {
		t.Errorf("Expected %v, got %v", want, got)
	}
}

// TestChangesEqualNewMap checks that a map which was changed step by step is the
// same as one that is made of the last registrations alone.
func TestChangesEqualNewMap(t *testing.T) {
	const many = 2000
	var big []string
	for i := range many {
		big = append(big, fmt.Sprintf("11.%d.%d.0/24", i/256, i%256))
	}
	operator := func() *testMap {
		m := newTestMap()
		m.Add(netip.MustParsePrefix("10.0.0.0/8"), m.OperatorEntry([]string{"op"}))
		return m
	}
	changed := operator()
	steps := []struct {
		node     string
		prefixes []string
	}{
		{"b", []string{"10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"}},
		{"a", []string{"10.0.0.0/8", "!10.1.0.0/16"}},
		{"b", []string{"10.0.0.0/8", "!10.1.0.0/16", "2001:db8::/32"}},
		{"c", []string{"10.0.0.0/8", "192.0.2.0/24"}},
		{"a", nil},
		{"b", []string{"!10.0.0.0/8"}},
		{"c", []string{}},
		{"big", big},
		{"a", []string{"10.0.0.0/8"}},
		{"big", big[:many/2]},
		{"big", nil},
		{"a", nil},
		{"b", nil},
	}
	last := map[string][]string{}
	for i, step := range steps {
		published, before := changed.Publish(), dump(changed.Publish(), changed.Names())
		changed.register(step.node, parse(step.prefixes))
		if last[step.node] = step.prefixes; step.prefixes == nil {
			delete(last, step.node)
		}
		if after := dump(published, changed.Names()); !slices.Equal(before, after) {
			t.Errorf("Step %d: Expected the published table not to change\n%.500s\ngot\n%.500s", i, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		fresh := operator()
		for _, node := range []string{"c", "big", "a", "b"} {
			if prefixes, ok := last[node]; ok {
				fresh.register(node, parse(prefixes))
			}
		}
		if got, want := dump(changed.table, changed.names), dump(fresh.table, fresh.names); !slices.Equal(got, want) {
			t.Errorf("Step %d: Expected\n%.500s\ngot\n%.500s", i, strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
	}
	if n := len(dump(changed.table, changed.names)); n != 1 {
		t.Errorf("Expected only the operator's prefix to be left, got %d", n)
	}
}

// TestRegisterPauses checks that a registration of many prefixes lets queries by.
func TestRegisterPauses(t *testing.T) {
	var prefixes []registration.Prefix
	for i := range 2000 {
		prefixes = append(prefixes, parse([]string{fmt.Sprintf("11.%d.%d.0/24", i/256, i%256)})...)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, pacer := range []*pacing.Pacer{nil, new(pacing.Pacer)} {
			m, begin := New(), time.Now()
			m.Register("a", nil, prefixes, pacer)
			if paused := time.Since(begin) > 0; paused != (pacer != nil) {
				t.Errorf("Expected pauses with a pacer alone, got %v with %v", paused, pacer)
			}
		}
	})
}

// TestPublishedTablesDoNotChange checks that with random prefixes, nested and side
// by side, that come and go in one change.
func TestPublishedTablesDoNotChange(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6)) // #nosec G404 -- a test
	changed := newTestMap()
	prefix := func() netip.Prefix {
		if r.IntN(4) == 0 {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))}), 30+r.IntN(30)).Masked()
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(256)), byte(r.IntN(256))}), 7+r.IntN(26)).Masked()
	}
	type frozen struct {
		table *Table
		dump  []string
	}
	var published []frozen
	last := map[string][]registration.Prefix{}
	for range 150 {
		node := string(rune('a' + r.IntN(4)))
		if r.IntN(8) == 0 {
			delete(last, node)
		} else {
			last[node] = nil
			seen := map[netip.Prefix]bool{}
			for range r.IntN(200) {
				if p := prefix(); !seen[p] {
					seen[p] = true
					last[node] = append(last[node], registration.Prefix{Prefix: p, Negated: r.IntN(5) == 0})
				}
			}
		}
		changed.register(node, last[node])
		published = append(published, frozen{changed.Publish(), dump(changed.Publish(), changed.Names())})

		fresh := newTestMap()
		for _, node := range []string{"a", "b", "c", "d"} {
			fresh.register(node, last[node])
		}
		if got, want := dump(changed.table, changed.names), dump(fresh.table, fresh.names); !slices.Equal(got, want) {
			t.Fatalf("Expected\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
	}
	for i, f := range published {
		if got := dump(f.table, changed.names); !slices.Equal(got, f.dump) {
			t.Fatalf("Expected table %d not to change\n%s\ngot\n%s", i, strings.Join(f.dump, "\n"), strings.Join(got, "\n"))
		}
	}
}
