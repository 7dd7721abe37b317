package dnsb

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// explained returns an explanation, without the time of it.
func explained(t testing.TB, d *DNSB, from string) Explanation {
	t.Helper()
	e, err := d.Explain("www.svc."+testZone, netip.MustParseAddr(from))
	if err != nil {
		t.Fatalf("Expected %s to be explained, got: %v", from, err)
	}
	return e
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	admin, mapFile := filepath.Join(dir, "admin"), filepath.Join(dir, "map")
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	writeMap(t, admin, "# overrides\npin 10.9.0.0/16 sin1 par1 until "+until+" reason a new line\ndrain sin1 until "+until+" reason new disk\n")
	writeMap(t, mapFile, "# map\n\n172.16.0.0/12 nyc1\n 2001:DB8:0::/32 nyc1 par1\n")
	p := newFakeProber()
	d := started(t, fourNodes+"prefix 192.168.0.0/16 st1 par1\ndefault nyc1\nadmin "+admin+"\nmap "+mapFile, func() prober { return p })
	par := nodeAt("par1", "192.0.2.1", "10.0.0.0/8", "!10.5.0.0/16")
	par.Deputies = []string{"st1"}
	registers(t, d, par)
	registers(t, d, nodeAt("nyc1", "192.0.2.2", "10.0.0.0/8"))
	registers(t, d, nodeAt("sin1", "192.0.2.3"))
	p.say("192.0.2.2", silent)
	d.refresh()

	for _, tc := range []struct {
		from, layer, prefix, source string
		candidates                  []string
		referral                    string
		ttl                         uint32
		reason                      string
		overlaps                    []string
	}{
		{"10.0.0.1", "registration", "10.0.0.0/8", "registration of par1, lease until ", []string{"nyc1 dead timeout", "par1 live*"}, "par1 st1", 300,
			"par1 registered 10.0.0.0/8, the longest prefix with an eligible node; st1 is its first eligible deputy", []string{"nyc1", "par1"}},
		{"::ffff:10.0.0.1", "registration", "10.0.0.0/8", "", []string{"nyc1 dead timeout", "par1 live*"}, "par1 st1", 300, "", []string{"nyc1", "par1"}},
		{"64:ff9b::a00:1", "registration", "10.0.0.0/8", "", []string{"nyc1 dead timeout", "par1 live*"}, "par1 st1", 300, "", []string{"nyc1", "par1"}},
		{"10.9.0.1", "pin", "10.9.0.0/16", admin + ":2", []string{"sin1 drained new disk, until " + until, "par1 live*"}, "par1 st1", 300,
			"10.9.0.0/16 is pinned to par1 until " + until + " (a new line); st1", []string{}},
		{"10.5.0.1", "hash", "", "", []string{
			"par1 denied", "nyc1 dead timeout", "par1 denied", "nyc1 dead timeout", "st1 live*", "nyc1 dead timeout", "par1 denied", "sin1 drained new disk, until " + until,
		}, "st1", 30, "hashing the resolver site chose st1 among the 4 nodes of the cut", []string{}},
		{"192.168.0.1", "operator", "192.168.0.0/16", "Testfile:9", []string{"st1 live*", "par1 live"}, "st1", 30, "the operator named st1 for 192.168.0.0/16", []string{"st1", "par1"}},
		{"2001:db8::1", "operator", "2001:db8::/32", mapFile + ":4", []string{"nyc1 dead timeout", "par1 live*"}, "par1 st1", 300, "", []string{"nyc1", "par1"}},
	} {
		e := explained(t, d, tc.from)
		var candidates []string
		for _, c := range e.Candidates {
			s := strings.TrimSpace(c.Node + " " + c.State + " " + c.Why)
			if c.Chosen {
				s += "*"
			}
			candidates = append(candidates, s)
		}
		if tc.layer == "hash" { // in any order after the chosen one
			slices.Sort(candidates)
			slices.Sort(tc.candidates)
		}
		prefix := ""
		if e.Prefix.IsValid() {
			prefix = e.Prefix.String()
		}
		if e.Layer != tc.layer || prefix != tc.prefix || !strings.HasPrefix(e.Source, tc.source) || !slices.Equal(candidates, tc.candidates) ||
			named(e) != tc.referral || e.TTL != tc.ttl || !strings.Contains(e.Reason, tc.reason) || !slices.Equal(e.Overlaps, tc.overlaps) {
			t.Errorf("%s: Expected %+v, got %+v with candidates %q", tc.from, tc, e, candidates)
		}
		if e.Address.String() != tc.from || e.LookedUp.Is4In6() || e.Cut != "svc."+testZone {
			t.Errorf("%s: Expected the address as asked and as looked up, got %s and %s, cut %s", tc.from, e.Address, e.LookedUp, e.Cut)
		}
	}

	p.say("192.0.2.1", silent)
	d.refresh()
	e := explained(t, d, "10.0.0.1")
	if e.Layer != "registration" || named(e) != "st1" || e.TTL != 30 || !strings.HasPrefix(e.Source, "registration of par1") ||
		e.Reason != "par1 registered 10.0.0.0/8, the longest prefix with an eligible node or deputy; it is dead, and st1 is its first eligible deputy" {
		t.Errorf("Expected the deputy of the dead node, got %+v", e)
	}
	if c := e.Candidates[len(e.Candidates)-1]; c.Node != "st1" || c.Of != "par1" || !c.Chosen {
		t.Errorf("Expected the deputy as a candidate, got %+v", e.Candidates)
	}

	for _, addr := range []string{"192.0.2.3", "192.0.2.4"} {
		p.say(addr, silent)
	}
	d.refresh()
	e = explained(t, d, "10.0.0.1")
	if e.Layer != "last" || named(e) != "nyc1 par1" || !strings.HasSuffix(e.Reason, "no node of the cut answers, so this is the last known one; par1 is another one") || e.Prefix.String() != "10.0.0.0/8" {
		t.Errorf("Expected the last known nodes, got %+v", e)
	}

	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"address":"10.0.0.1"`, `"layer":"last"`, `"prefix":"10.0.0.0/8"`, `"candidates":[{"node":"nyc1","state":"dead","why":"timeout"`, `"overlaps":["nyc1","par1"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("Expected %s in the JSON form, got %s", want, text)
		}
	}
	if _, err := d.Explain(testZone, netip.MustParseAddr("10.0.0.1")); err == nil || !strings.Contains(err.Error(), "the cuts are: svc."+testZone) {
		t.Errorf("Expected an error that names the cuts, got: %v", err)
	}
	if _, err := d.Explain("svc."+testZone, netip.Addr{}); err == nil {
		t.Error("Expected an error without an address")
	}
}

func named(e Explanation) string {
	var nodes []string
	for _, n := range e.Referral {
		nodes = append(nodes, n.Node)
	}
	return strings.Join(nodes, " ")
}

// TestExplanationAgreesWithReferral compares them with random maps.
func TestExplanationAgreesWithReferral(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6)) // #nosec G404 -- a test
	nodes := []string{"n0", "n1", "n2", "n3", "n4", "n5"}
	some := func(n int) []string {
		var out []string
		for _, i := range r.Perm(len(nodes))[:n] {
			out = append(out, nodes[i])
		}
		return out
	}
	// Few addresses with few prefixes, so that many meet.
	prefix := func() string {
		if r.IntN(3) == 0 {
			addr := netip.MustParseAddr(fmt.Sprintf("2001:db8:%x:%x::", r.IntN(4), r.IntN(4)))
			return netip.PrefixFrom(addr, []int{32, 48, 64}[r.IntN(3)]).Masked().String()
		}
		addr := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(4)), 0})
		return netip.PrefixFrom(addr, []int{8, 16, 24}[r.IntN(3)]).Masked().String()
	}
	layersSeen := make(map[string]int)
	asn, city := databases(t)
	for round := range 150 {
		admin := filepath.Join(t.TempDir(), "admin")
		overrides := ""
		until := " until " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + " reason so\n"
		for range r.IntN(3) {
			overrides += "pin " + prefix() + " " + strings.Join(some(1+r.IntN(2)), " ") + until
		}
		for _, node := range some(r.IntN(3)) {
			overrides += "drain " + node + until
		}
		writeMap(t, admin, overrides)
		lines := "admin " + admin
		surveys, word := r.IntN(2) == 0, ""
		if surveys {
			lines, word = lines+"\nsurvey", " survey"
		}
		for _, node := range nodes {
			lines += "\naccept k1 " + node + " any 10.0.0.0/8" + word
		}
		written := make(map[string]bool)
		for range r.IntN(6) {
			if p := prefix(); !written[p] {
				written[p] = true
				lines += "\nprefix " + p + " " + strings.Join(some(1+r.IntN(2)), " ")
			}
		}
		if r.IntN(2) == 0 {
			lines += "\ndefault " + strings.Join(some(1+r.IntN(3)), " ")
		}
		if r.IntN(2) == 0 {
			lines += "\nmmdb " + asn + "\nmmdb " + city
			for _, line := range []string{"asn AS64500 ", "asn AS64501 ", "country FR ", "continent EU "} {
				if r.IntN(2) == 0 {
					lines += "\n" + line + strings.Join(some(1+r.IntN(2)), " ")
				}
			}
		}
		p := newFakeProber()
		d := started(t, lines, func() prober { return p })
		for i, node := range nodes {
			if r.IntN(5) == 0 {
				continue
			}
			reg := nodeAt(node, fmt.Sprintf("192.0.2.%d", i+1))
			own := make(map[string]bool)
			for range r.IntN(8) {
				if p := prefix(); !own[p] {
					own[p] = true
					reg.Prefixes = append(reg.Prefixes, nodeAt("x", "192.0.2.1", []string{"", "", "!"}[r.IntN(3)]+p).Prefixes...)
				}
			}
			if r.IntN(2) == 0 {
				reg.Deputies = some(2)
			}
			reg.ClientSubnets = r.IntN(3) > 0
			if r.IntN(2) == 0 {
				reg.Location = fmt.Sprintf("%d 0 0.000 N 2 0 0.000 E 0m", 10*i)
			}
			if r.IntN(6) == 0 {
				reg.Cuts = []string{"other." + testZone}
			}
			registers(t, d, reg)
			if round%10 == 0 || r.IntN(3) == 0 {
				p.say(reg.Addresses[0].String(), silent)
			}
		}
		d.refresh()
		if surveys {
			latencies := make(map[string]map[string]float64)
			for _, node := range some(1 + r.IntN(3)) {
				latencies[node] = make(map[string]float64)
				for i := range 12 {
					latencies[node][fmt.Sprintf("10.%d.%d.1", i/4, i%4)] = float64(r.IntN(200)) // 0: silent
				}
			}
			measured(t, d, latencies)
		}
		for range 40 {
			from := fmt.Sprintf("10.%d.%d.%d", r.IntN(5), r.IntN(5), r.IntN(256))
			switch r.IntN(4) {
			case 0:
				from = fmt.Sprintf("2001:db8:%x:%x::%x", r.IntN(5), r.IntN(5), r.IntN(256))
			case 1:
				from = "64:ff9b::" + from
			}
			m := ask(t, d, from, "www.svc."+testZone, dns.TypeA)
			e, err := d.Explain("svc."+testZone, netip.MustParseAddr(from))
			if (err != nil) != (len(m.Ns) == 0 || m.Rcode != dns.RcodeSuccess) {
				t.Fatalf("Round %d, %s: Expected an explanation for every referral, got %v and %v", round, from, err, m)
			}
			if err != nil {
				continue
			}
			layersSeen[e.Layer]++
			var got []string
			for _, rr := range m.Ns {
				got = append(got, strings.TrimSuffix(rr.(*dns.NS).Ns, ".lb."+testZone))
			}
			chosen := slices.IndexFunc(e.Candidates, func(c Candidate) bool { return c.Chosen })
			if strings.Join(got, " ") != named(e) || m.Ns[0].Header().Ttl != e.TTL || chosen < 0 || e.Candidates[chosen].Node != got[0] {
				t.Fatalf("Round %d, %s: Expected the nodes of the referral, %v, got %+v", round, from, m.Ns, e)
			}
			if e.Prefix.IsValid() && !e.Prefix.Contains(e.LookedUp) || e.Prefix != e.Candidates[chosen].Prefix {
				t.Fatalf("Round %d, %s: Expected a prefix of the address, got %+v", round, from, e)
			}
		}
	}
	for l := range layers {
		if layersSeen[l.String()] == 0 {
			t.Errorf("Expected resolvers of the layer %s, got %v", l, layersSeen)
		}
	}
}
