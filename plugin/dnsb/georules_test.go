package dnsb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb/geodbtest"
)

// writeDatabase writes a database, with a time of modification of its own.
func writeDatabase(t testing.TB, path, kind string, records map[string]mmdbtype.Map) {
	t.Helper()
	writeMap(t, path, geodbtest.Database(t, kind, records))
}

// databases writes the databases that most tests here use.
func databases(t testing.TB) (asn, city string) {
	t.Helper()
	dir := t.TempDir()
	asn, city = filepath.Join(dir, "asn.mmdb"), filepath.Join(dir, "city.mmdb")
	writeDatabase(t, asn, "GeoLite2-ASN", map[string]mmdbtype.Map{
		"10.1.0.0/16": geodbtest.AS(64500), "10.2.0.0/15": geodbtest.AS(64501), "2001:db8:1::/48": geodbtest.AS(64500),
	})
	writeDatabase(t, city, "DBIP-City-Lite", map[string]mmdbtype.Map{
		"10.0.0.0/12": geodbtest.Country("EU", "FR", 48.9, 2.4), "10.2.3.0/24": geodbtest.Country("EU", "DE", 50.1, 8.7), "10.16.0.0/12": geodbtest.Country("NA", "US", 40.7, -74),
		"10.32.0.0/16": geodbtest.Country("EU", "PL", 52.2, 21), "10.33.0.0/16": geodbtest.Country("AS", "", 1.3, 103.8), "10.34.0.0/16": geodbtest.Country("", "US"), "2001:db8::/32": geodbtest.Country("EU", "FR", 48.9, 2.4),
	})
	return asn, city
}

func TestGeoLayers(t *testing.T) {
	asn, city := databases(t)
	const nodes = `
		node par1 192.0.2.1 location 48.86 2.35
		node fra1 192.0.2.2 location 50.11 8.68
		node nyc1 192.0.2.3 location 40.71 -74.01
		node sin1 192.0.2.4 location 1.35 103.82
		node any1 192.0.2.5
		cut svc par1 fra1 nyc1 sin1 any1
	`
	tests := []struct {
		name  string
		lines string
		dead  []string
		want  map[string]string // resolver to layer and node
	}{
		{
			name: "AS, then country, then continent", lines: "asn AS64500 nyc1\ncountry FR par1\ncountry DE fra1\ncontinent EU sin1\ndefault any1",
			want: map[string]string{
				"10.1.0.1": "asn nyc1", "10.2.0.1": "country par1", "10.2.3.1": "country fra1", "10.32.0.1": "continent sin1", "10.16.0.1": "default any1", "172.16.0.1": "default any1",
				"2001:db8:1::1": "asn nyc1", "2001:db8:2::1": "country par1", "::ffff:10.1.0.1": "asn nyc1", "64:ff9b::10.2.3.1": "country fra1",
			},
		},
		{
			name: "dead nodes are skipped", lines: "asn AS64500 nyc1 sin1\ncountry FR par1\ncontinent EU fra1\ndefault any1", dead: []string{"192.0.2.3", "192.0.2.1"},
			want: map[string]string{"10.1.0.1": "asn sin1", "10.0.0.1": "continent fra1"},
		},
		{
			name: "on to the next layer", lines: "asn AS64500 nyc1\ncountry FR nyc1\ncontinent EU nyc1\ndefault nyc1 any1", dead: []string{"192.0.2.3"},
			want: map[string]string{"10.1.0.1": "default any1"},
		},
		{
			name: "prefixes go first", lines: "prefix 10.0.0.0/8 any1\nasn AS64500 nyc1\ncountry FR par1",
			want: map[string]string{"10.1.0.1": "operator any1", "2001:db8::1": "country par1"},
		},
		{
			name: "nearest",
			want: map[string]string{
				"10.1.0.1": "location par1", "10.2.3.1": "location fra1", "10.16.0.1": "location nyc1", "10.32.0.1": "location fra1", "10.33.0.1": "location sin1", "10.34.0.1": "hash", "172.16.0.1": "hash",
			},
		},
		{
			name: "nearest that is live", dead: []string{"192.0.2.1"},
			want: map[string]string{"10.1.0.1": "location fra1", "10.33.0.1": "location sin1"},
		},
		{
			name: "default goes before nearest", lines: "default any1 nyc1",
			want: map[string]string{"10.1.0.1": "default any1"},
		},
		{
			name: "no default is live", lines: "default any1", dead: []string{"192.0.2.5"},
			want: map[string]string{"10.1.0.1": "location par1"},
		},
	}
	for _, tc := range tests {
		for _, files := range [][]string{{asn, city}, {city, asn}} {
			p := newFakeProber()
			for _, addr := range tc.dead {
				p.say(addr, silent)
			}
			d := started(t, nodes+tc.lines+"\nmmdb "+files[0]+"\nmmdb "+files[1], func() prober { return p })
			for from, want := range tc.want {
				e, err := d.Explain("svc."+testZone, netip.MustParseAddr(from))
				if err != nil {
					t.Fatal(err)
				}
				node := referredTo(t, d, from)
				if got := e.Layer + " " + node; got != want && e.Layer != want {
					t.Errorf("%s: Expected %s to be referred by %s, got %s", tc.name, from, want, got)
				}
				if e.Referral[0].Node != node {
					t.Errorf("%s: Expected the explanation of %s to be of %s, got %v", tc.name, from, node, e)
				}
				if l := e.Layer; (l == "asn" || l == "country" || l == "continent" || l == "location") && (e.Source == "" || !e.Prefix.IsValid()) {
					t.Errorf("%s: Expected a source and a prefix for %s, got %+v", tc.name, from, e)
				}
			}
		}
	}
}

// A node that denied a prefix is not named for the AS of it either, and one that
// registers a location is found by it.
func TestGeoLayersOfRegisteredNodes(t *testing.T) {
	asn, city := databases(t)
	d := started(t, fourNodes+"asn AS64500 par1\nmmdb "+asn+"\nmmdb "+city, nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "!10.1.2.0/24"))
	nyc := nodeAt("nyc1", "192.0.2.2")
	nyc.Location = "40 42 46.000 N 74 0 21.000 W 10m"
	registers(t, d, nyc)
	for from, want := range map[string]string{"10.1.0.1": "par1", "10.1.2.1": "nyc1", "10.33.0.1": "nyc1"} {
		if got := referredTo(t, d, from); got != want {
			t.Errorf("Expected %s to be referred to %s, got %s", from, want, got)
		}
	}
}

// Lines for AS numbers and countries may stand in map files too, and serve
// prefixes of an AS there as well as the databases.
func TestGeoRulesInMapFile(t *testing.T) {
	asn, city := databases(t)
	path := filepath.Join(t.TempDir(), "map")
	writeMap(t, path, "172.16.0.0/12 AS64500\n172.16.1.0/24 AS64501\ncountry FR st1\nasn AS64500 nyc1\n")
	d := started(t, "node st1 192.0.2.4\nnode nyc1 192.0.2.5\nnode par1 192.0.2.6\ncut svc st1 nyc1 par1\nasn AS64501 par1\nmap "+path+"\nmmdb "+asn+"\nmmdb "+city, nil)
	for from, want := range map[string]string{"172.16.0.1": "nyc1", "172.16.1.1": "par1", "10.1.0.1": "nyc1", "10.2.0.1": "par1", "10.4.0.1": "st1"} {
		if got := referredTo(t, d, from); got != want {
			t.Errorf("Expected %s to be referred to %s, got %s", from, want, got)
		}
	}
}

func TestGeoRuleErrors(t *testing.T) {
	dir := t.TempDir()
	path, text := filepath.Join(dir, "map"), filepath.Join(dir, "text.mmdb")
	writeMap(t, text, "no database")
	for _, tc := range []struct{ content, lines, want string }{
		{"country FR st1\n", "", "map:1 - 'country' needs a database: add 'mmdb FILE' to the Corefile"},
		{"country France st1\n", "", "map:1 - expected 'country FR NODE...'"},
		{"asn AS0 st1\n", "", "map:1 - expected 'asn AS64500 NODE...'"},
		{"asn AS64500 st1\n", "asn AS64500 st1", "map:1 - asn AS64500 is given twice"},
		{"asn AS64500 st1\n", "mmdb " + text, "mmdb: " + text + ": "},
	} {
		writeMap(t, path, tc.content)
		_, err := parse(controller("dnsb {\nns b1 192.0.2.1\nnode st1 192.0.2.4\nmap " + path + "\n" + tc.lines + "\n}"))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Expected an error with %q for %q, got: %v", tc.want, tc.content, err)
		}
	}
}

func TestDatabaseReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "asn.mmdb")
	write := func(prefixes ...string) {
		records := map[string]mmdbtype.Map{}
		for i, p := range prefixes {
			records[p] = geodbtest.AS(64500 + uint32(i))
		}
		writeDatabase(t, path, "GeoLite2-ASN", records)
	}
	write("10.1.0.0/16", "10.3.0.0/16", "10.5.0.0/16")
	d := started(t, "node par1 192.0.2.1\nnode any1 192.0.2.2\ncut svc par1 any1\nasn AS64500 par1\ndefault any1\nmmdb "+path, nil)
	alone(d)
	expect := func(step string, reloaded bool, from, want string) {
		t.Helper()
		if got := settled(d); got != reloaded {
			t.Errorf("%s: Expected the reload to be %v, got %v", step, reloaded, got)
		}
		d.refresh()
		if got := referredTo(t, d, from); got != want {
			t.Errorf("%s: Expected %s to be referred to %s, got %s", step, from, want, got)
		}
	}
	expect("at the start", false, "10.1.0.1", "par1")
	write("10.2.0.0/16", "10.4.0.0/16")
	expect("another", true, "10.1.0.1", "any1")
	expect("the same", false, "10.2.0.1", "par1")

	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeMap(t, path, string(whole[:len(whole)/2]))
	expect("half written", false, "10.2.0.1", "par1")
	writeDatabase(t, path, "GeoLite2-ASN", nil)
	expect("empty", false, "10.2.0.1", "par1")
	writeDatabase(t, path, "Other", map[string]mmdbtype.Map{"10.2.0.0/16": {"other": mmdbtype.Bool(true)}, "10.4.0.0/16": {"other": mmdbtype.Bool(true)}})
	expect("of another kind", false, "10.2.0.1", "par1")
	write("10.6.0.0/16", "10.8.0.0/16")
	expect("a good one again", true, "10.6.0.1", "par1")
}

func BenchmarkNearest(b *testing.B) {
	_, city := databases(b)
	for _, n := range []int{benchNodes, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a benchmark
			var lines, cut strings.Builder
			cut.WriteString("cut svc")
			for i := range n {
				fmt.Fprintf(&lines, "node n%d 192.0.%d.%d location %.3f %.3f\n", i, i>>8, i&0xff, r.Float64()*120-60, r.Float64()*360-180)
				fmt.Fprintf(&cut, " n%d", i)
			}
			s := started(b, lines.String()+cut.String()+"\nmmdb "+city, nil).snapshot.Load()
			c, from := s.cuts["svc."+testZone], netip.MustParseAddr("10.16.0.1")
			b.ReportAllocs()
			for b.Loop() {
				if l := s.plan(c, from).layer; l != layerLocation {
					b.Fatalf("Expected the nearest, got %s", l)
				}
			}
		})
	}
}
