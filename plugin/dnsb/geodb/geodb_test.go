package geodb

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb/geodbtest"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTableAgreesWithDatabases checks that joining and merging prefixes changes no
// record.
func TestTableAgreesWithDatabases(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4)) // #nosec G404 -- a test
	dir := t.TempDir()
	var files []string
	var networks [3]map[string]mmdbtype.Map
	for i := range networks {
		networks[i] = map[string]mmdbtype.Map{}
		for range 300 {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), 0}), 12+r.IntN(13)).Masked().String()
			if networks[i][prefix] = geodbtest.Country([]string{"EU", "NA", "AS"}[r.IntN(3)], []string{"FR", "DE", "US"}[r.IntN(3)]); i == 0 {
				networks[i][prefix] = geodbtest.AS(64500 + r.Uint32N(3))
			}
		}
		files = append(files, filepath.Join(dir, fmt.Sprint(i)))
		write(t, files[i], geodbtest.Database(t, "Test", networks[i]))
	}
	rule := func(name string) *string { return &name }
	rules := Rules[string]{
		ASNs:       map[string]*string{"AS64500": rule("a"), "AS64501": rule("b")},
		Countries:  map[string]*string{"FR": rule("c"), "DE": rule("d")},
		Continents: map[string]*string{"EU": rule("e")},
	}
	together, err := Load(files, rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	var each [3]Table[string]
	for i := range each {
		if each[i], err = Load(files[i:i+1], rules, nil); err != nil {
			t.Fatal(err)
		}
		if n := each[i].Prefixes.Size(); n == 0 || n >= each[i].Networks {
			t.Errorf("Expected neighbors to be joined, got %d prefixes for %d networks", n, each[i].Networks)
		}
	}
	for a := range 4 << 8 {
		addr := netip.AddrFrom4([4]byte{10, byte(a >> 8), byte(a), 1})
		var want, got Record[string]
		for i := range each {
			if p, ok := each[i].Prefixes.Lookup(addr); ok {
				want.ASN, want.Country, want.Continent = cmp.Or(want.ASN, p.ASN), cmp.Or(want.Country, p.Country), cmp.Or(want.Continent, p.Continent)
			}
		}
		if p, ok := together.Prefixes.Lookup(addr); ok {
			got = *p
		}
		if got != want {
			t.Fatalf("Expected %s to be in %v, got %v", addr, want, got)
		}
	}
}

// FuzzLoad checks that a corrupt database is an error, and neither a panic nor an
// endless search.
func FuzzLoad(f *testing.F) {
	whole := []byte(geodbtest.Database(f, "DBIP-City-Lite", map[string]mmdbtype.Map{"10.0.0.0/12": geodbtest.Country("EU", "FR", 48.9, 2.4), "2001:db8::/32": geodbtest.Country("NA", "US")}))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "db")
		write(t, path, string(content))
		start := time.Now()
		_, _ = Load([]string{path}, Rules[string]{}, nil)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("Expected an end within 10 s, took %s", took)
		}
	})
}
