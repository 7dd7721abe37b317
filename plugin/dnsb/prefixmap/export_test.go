package prefixmap

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// lookup returns the nodes that a table names for a prefix, and those that it
// excludes.
func lookup(t *Table) Lookup {
	return func(prefix netip.Prefix) (nodes []Named, excluded []NodeID) {
		for _, e := range t.Supernets(prefix) {
			for _, c := range e.Claims {
				switch {
				case c.Negated:
					excluded = append(excluded, c.Node)
				case !slices.Contains(excluded, c.Node) && !contains(nodes, c.Node):
					nodes = append(nodes, Named{c.Node, map[bool]string{true: "operator", false: "registration"}[c.Operator]})
				}
			}
		}
		return nodes, excluded
	}
}

func TestExportNamesWhatCoveringPrefixesDoNot(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"in order", []string{"11.0.0.0/8 b", "2001:db8::/32 c", "10.0.0.0/8 a"}, []string{"10.0.0.0/8 a # operator", "11.0.0.0/8 b # operator", "2001:db8::/32 c # operator"}},
		{"the same as outside", []string{"10.0.0.0/8 a b", "10.1.0.0/16 a b", "10.1.1.0/24 a"}, []string{"10.0.0.0/8 a b # operator"}},
		{"others first", []string{"10.0.0.0/8 a b", "10.1.0.0/16 c"}, []string{"10.0.0.0/8 a b # operator", "10.1.0.0/16 c # operator"}},
		{"another order", []string{"10.0.0.0/8 a b c", "10.1.0.0/16 b"}, []string{"10.0.0.0/8 a b c # operator", "10.1.0.0/16 b # operator"}},
		{"excluded", []string{"10.0.0.0/8 a b", "10.1.0.0/16 !a"}, []string{"10.0.0.0/8 a b # operator", "10.1.0.0/16 !a # denied"}},
		{"excluded once", []string{"10.0.0.0/8 !a", "10.1.0.0/16 !a", "10.2.0.0/16 b"}, []string{"10.0.0.0/8 !a # denied", "10.2.0.0/16 b # operator"}},
		{"excluded and included again", []string{"10.0.0.0/8 !a", "10.1.0.0/16 a", "10.1.1.0/24 !a"},
			[]string{"10.0.0.0/8 !a # denied", "10.1.0.0/16 a # operator", "10.1.1.0/24 !a # denied"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New()
			for _, line := range tc.lines {
				words := strings.Fields(line)
				m.Add(netip.MustParsePrefix(words[0]), m.OperatorEntry(words[1:]))
			}
			var b strings.Builder
			if err := Export(&b, m.Names(), Prefixes(m.Publish().AllSorted()), lookup(m.Publish())); err != nil {
				t.Fatal(err)
			}
			if want := strings.Join(tc.want, "\n") + "\n"; b.String() != want {
				t.Errorf("Expected\n%s\ngot\n%s", want, b.String())
			}
		})
	}
}

func TestMergedPrefixesAreInOrder(t *testing.T) {
	tables := make([]iter.Seq[netip.Prefix], 3)
	for i, prefixes := range [][]string{{"10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"}, {"10.0.0.0/8", "10.0.0.0/16", "11.0.0.0/8"}, nil} {
		m := New()
		for _, p := range prefixes {
			m.Add(netip.MustParsePrefix(p), m.OperatorEntry([]string{"a"}))
		}
		tables[i] = Prefixes(m.Publish().AllSorted())
	}
	var got []string
	for prefix := range Merge(Merge(tables[0], tables[1]), tables[2]) {
		got = append(got, prefix.String())
	}
	if want := []string{"10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "11.0.0.0/8", "2001:db8::/32"}; !slices.Equal(got, want) {
		t.Errorf("Expected %v, got %v", want, got)
	}
	for range Merge(tables[0], tables[1]) {
		break // and the iterators stop
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestExportReturnsErrorOfWriter(t *testing.T) {
	m := New()
	m.Add(netip.MustParsePrefix("10.0.0.0/8"), m.OperatorEntry([]string{"a"}))
	if err := Export(brokenWriter{}, m.Names(), Prefixes(m.Publish().AllSorted()), lookup(m.Publish())); !errors.Is(err, errBroken) {
		t.Errorf("Expected the error of the writer, got %v", err)
	}
}
