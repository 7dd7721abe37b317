package dnsb

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// TestExplanationsMatchGoldenFiles holds still what operators and their scripts
// read: the TXT lines and the JSON form of an explanation in each layer, and the
// lines of the nodes.
func TestExplanationsMatchGoldenFiles(t *testing.T) {
	asn, city := databases(t)
	dir := t.TempDir()
	admin, mapFile := filepath.Join(dir, "admin"), filepath.Join(dir, "map")
	writeMap(t, mapFile, "# map\n172.16.0.0/12 nyc1 par1\n")
	synctest.Test(t, func(t *testing.T) { // with a clock that stands still
		until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		writeMap(t, admin, "pin 10.200.0.0/16 sin1 par1 until "+until+" reason new line\ndrain sin1 until "+until+" reason new disk\n")
		p := newFakeProber()
		start := func(lines string) *DNSB {
			d := started(t, fourNodes+lines+"\nadmin "+admin+"\nmap "+mapFile, func() prober { return p })
			par := nodeAt("par1", "192.0.2.1", "10.200.0.0/16", "192.168.0.0/16", "!192.168.5.0/24")
			par.Deputies, par.Location = []string{"st1"}, "48 0 0.000 N 2 0 0.000 E 0m"
			registers(t, d, par)
			registers(t, d, nodeAt("nyc1", "192.0.2.2", "192.168.0.0/16"))
			registers(t, d, nodeAt("sin1", "192.0.2.3"))
			return d
		}
		withDefault := start("prefix 198.51.100.0/24 st1 par1\ndefault nyc1 st1")
		bare := start("")
		located := start("asn AS64500 nyc1 par1\ncountry FR sin1 par1\ncontinent AS par1\nmmdb " + asn + "\nmmdb " + city)

		var text, objects strings.Builder
		enc := json.NewEncoder(&objects)
		enc.SetIndent("", "  ")
		explain := func(d *DNSB, addresses ...string) {
			t.Helper()
			d.refresh()
			for _, addr := range addresses {
				from := netip.MustParseAddr(addr)
				text.WriteString(strings.Join(d.explainLines("www.svc."+testZone, from), "\n") + "\n\n")
				e, err := d.Explain("www.svc."+testZone, from)
				if err != nil {
					t.Fatalf("Expected %s to be explained, got: %v", addr, err)
				}
				if err := enc.Encode(e); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.say("192.0.2.2", silent)
		explain(withDefault, "10.200.0.1", "198.51.100.1", "172.16.0.1", "192.168.0.1", "64:ff9b::c0a8:1", "203.0.113.1")
		explain(bare, "203.0.113.1")
		explain(located, "10.1.0.1", "10.0.0.1", "10.16.0.1", "10.33.0.1")
		text.WriteString(strings.Join(withDefault.nodeLines(), "\n") + "\n\n")
		p.say("192.0.2.1", silent)
		explain(withDefault, "192.168.0.1")
		for _, addr := range []string{"192.0.2.3", "192.0.2.4"} {
			p.say(addr, silent)
		}
		explain(withDefault, "192.168.0.1")

		for name, got := range map[string]string{"explain.txt": text.String(), "explain.json": objects.String()} {
			got = strings.ReplaceAll(got, dir+string(filepath.Separator), "")
			got = strings.NewReplacer(asn, "asn.mmdb", city, "city.mmdb").Replace(got)
			path := filepath.Join("testdata", name+".golden")
			if *updateGolden {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path) // #nosec G304 -- a test
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("Expected the content of %s, got:\n%s", path, got)
			}
		}
	})
}
