package dnsb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// writeMap writes a file with a time of modification of its own.
func writeMap(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	writes++
	if err := os.Chtimes(path, time.Time{}, time.Unix(writes, 0)); err != nil {
		t.Fatal(err)
	}
}

var writes int64

func TestMapFileErrors(t *testing.T) {
	dir := t.TempDir()
	path, second := filepath.Join(dir, "map"), filepath.Join(dir, "second")
	writeMap(t, second, "asn AS64500 nyc1 par1\n")
	tests := []struct {
		name    string
		content string
		want    string // part of the error
	}{
		{"all forms", "# a comment\n\n10.0.0.0/8 par1 nyc1 # and another\r\n2001:db8::/32\tnyc1\n10.1.0.0/16 AS64500\n10.2.0.0/16 AS64999", ""},
		{"node", "10.0.0.0/8 par1 lon1\n", "map:1 - unknown node 'lon1'"},
		{"asn", "asn 64500 par1\n", "map:1 - expected 'asn AS64500 NODE...'"},
		{"asn of an unknown node", "asn AS64501 lon1\n", "map:1 - unknown node 'lon1'"},
		{"asn node twice", "asn AS64501 par1 par1\n", "map:1 - node 'par1' is given twice"},
		{"asn twice", "asn AS64500 par1\n", "second:1 - asn AS64500 is given twice"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			writeMap(t, path, tc.content)
			_, err := parse(controller(fmt.Sprintf("dnsb {\nns b1 192.0.2.1\nnode par1 192.0.2.53\naccept k1 nyc1 any\nmap %s\nmap %s\n}", path, second)))
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("Expected no error, got: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("Expected an error with %q, got: %v", tc.want, err)
			}
		})
	}
	if _, err := parse(controller("dnsb {\nns b1 192.0.2.1\nmap " + dir + "/none\n}")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Expected an error for a missing file, got: %v", err)
	}
}

// settled looks at the map files twice, and reports whether there is a new map: a
// file that has changed is read when it has stayed the same.
func settled(d *DNSB) bool {
	first := d.reload()
	return d.reload() || first
}

func TestHalfWrittenMapIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	writeMap(t, path, "10.0.0.0/8 st1\n10.1.0.0/16 st1\n")
	d := alone(started(t, fourNodes+"map "+path, nil))
	for lines := range 4 {
		writeMap(t, path, strings.Repeat("# being written\n", lines)+"10.0.0.0/8 st1\n")
		if d.reload() {
			t.Fatal("Expected a file that is being written not to be read")
		}
	}
	if !d.reload() || d.resolvers.prefixes.Operators() != 1 {
		t.Errorf("Expected the whole file to be read when it stays the same, got %d prefixes", d.resolvers.prefixes.Operators())
	}
}

func TestMapReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	writeMap(t, path, "asn AS64500 st1\n10.0.0.0/8 st1\n10.1.0.0/16 par1 st1\n10.2.0.0/16 AS64500\n10.3.0.0/16 st1\n10.4.0.0/16 st1\n")
	p := newFakeProber()
	d := started(t, fourNodes+"prefix 10.4.0.0/16 nyc1\nmap "+path, func() prober { return p })
	alone(d)
	registers(t, d, nodeAt("par1", "192.0.2.1"))
	registers(t, d, nodeAt("nyc1", "192.0.2.2", "10.0.0.0/24"))
	expect := func(step string, want map[string]string) {
		t.Helper()
		for from, node := range want {
			if got := referredTo(t, d, from); got != node {
				t.Errorf("%s: Expected %s to be referred to %s, got %s", step, from, node, got)
			}
		}
	}
	first := map[string]string{"10.0.0.1": "nyc1", "10.9.0.1": "st1", "10.1.0.1": "par1", "10.2.0.1": "st1", "10.4.0.1": "nyc1"}
	expect("at the start", first)
	p.say("192.0.2.1", silent)
	d.refresh()
	expect("a node is dead", map[string]string{"10.1.0.1": "st1"})
	p.say("192.0.2.1", answering)
	d.refresh()

	if d.reload() {
		t.Error("Expected nothing to be read when nothing changed")
	}
	reloads := func(result string) float64 { return testutil.ToFloat64(reloadCount.WithLabelValues(testZone, result)) }
	for name, content := range map[string]string{
		"empty": "", "less than half": "10.0.0.0/8 par1\n", "wrong": strings.Repeat("x\n", 9),
	} {
		writeMap(t, path, content)
		before := reloads("error")
		if settled(d) || reloads("error") != before+1 {
			t.Errorf("%s: Expected the map to be refused", name)
		}
		expect(name, first)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	before := reloads("error")
	d.reload()
	if d.reload() || reloads("error") != before+1 {
		t.Error("Expected one error for a file that went away")
	}
	expect("no file", first)

	writeMap(t, path, "10.0.0.0/8 par1\n10.1.0.0/16 par1 st1\n10.5.0.0/16 st1\n")
	old, serial := d.resolvers, d.registry.Serial()
	if d.reload() || !d.reload() {
		t.Fatal("Expected the map to be read again when it does not change any more")
	}
	if added, removed, altered := d.resolvers.prefixes.Compare(old.prefixes, nil); added != 1 || removed != 2 || altered != 1 {
		t.Errorf("Expected 1 added, 2 removed, 1 changed, got %d, %d, %d", added, removed, altered)
	}
	d.refresh()
	expect("after the reload", map[string]string{"10.0.0.1": "nyc1", "10.9.0.1": "par1", "10.1.0.1": "par1", "10.3.0.1": "par1", "10.4.0.1": "nyc1", "10.5.0.1": "st1"})
	if d.snapshot.Load().serial <= serial {
		t.Error("Expected the serial of the zone to grow with the map")
	}

	// A restart with a map that shrank is refused as well; two blocks of a zone have maps of their own.
	if err := d.zone.sizes.check("map", "prefixes", []string{path}, 1); err == nil {
		t.Error("Expected a map of less than half to be refused")
	}
	if err := d.zone.sizes.check("map", "prefixes", []string{"other"}, 1); err != nil {
		t.Errorf("Expected other files to have a size of their own, got: %v", err)
	}
}

// A map is read again while nodes register, and while it is exported.
func TestMapReloadWhileRegistering(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	writeMap(t, path, "10.0.0.0/8 st1\n")
	d := alone(started(t, fourNodes+"map "+path, nil))
	var done sync.WaitGroup
	const rounds = 50
	done.Go(func() {
		for i := range rounds {
			registers(t, d, nodeAt("par1", "192.0.2.1", fmt.Sprintf("11.0.%d.0/24", i), "12.0.0.0/8"))
		}
	})
	done.Go(func() {
		for range rounds {
			exported(t, d.snapshot.Load())
		}
	})
	for i := range rounds {
		writeMap(t, path, fmt.Sprintf("10.0.0.0/8 st1\n10.0.%d.0/24 nyc1 st1\n", i))
		if !settled(d) {
			t.Fatal("Expected the map to be read again")
		}
		d.refresh()
	}
	done.Wait()
	for from, want := range map[string]string{
		"10.1.0.1": "st1", "12.0.0.1": "par1", fmt.Sprintf("11.0.%d.1", rounds-1): "par1", fmt.Sprintf("10.0.%d.1", rounds-1): "st1",
	} {
		if got := referredTo(t, d, from); got != want {
			t.Errorf("Expected %s to be referred to %s, got %s", from, want, got)
		}
	}
	n := 0
	for range d.snapshot.Load().prefixes.AllSorted() {
		n++
	}
	if n != 4 {
		t.Errorf("Expected 4 prefixes, got %d", n)
	}
}

func TestFilesMayBeginWithByteOrderMark(t *testing.T) {
	dir := t.TempDir()
	path, admin, ds := filepath.Join(dir, "map"), filepath.Join(dir, "admin"), filepath.Join(dir, "ds")
	const end = " until 2100-01-31T18:00:00Z reason x\r\n"
	writeMap(t, path, "\ufeff198.51.100.0/24 par1\r\n")
	writeMap(t, admin, "\ufeffdrain par1"+end)
	writeMap(t, ds, "\ufeffsvc.gslb.example.org. IN DS 1 13 2 "+strings.Repeat("00", 32)+"\r\n")
	block := "dnsb {\nns b1 192.0.2.1\nnode par1 192.0.2.53\ncut svc par1\nmap " + path + "\nadmin " + admin + "\nds svc " + ds + "\n}"
	d, err := parse(controller(block))
	if err != nil {
		t.Fatal(err)
	}
	if n := d.resolvers.prefixes.Operators(); n != 1 || len(d.admin.Value()) != 1 || len(d.conf.ds) != 1 {
		t.Errorf("Expected one prefix, override and cut with DS records, got %d, %d and %d", n, len(d.admin.Value()), len(d.conf.ds))
	}
	writeMap(t, path, "198.51.100.0/24 par1\n\ufeff192.0.2.0/24 par1\n")
	if _, err = parse(controller(block)); err == nil || !strings.Contains(err.Error(), `map:2 - invalid prefix '\ufeff192.0.2.0/24'`) {
		t.Errorf("Expected the mark in the error, got %q", err)
	}
}

// TestReloadGauges checks that the metrics tell whether the files are in force, over a
// reload of the Corefile too.
func TestReloadGauges(t *testing.T) {
	dir := t.TempDir()
	path, admin := filepath.Join(dir, "map"), filepath.Join(dir, "admin")
	writeMap(t, path, "10.0.0.0/8 st1\n")
	writeMap(t, admin, "drain nobody until 2100-01-31T18:00:00Z reason test\n")
	z := newZone(testZone)
	d := alone(startedWith(t, z, fourNodes+"map "+path+"\nadmin "+admin, nil))
	expect := func(step string, mapOK, adminOK float64) {
		t.Helper()
		if got := gaugeValues(reloadSuccessful, z); len(got) != 2 || got["map"] != mapOK || got["admin"] != adminOK {
			t.Errorf("%s: Expected map %v and admin %v, got %v", step, mapOK, adminOK, got)
		}
	}
	expect("start", 1, 0)
	loaded := gaugeValues(reloadTime, z)
	if loaded["admin"] != 0 || loaded["map"] < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("Expected the map to have been loaded now, and the admin file never, got %v", loaded)
	}
	writeMap(t, path, "10.0.0.0/8 nobody\n")
	writeMap(t, admin, "drain st1 until 2100-01-31T18:00:00Z reason test\n")
	settled(d)
	d.pollOverrides()
	d.pollOverrides()
	expect("bad map, good admin file", 0, 1)
	if got := gaugeValues(reloadTime, z)["map"]; got != loaded["map"] {
		t.Errorf("Expected the map to have been loaded at %v, got %v", loaded["map"], got)
	}
	next := &DNSB{conf: d.conf, admin: d.admin}
	if !next.keepMap(z, errors.New("bad map")) {
		t.Fatal("Expected the next instance to keep the map")
	}
	if status := next.fileStatus()["map"]; !status.Failed || unixSeconds(status.Loaded) != loaded["map"] {
		t.Errorf("Expected the next instance to know that its map is not that of the file, got %+v", status)
	}
	writeMap(t, path, "10.0.0.0/8 par1\n")
	if !settled(d) {
		t.Error("Expected the map to be loaded")
	}
	expect("good map", 1, 1)
}
