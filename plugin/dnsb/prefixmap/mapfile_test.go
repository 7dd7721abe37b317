package prefixmap

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap/prefixmaptest"
)

// testGrammar has the nodes a to c, and 'group NAME NODE...' as its only rule.
func testGrammar(m *Map) Grammar {
	groups := make(map[string]*Entry)
	name := func(text string) (string, error) {
		node := strings.ToLower(text)
		if !slices.Contains([]string{"a", "b", "c"}, node) {
			return "", fmt.Errorf("unknown node '%s'", text)
		}
		return node, nil
	}
	return Grammar{
		NodeName: name,
		AddRule: func(words []string) error {
			if len(words) < 3 {
				return errors.New("expected 'group NAME NODE...'")
			}
			nodes, err := NodeNames(words[2:], name)
			if err != nil {
				return err
			}
			groups[words[1]] = m.OperatorEntry(nodes)
			return nil
		},
		Group: func(name string) (*Entry, bool) { return groups[name], strings.HasPrefix(name, "G") },
	}
}

func isGroup(word string) bool { return word == "group" }

// readFiles reads files with these contents.
func readFiles(t testing.TB, contents ...string) (*Map, error) {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, content := range contents {
		paths = append(paths, filepath.Join(dir, fmt.Sprint("map", i)))
		if err := os.WriteFile(paths[i], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := New()
	files, err := Read(paths, isGroup, nil)
	if err == nil {
		err = m.AddFiles(files, testGrammar(m))
	}
	return m, err
}

func TestReadFiles(t *testing.T) {
	m, err := readFiles(t,
		"# a comment\n\n10.0.0.0/8 a !b # and another\r\n2001:db8::/32\tb\n10.1.0.0/16 G1\n10.2.0.0/16 G2\n10.3.0.0/16 A !B",
		"group G1 c a\n11.0.0.0/8 c\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"10.0.0.0/8 a/true/false b/true/true", "10.1.0.0/16 c/true/false a/true/false", "10.3.0.0/16 a/true/false b/true/true", "11.0.0.0/8 c/true/false",
		"2001:db8::/32 b/true/false",
	}
	if got := dump(m.Publish(), m.Names()); !slices.Equal(got, want) || m.Operators() != len(want) {
		t.Errorf("Expected %d prefixes, %v, got %d, %v", len(want), want, m.Operators(), got)
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	for _, tc := range []struct{ name, content, want string }{
		{"prefix", "10.0.0.0/8 a\n10.0.0.1/8 a\n", "map0:2 - invalid prefix '10.0.0.1/8': bits are set beyond its length, did you mean 10.0.0.0/8?"},
		{"address", "10.0.0.1 a\n", "map0:1 - invalid prefix '10.0.0.1': the length is missing"},
		{"prefix twice", "10.0.0.0/8 a\n10.0.0.0/8 b\n", "map0:2 - prefix 10.0.0.0/8 is given twice"},
		{"errors in order", "\n10.0.0.0/8 a d\n11.0.0.0/8 a\n1 a\n", "map0:2 - unknown node 'd'; "},
		{"prefix twice, once for a group that no rule defines", "10.0.0.0/8 a\n10.0.0.0/8 G1\n10.0.0.0/8 b\n", "map0:3 - prefix 10.0.0.0/8 is given twice"},
		{"prefix in two files", "11.0.0.0/8 a\n", "map1:1 - prefix 11.0.0.0/8 is given twice"},
		{"unknown node", "10.0.0.0/8 a d\n", "map0:1 - unknown node 'd'"},
		{"unknown excluded node", "10.0.0.0/8 !d\n", "map0:1 - unknown node 'd'"},
		{"node twice", "10.0.0.0/8 a a\n", "map0:1 - node 'a' is given twice"},
		{"node twice in another case", "10.0.0.0/8 a A\n", "map0:1 - node 'A' is given twice"},
		{"node and excluded node", "10.0.0.0/8 a !a\n", "map0:1 - node 'a' is given twice"},
		{"group among nodes", "10.0.0.0/8 G1 a\n", "map0:1 - unknown node 'G1'"},
		{"no node", "10.0.0.0/8\n", "map0:1 - no node for 10.0.0.0/8"},
		{"rule", "\ngroup G1 d\n", "map0:2 - unknown node 'd'"},
		{"incomplete file", "10.0.0.0/8 a\n10.1.0.0/1", "map0:2 - invalid prefix '10.1.0.0/1': bits are set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := readFiles(t, tc.content, "11.0.0.0/8 a\n"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Expected an error with %q, got: %v", tc.want, err)
			}
		})
	}
	if _, err := Read([]string{filepath.Join(t.TempDir(), "none")}, isGroup, nil); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "read map file: ") {
		t.Errorf("Expected an error for a missing file, got: %v", err)
	}
}

func TestExportedMapReadsTheSame(t *testing.T) {
	nodes := []string{"a", "b", "c"}
	m := New()
	for i, p := range prefixmaptest.Prefixes(20_000, 3) {
		names := []string{nodes[i%3], nodes[(i+1)%3], nodes[(i+2)%3]}[:1+i%2]
		if i%5 == 0 {
			names[len(names)-1] = "!" + names[len(names)-1]
		}
		m.Add(p, m.OperatorEntry(names))
	}
	var b strings.Builder
	if err := Export(&b, m.Names(), Prefixes(m.Publish().AllSorted()), lookup(m.Publish())); err != nil {
		t.Fatal(err)
	}
	again, err := readFiles(t, b.String())
	if err != nil {
		t.Fatal(err)
	}
	names := func(m *Map, prefix netip.Prefix) (out []string) {
		found, _ := lookup(m.Publish())(prefix)
		for _, n := range found {
			out = append(out, m.Names()[n.Node])
		}
		return out
	}
	for prefix := range Prefixes(m.Publish().AllSorted()) {
		if want, got := names(m, prefix), names(again, prefix); !slices.Equal(got, want) {
			t.Fatalf("Expected %v for %s, got %v", want, prefix, got)
		}
	}
}

func FuzzReadFiles(f *testing.F) {
	f.Add("10.0.0.0/8 a !b\n2001:db8::/32 G1\ngroup G1 c\n")
	f.Add("10.0.0.0/8\n10.0.0.0/33 a\n# x")
	f.Fuzz(func(t *testing.T, content string) {
		m, err := readFiles(t, content)
		if err == nil && len(dump(m.Publish(), m.Names())) != m.Operators() {
			t.Errorf("Expected %d prefixes, got %d", m.Operators(), len(dump(m.Publish(), m.Names())))
		}
		if err != nil && !strings.Contains(err.Error(), "map") {
			t.Errorf("Expected an error that names the file, got: %v", err)
		}
	})
}
