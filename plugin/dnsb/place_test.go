package dnsb

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// writeDatabase writes a MaxMind DB with the records of networks, and a time of
// modification of its own.
func writeDatabase(t testing.TB, path, kind string, records map[string]mmdbtype.Map) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	prefixes := slices.SortedFunc(maps.Keys(records), func(a, b string) int { // what is inserted later, wins
		return netip.MustParsePrefix(a).Bits() - netip.MustParsePrefix(b).Bits()
	})
	for _, prefix := range prefixes {
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, records[prefix]); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	writeMap(t, path, b.String())
}

func inAS(asn int) mmdbtype.Map {
	return mmdbtype.Map{
		"autonomous_system_number":       mmdbtype.Uint32(asn), // #nosec G115 -- a test
		"autonomous_system_organization": mmdbtype.String("Example"),
	}
}

// inCountry is a record of GeoLite2-Country or, with coordinates, -City.
func inCountry(continent, country string, coordinates ...float64) mmdbtype.Map {
	m := mmdbtype.Map{}
	if continent != "" {
		m["continent"] = mmdbtype.Map{"code": mmdbtype.String(continent), "geoname_id": mmdbtype.Uint32(1)}
	}
	if country != "" {
		m["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(country), "names": mmdbtype.Map{"en": mmdbtype.String(country)}}
	}
	if len(coordinates) == 2 {
		m["location"] = mmdbtype.Map{"latitude": mmdbtype.Float64(coordinates[0]), "longitude": mmdbtype.Float64(coordinates[1])}
	}
	return m
}

// located has the databases that most tests here use.
func located(t testing.TB) (asn, city string) {
	t.Helper()
	dir := t.TempDir()
	asn, city = filepath.Join(dir, "asn.mmdb"), filepath.Join(dir, "city.mmdb")
	writeDatabase(t, asn, "GeoLite2-ASN", map[string]mmdbtype.Map{
		"10.1.0.0/16": inAS(64500), "10.2.0.0/15": inAS(64501), "2001:db8:1::/48": inAS(64500),
	})
	writeDatabase(t, city, "DBIP-City-Lite", map[string]mmdbtype.Map{
		"10.0.0.0/12": inCountry("EU", "FR", 48.9, 2.4), "10.2.3.0/24": inCountry("EU", "DE", 50.1, 8.7), "10.16.0.0/12": inCountry("NA", "US", 40.7, -74),
		"10.32.0.0/16": inCountry("EU", "PL", 52.2, 21), "10.33.0.0/16": inCountry("AS", "", 1.3, 103.8), "10.34.0.0/16": inCountry("", "US"), "2001:db8::/32": inCountry("EU", "FR", 48.9, 2.4),
	})
	return asn, city
}

func TestPlaces(t *testing.T) {
	asn, city := located(t)
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
				p.say(addr, answersNo)
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
func TestPlacesOfRegistered(t *testing.T) {
	asn, city := located(t)
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
func TestPlacesOfMapFile(t *testing.T) {
	asn, city := located(t)
	path := filepath.Join(t.TempDir(), "map")
	writeMap(t, path, "172.16.0.0/12 AS64500\n172.16.1.0/24 AS64501\ncountry FR st1\nasn AS64500 nyc1\n")
	d := started(t, "node st1 192.0.2.4\nnode nyc1 192.0.2.5\nnode par1 192.0.2.6\ncut svc st1 nyc1 par1\nasn AS64501 par1\nmap "+path+"\nmmdb "+asn+"\nmmdb "+city, nil)
	for from, want := range map[string]string{"172.16.0.1": "nyc1", "172.16.1.1": "par1", "10.1.0.1": "nyc1", "10.2.0.1": "par1", "10.4.0.1": "st1"} {
		if got := referredTo(t, d, from); got != want {
			t.Errorf("Expected %s to be referred to %s, got %s", from, want, got)
		}
	}
}

func TestPlacesErrors(t *testing.T) {
	dir := t.TempDir()
	path, text := filepath.Join(dir, "map"), filepath.Join(dir, "text.mmdb")
	writeMap(t, text, "no database")
	for _, tc := range []struct{ content, lines, want string }{
		{"country FR st1\n", "", "need a database"},
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

func TestPlacesReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "asn.mmdb")
	write := func(prefixes ...string) {
		records := map[string]mmdbtype.Map{}
		for i, p := range prefixes {
			records[p] = inAS(64500 + i)
		}
		writeDatabase(t, path, "GeoLite2-ASN", records)
	}
	write("10.1.0.0/16", "10.3.0.0/16", "10.5.0.0/16")
	d := started(t, "node par1 192.0.2.1\nnode any1 192.0.2.2\ncut svc par1 any1\nasn AS64500 par1\ndefault any1\nmmdb "+path, nil)
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
	expect("well again", true, "10.6.0.1", "par1")
}

// What is looked up in the joined and merged table is what the databases say.
func TestPlacesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4)) // #nosec G404 -- a test
	dir := t.TempDir()
	var files []string
	var networks [3]map[string]mmdbtype.Map
	for i := range networks {
		networks[i] = map[string]mmdbtype.Map{}
		for range 300 {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), 0}), 12+r.IntN(13)).Masked().String()
			if networks[i][prefix] = inCountry([]string{"EU", "NA", "AS"}[r.IntN(3)], []string{"FR", "DE", "US"}[r.IntN(3)]); i == 0 {
				networks[i][prefix] = inAS(64500 + r.IntN(3))
			}
		}
		files = append(files, filepath.Join(dir, fmt.Sprint(i)))
		writeDatabase(t, files[i], "Test", networks[i])
	}
	all := newRegions()
	conf := newConfig(testZone)
	tb := tablesOf(t, conf)
	for _, line := range []string{"asn AS64500 a", "asn AS64501 b", "country FR c", "country DE d", "continent EU e"} {
		if err := all.add(tb, strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
	}
	together, err := readPlaces(files, all)
	if err != nil {
		t.Fatal(err)
	}
	var each [3]*places
	for i := range each {
		if each[i], err = readPlaces(files[i:i+1], all); err != nil {
			t.Fatal(err)
		}
		if n := each[i].table.Size(); n == 0 || n >= each[i].networks {
			t.Errorf("Expected neighbours to be joined, got %d prefixes for %d networks", n, each[i].networks)
		}
	}
	for a := range 4 << 8 {
		addr := netip.AddrFrom4([4]byte{10, byte(a >> 8), byte(a), 1})
		var want place
		for i := range each {
			if p, ok := each[i].table.Lookup(addr); ok {
				want = *each[i].both(&want, p)
			}
		}
		got := &noGeoRecord
		if p, ok := together.table.Lookup(addr); ok {
			got = p
		}
		if *got != want {
			t.Fatalf("Expected %s to be in %v, got %v", addr, want, *got)
		}
	}
}

func TestNearestIsNearest(t *testing.T) {
	paris, madrid := pointAt(48.86, 2.35), pointAt(40.42, -3.70)
	for _, tc := range []struct {
		lat, lon float64
		madrid   bool
	}{{47, 2, false}, {41, 0, true}, {38.7, -9.1, true}, {-41, 175, false}, {64, -22, false}} {
		p := pointAt(tc.lat, tc.lon)
		if got := p.dot(madrid) > p.dot(paris); got != tc.madrid {
			t.Errorf("Expected Madrid to be nearer to %v: %v, got %v", tc, tc.madrid, got)
		}
	}
	// Across the date line.
	fiji, samoa, hawaii := pointAt(-18, 178), pointAt(-13, -172), pointAt(21, -157)
	if fiji.dot(samoa) < fiji.dot(hawaii) {
		t.Error("Expected Samoa to be nearer to Fiji than Hawaii is")
	}
	want, got := pointAt(-33.87, 151.2), pointOf("33 52 12.000 S 151 12 0.000 E 10m")
	if got == nil || want.dot(*got) < 1-1e-9 {
		t.Errorf("Expected the point of a LOC to be %v, got %v", want, got)
	}
}

// A database that is damaged is an error, and never a panic.
func FuzzDatabase(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	writeDatabase(f, path, "DBIP-City-Lite", map[string]mmdbtype.Map{"10.0.0.0/12": inCountry("EU", "FR", 48.9, 2.4), "2001:db8::/32": inCountry("NA", "US")})
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, _ = readPlaces([]string{path}, newRegions())
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("Expected an end, took %s", took)
		}
	})
}

func BenchmarkNearest(b *testing.B) {
	_, city := located(b)
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
