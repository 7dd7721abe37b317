package dnsb

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// exported returns the exported map of s.
func exported(t testing.TB, s *snapshot) string {
	t.Helper()
	var b strings.Builder
	if err := s.export(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExportMatchesGoldenFile(t *testing.T) {
	asn, city := databases(t)
	admin := filepath.Join(t.TempDir(), "admin")
	writeMap(t, admin, "pin 10.9.0.0/16 st1 until "+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+" reason test\n")
	d := started(t, fourNodes+"prefix 10.8.0.0/14 nyc1 par1\nprefix 10.8.1.0/24 nyc1\nprefix 10.10.0.0/16 !nyc1\nasn AS64500 sin1\ncountry US st1\ncontinent AS par1\nadmin "+admin+"\nmmdb "+asn+"\nmmdb "+city, nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "!10.9.1.0/24", "10.9.2.0/24"))
	serial := fmt.Sprint(d.snapshot.Load().serial)
	got := strings.Replace(exported(t, d.snapshot.Load()), serial, "SERIAL", 1)
	path := filepath.Join("testdata", "export.golden")
	if *updateGolden {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("Expected the content of %s, got:\n%s", path, got)
	}
}

// TestExportedMapRefersTheSame checks that a server which reads an exported map
// refers resolvers like the one that wrote it.
func TestExportedMapRefersTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9)) // #nosec G404 -- a test
	asn, city := databases(t)
	nodes := []string{"a1", "b1", "c1", "d1", "e1"}
	some := func(n int) []string {
		var out []string
		for _, i := range r.Perm(len(nodes))[:n] {
			out = append(out, nodes[i])
		}
		return out
	}
	prefix := func() string {
		if r.IntN(5) == 0 {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(r.IntN(3))}), 31+r.IntN(18)).Masked().String()
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(5)), byte(r.IntN(5))}), 8+r.IntN(17)).Masked().String()
	}
	dir := t.TempDir()
	admin, path := filepath.Join(dir, "admin"), filepath.Join(dir, "map")
	seen := make(map[layer]int)
	for round := range 150 {
		var both, lines, overrides strings.Builder
		for range r.IntN(3) {
			fmt.Fprintf(&overrides, "pin %s %s until %s reason test\n", prefix(), strings.Join(some(1+r.IntN(2)), " "), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}
		writeMap(t, admin, overrides.String())
		for _, node := range nodes {
			fmt.Fprintf(&both, "\naccept k1 %s any 0.0.0.0/0 10.0.0.0/7 2001:db8::/31", node)
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&both, "\ndefault %s", strings.Join(some(1+r.IntN(3)), " "))
		}
		written := make(map[string]bool)
		for range r.IntN(6) {
			if p := prefix(); !written[p] {
				written[p] = true
				names := some(1 + r.IntN(3))
				if r.IntN(2) == 0 {
					names[len(names)-1] = "!" + names[len(names)-1]
				}
				fmt.Fprintf(&lines, "\nprefix %s %s", p, strings.Join(names, " "))
			}
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&lines, "\nmmdb %s\nmmdb %s\nasn AS64500 %s\ncountry FR %s\ncontinent EU %s", asn, city,
				strings.Join(some(1+r.IntN(2)), " "), strings.Join(some(1+r.IntN(2)), " "), strings.Join(some(1), " "))
		}
		p := newFakeProber()
		probe := func() prober { return p }
		d := started(t, both.String()+lines.String()+"\nadmin "+admin, probe)
		var bare []*registration.Registration
		for i, node := range nodes {
			reg := nodeAt(node, fmt.Sprintf("192.0.2.%d", i+1))
			bare = append(bare, reg)
			full := *reg
			own := make(map[string]bool)
			for range r.IntN(8) {
				if p := prefix(); !own[p] {
					own[p] = true
					full.Prefixes = append(full.Prefixes, nodeAt("x", "192.0.2.1", []string{"", "", "!"}[r.IntN(3)]+p).Prefixes...)
				}
			}
			registers(t, d, &full)
			if r.IntN(3) == 0 {
				p.say(reg.Addresses[0].String(), silent)
			}
		}
		d.refresh()
		s := d.snapshot.Load()
		text := exported(t, s)
		writeMap(t, path, text)
		d = started(t, both.String()+"\nmap "+path, probe)
		for _, reg := range bare {
			registers(t, d, reg)
		}
		again := d.snapshot.Load()
		for range 300 {
			from := netip.AddrFrom4([4]byte{10, byte(r.IntN(6)), byte(r.IntN(6)), byte(r.IntN(256))})
			if r.IntN(4) == 0 {
				from = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(r.IntN(4)), 0, byte(r.IntN(4)), 15: 1})
			}
			p := s.plan(s.cuts["svc."+testZone], from)
			n, l := p.node, p.layer
			seen[l]++
			if got := again.plan(again.cuts["svc."+testZone], from).node; got.Node != n.Node {
				t.Fatalf("Round %d: Expected %s to be referred to %s by %s, got %s, with\n%s", round, from, n.Node, l, got.Node, text)
			}
		}
	}
	for _, l := range []layer{layerPin, layerOperator, layerRegistration, layerASN, layerCountry, layerDefault, layerHash, layerLast} {
		if seen[l] == 0 {
			t.Errorf("Expected resolvers of the layer %s, got %v", l, seen)
		}
	}
}

func TestExportedFileFollowsTheMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	synctest.Test(t, func(t *testing.T) {
		d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\nlease 5m 10m\nexport "+path, nil)
		read := func() string {
			synctest.Wait()
			content, err := os.ReadFile(path)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return string(content)
		}
		has := func(step, line string, want bool) {
			t.Helper()
			if content := read(); strings.Contains(content, line) != want {
				t.Errorf("%s: Expected the file to have %q: %v, got:\n%s", step, line, want, content)
			}
		}
		registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
		time.Sleep(2 * exportEvery)
		has("nyc1 may yet come back", "10.0.0.0/8", false)
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "11.0.0.0/8"))
		time.Sleep(exportEvery)
		has("both have registered", "10.0.0.0/8 par1 # registration\n11.0.0.0/8 nyc1 # registration\n", true)

		previous, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "11.0.0.0/8"))
		time.Sleep(2 * exportEvery)
		read()
		if now, err := os.Stat(path); err != nil || !os.SameFile(previous, now) {
			t.Errorf("Expected no new file when nothing changed, got %v", err)
		}
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "12.0.0.0/8"))
		time.Sleep(exportEvery)
		has("a change", "12.0.0.0/8 nyc1", true)
		has("a change", "11.0.0.0/8", false)
	})
	if names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); err != nil || len(names) != 1 {
		t.Errorf("Expected nothing but the file, got %v, %v", names, err)
	}
}

func BenchmarkExport(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchServer(b, n).snapshot.Load()
			for b.Loop() {
				if err := s.export(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
