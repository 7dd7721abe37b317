package dnsb

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Anybody can forge the source of a question over UDP: an answer must not cost the
// server a read of a large file.
func TestExplanationReadsNoFile(t *testing.T) {
	dir := t.TempDir()
	first, second, empty := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "empty")
	writeMap(t, first, "\ufeff# a comment\r\n10.0.0.0/8 st1\r\n\r\n2001:0db8:0:0::/32 st1\nasn AS64500 st1\n10.3.0.0/16 st1")
	writeMap(t, empty, "")
	writeMap(t, second, "10.1.0.0/16 AS64500\n10.2.0.0/16 st1 # the last one\n")
	d := started(t, fmt.Sprintf("node st1 192.0.2.4\ncut svc st1\nprefix 10.2.0.0/16 st1\nmap %s\nmap %s\nmap %s\n", first, empty, second), nil)
	for _, path := range []string{first, second, empty} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[string]string{
		"10.9.0.1": first + ":2", "2001:db8::1": first + ":4", "10.3.0.1": first + ":6", "10.1.0.1": second + ":1", "10.2.0.1": "Testfile:5",
	} {
		if e := explained(t, d, from); e.Source != want {
			t.Errorf("Expected %s to have the source %s, got %s", from, want, e.Source)
		}
	}
}

// The sources of questions over UDP can be forged.
func TestLongExplanationsNeedTCP(t *testing.T) {
	const nodes = 1000
	var lines strings.Builder
	names := make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
		fmt.Fprintf(&lines, "node %s 192.0.2.%d\n", names[i], i%250+1)
	}
	for i := range 30 {
		fmt.Fprintf(&lines, "cut c%d %s\n", i, strings.Join(names, " "))
	}
	d := started(t, lines.String()+"explain 198.51.100.0/24", nil)
	for _, name := range []string{"nodes._explain." + testZone, "_explain." + testZone} {
		allocated := testing.AllocsPerRun(5, func() {
			if m := ask(t, d, "198.51.100.7", name, dns.TypeTXT); !m.Truncated || len(m.Answer) > 0 {
				t.Errorf("%s: Expected a truncated reply over UDP, got %v", name, m)
			}
		})
		if allocated > 100 {
			t.Errorf("%s: Expected no list to be made, got %v allocations", name, allocated)
		}
		if m := askTCP(t, d, "198.51.100.7", name); m.Truncated || len(m.Answer) < 100 {
			t.Errorf("%s: Expected the list over TCP, got %d lines", name, len(m.Answer))
		}
	}
	e, err := d.Explain("c1."+testZone, netip.MustParseAddr("10.0.0.1"))
	if err != nil || e.Layer != "hash" || len(e.Candidates) != maxCandidates || !e.Candidates[0].Chosen {
		t.Errorf("Expected the first candidates, got %d of layer %s: %v", len(e.Candidates), e.Layer, err)
	}
	if _, err := d.Explain("none."+testZone, netip.MustParseAddr("10.0.0.1")); err == nil || !strings.HasSuffix(err.Error(), "one of the 30 cuts") {
		t.Errorf("Expected an error without the names of many cuts, got %v", err)
	}
}
