package dnsb

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
)

const laterOn = " until 2100-01-01T00:00:00Z reason new disk"

func TestLinesAboutServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	d, err := parse(controller("dnsb {\nns b1 192.0.2.1\naccept k1 par1 any\naccept k1 server any\nadmin " + path + "\n}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ file, line, err string }{
		{"", "down server fra", ""},
		{"", "UP server 192.0.2.* for *", ""},
		{"", "drain server fra for www.svc." + testZone, ""},
		{"", "drain server", ""}, // the node with this name
		{"", "drain server server", ""},
		{"", "down fra", "expected 'down server SERVER [for SERVICE] until TIME reason TEXT...'"},
		{"", "down server", "expected 'down server SERVER"},
		{"", "drain server fra for", "expected 'drain server SERVER [for SERVICE] until TIME reason TEXT...'"},
		{"", "drain fra", "unknown node 'fra': declare it with 'node' or 'accept' in the Corefile, or write 'drain server fra' for a server"},
		{"", "down server fra for www.example.net", "service 'www.example.net.' is not in the zone " + testZone},
		{"", "down server fra[", "invalid pattern 'fra['"},
		{"oops", "down server fra", "the admin file has an error, so that no new line counts: correct it first: " + path + ":1 - unknown verb 'oops'"},
		{"up server fra" + laterOn, "down server fra", "an earlier line counts for the same server, remove it with 'undo' first: up server fra until"},
		{"up server fra" + laterOn, "down server fra for www.svc." + testZone, "an earlier line counts"},
		{"up server fra for www.svc." + testZone + laterOn, "down server fra", ""},
		{"up server iad" + laterOn + "\ndown server fra" + laterOn, "down server fra", ""},
		{"up server fra until 2000-01-01T00:00:00Z reason ended", "down server fra", ""},
		{strings.Repeat("down server fra"+laterOn+"\n", serveroverride.Max-1), "down server iad", ""},
		{strings.Repeat("down server fra"+laterOn+"\n", serveroverride.Max), "down server iad", "more than 50 overrides of servers: remove"},
		{strings.Repeat("down server fra"+laterOn+"\n", serveroverride.Max+1), "drain par1", path + ":51 - more than 50 overrides of servers"},
	} {
		writeMap(t, path, tc.file)
		err := d.CheckOverride(tc.line + laterOn)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%.50q, %s: Expected error %q, got %v", tc.file, tc.line, tc.err, err)
		}
	}
}

// TestOverridesAreServed checks what nodes get that ask for overrides of servers.
func TestOverridesAreServed(t *testing.T) {
	logtest.Capture(t)
	path := filepath.Join(t.TempDir(), "admin")
	writeMap(t, path, "drain par1"+laterOn+"\nDown server fra"+laterOn+"\nup server iad until 2000-01-01T00:00:00Z reason ended\nup server * for www.svc.gslb.example.org"+laterOn+"\n")
	s, port := serve(t, "explain 127.0.0.0/8\nadmin "+path)
	ask := func(node, cut, key, secret string) *dns.Msg {
		t.Helper()
		return send(t, port, new(dns.Msg).SetQuestion(node+"._override."+cut, dns.TypeTXT), key, secret)
	}
	const cut = "svc.gslb.example.org."
	nodes := func() string {
		t.Helper()
		var lines []string
		for _, rr := range query(t, port, "tcp", "nodes._explain.gslb.example.org.", dns.TypeTXT).Answer {
			lines = append(lines, strings.Join(rr.(*dns.TXT).Txt, ""))
		}
		return strings.Join(lines, "\n")
	}
	for _, r := range []struct{ node, key, secret string }{{"par1", parKey, parSecret}, {"nyc1", nycKey, nycSecret}} {
		if m := send(t, port, sent(t, nodeAt(r.node, "127.0.0.1")), r.key, r.secret); m.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected %s to register, got %v", r.node, m)
		}
	}
	want := []string{"Down fra" + laterOn, "up * for www.svc.gslb.example.org" + laterOn}
	for range 2 { // names have no case
		m := ask("PAR1", "SVC.gslb.example.org.", parKey, parSecret)
		if lines, err := serveroverride.ReadLines(m.Answer, "par1._override."+cut); err != nil || !slices.Equal(lines, want) || !m.Authoritative || m.IsTsig() == nil {
			t.Errorf("Expected %q, got %v, %v", want, m, err)
		}
	}
	if got := nodes(); !strings.Contains(got, "par1 drained") || !strings.Contains(got, ", has the overrides of servers") || strings.Count(got, "has not fetched the overrides of servers") != 1 {
		t.Errorf("Expected par1 to have fetched and nyc1 not, got %s", got)
	}
	for name, tc := range map[string]struct {
		m     *dns.Msg
		rcode int
	}{
		"another node":       {ask("nyc1", cut, parKey, parSecret), dns.RcodeNotAuth},
		"another cut":        {ask("par1", "other.gslb.example.org.", parKey, parSecret), dns.RcodeNotAuth},
		"no signature":       {ask("par1", cut, "", ""), dns.RcodeSuccess}, // a referral
		"any cut may be its": {ask("nyc1", "other.gslb.example.org.", nycKey, nycSecret), dns.RcodeSuccess},
	} {
		if tc.m.Rcode != tc.rcode || len(tc.m.Answer) > 0 != strings.HasPrefix(name, "any") {
			t.Errorf("%s: Expected %s, got %v", name, dns.RcodeToString[tc.rcode], tc.m)
		}
	}

	// After a start with an error it is not known what nodes should have.
	wrong := filepath.Join(t.TempDir(), "admin")
	writeMap(t, wrong, "down fra\n")
	if err := s.restart("admin " + wrong); err != nil {
		t.Fatal(err)
	}
	if m := ask("par1", cut, parKey, parSecret); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("Expected SERVFAIL, got %v", m)
	}
	if err := s.restart(""); err != nil {
		t.Fatal(err)
	}
	if lines, err := serveroverride.ReadLines(ask("par1", cut, parKey, parSecret).Answer, "par1._override."+cut); err != nil || len(lines) != 0 {
		t.Errorf("Expected no overrides without an admin file, got %v, %v", lines, err)
	}
}

// TestNodesAreNotifiedOfOverrides checks that nodes are notified until they have
// fetched, and what the log and the gauges say.
func TestNodesAreNotifiedOfOverrides(t *testing.T) {
	const noticed = filewatch.Interval + filewatch.SettleTime
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin")
		d, err := parse(controller("dnsb {\nns b1 192.0.2.1\naccept k1 par1 any\naccept k1 lon1 any\naccept k1 ams1 any\nnode st2 192.0.2.9\nadmin " + path + "\n}"))
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var notified []string
		fetches := map[string]bool{"192.0.2.53": true} // nodes that ask after a NOTIFY
		z := newZone(testZone)
		d.notifyNode = func(_ context.Context, zone string, to netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			if !strings.HasPrefix(zone, "_override.") {
				return
			}
			notified = append(notified, to.String())
			if zone != "_override.svc."+testZone {
				t.Errorf("Unexpected zone %s", zone)
			}
			if fetches[to.String()] {
				node := map[string]string{"192.0.2.53": "par1", "192.0.2.54": "lon1"}[to.String()]
				z.fetched.note(node, d.snapshot.Load().overrides.servers)
			}
		}
		d.start(z)
		defer z.registry.Close()
		defer d.close()
		registers(t, d, nodeAt("par1", "192.0.2.53"))
		registers(t, d, nodeAt("lon1", "192.0.2.54"))
		expect := func(after time.Duration, what ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(notified)
			if !slices.Equal(notified, what) {
				t.Errorf("Expected notified %q, got %q", what, notified)
			}
			notified = nil
		}
		expect(time.Minute)
		log.Lines()
		writeMap(t, path, "down server fra"+laterOn+"\n")
		expect(noticed, "192.0.2.53", "192.0.2.54")
		expect(time.Minute, slices.Repeat([]string{"192.0.2.54"}, 4)...) // after 1, 2, 4 and 8 seconds more
		log.Expect(t, fmt.Sprintf("Reloaded admin file %q: 1 override", path), "Nodes of "+testZone+" have not fetched the current overrides of servers (1): lon1")
		if got := gaugeValues(nodeOverrides, d.zone); got["par1"] != 1 || got["lon1"] != 0 {
			t.Errorf("Unexpected gauges %v", got)
		}
		if got := gaugeValues(overrideCount, d.zone); got["down server"] != 1 || got["drain"] != 0 {
			t.Errorf("Unexpected gauges %v", got)
		}
		writeMap(t, path, "drain st2"+laterOn+"\ndown server fra"+laterOn+"\n")
		expect(noticed) // the same for nodes
		mu.Lock()
		fetches["192.0.2.54"] = true
		mu.Unlock()
		writeMap(t, path, "")
		expect(noticed, "192.0.2.53")
		// lon1 never had any, so that it lacks nothing.
		expect(time.Minute)
		log.Lines()
		writeMap(t, path, "down server iad"+laterOn+"\n")
		expect(noticed+time.Minute, "192.0.2.53", "192.0.2.54")
		log.Expect(t, "Reloaded admin file", "All live nodes of "+testZone+" have fetched the current overrides of servers (1)")
		registers(t, d, nodeAt("ams1", "192.0.2.55"))
		expect(0, "192.0.2.55")
		z.fetched.note("ams1", d.snapshot.Load().overrides.servers)
		expect(time.Minute)
		log.Expect(t, "All live nodes of "+testZone+" have fetched")
		registers(t, d, nodeAt("ams1", "192.0.2.56")) // it is not new
		expect(time.Minute)
	})
}
