package prefixmap

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(path, []byte("# map\n\n10.0.0.0/8 a\n 2001:DB8:0::/32 b\n\t10.1.0.0/16\ta\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := New()
	files, err := Read([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	err = m.AddFiles(files, Grammar{
		NodeName: func(text string) (string, error) { return text, nil }, IsRule: func(string) bool { return false },
		Group: func(string) (*Entry, bool) { return nil, false },
	})
	if err != nil || os.Remove(path) != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]int{"10.0.0.0/8": 3, "2001:db8::/32": 4, "10.1.0.0/16": 5, "10.0.0.0/9": 0, "2001:db8::/33": 0} {
		position := path
		if want > 0 {
			position += ":" + strconv.Itoa(want)
		}
		if got := m.Lines().Position(netip.MustParsePrefix(prefix)); got != position {
			t.Errorf("Expected %s for %s, got %s", position, prefix, got)
		}
	}
}

func TestLinesOfManyPrefixes(t *testing.T) {
	const many = 200_000
	var x Lines
	prefix := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	x.addFile("a", 2*many, 0)
	for i := range many {
		x.add(prefix(i), 2*i+1)
	}
	x.addFile("b", 2, 2*many)
	x.add(prefix(many), 1)
	x.add(prefix(many+1), lineMask)
	x.finish()
	unknown := 0
	for i := range many {
		switch got := x.Position(prefix(i)); got {
		case fmt.Sprintf("a:%d", 2*i+1):
		case "a, b":
			unknown++
		default:
			t.Fatalf("Expected line %d, got %s", 2*i+1, got)
		}
	}
	if unknown > 5 {
		t.Errorf("Expected hardly any prefix without a line, got %d", unknown)
	}
	if got := x.Position(prefix(many)); got != "b:1" && got != "a, b" {
		t.Errorf("Expected the first line of the second file, got %s", got)
	}
	for _, p := range []netip.Prefix{prefix(many + 1), prefix(many + 2)} { // in a line too far, and in no line
		if got := x.Position(p); got != "a, b" {
			t.Errorf("Expected the files, got %s", got)
		}
	}
}
