package dnsb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
)

// considers returns the nodes that a search considers for a resolver before it
// hashes, whatever the families of their addresses, as words LAYER=NODE.
func (s *snapshot) considers(c *cut, from netip.Addr) []string {
	var words []string
	seen := make(map[nodeID]bool)
	q := search{snapshot: s, cut: c, from: from}
	q.candidates(func(one candidate) bool {
		if q.pass > 2 || one.layer >= layerHash {
			return q.pass < 2
		}
		if q.pass == 2 && one.verdict == eligible && !seen[one.id] && one.principal == nil {
			seen[one.id] = true
			words = append(words, one.layer.String()+"="+s.names[one.id])
		}
		return true
	})
	return words
}

// TestSharedMapIsThatOfTheSearch checks that nodes have the same nodes for each
// address, in the same order, as the search for a referral.
func TestSharedMapIsThatOfTheSearch(t *testing.T) {
	asn, city := databases(t)
	d := started(t, strings.Join([]string{
		"node par1 192.0.2.1 location 48 2", "node lon1 192.0.2.2 location 51 0", "node nyc1 192.0.2.3 location 40 -74",
		"node fra1 192.0.2.4", "node oth1 192.0.2.5 location 48 2", "accept k1 reg1 any for svc survey", "accept k1 reg2 any for svc survey", "survey",
		"cut svc par1 lon1 nyc1 fra1", "cut other oth1", "default fra1", "mmdb " + asn, "mmdb " + city,
		"asn AS64500 lon1 par1", "country FR par1", "continent NA nyc1 oth1",
		"prefix 10.1.0.0/16 par1 oth1", "prefix 10.1.128.0/17 lon1 !par1", "prefix 10.16.0.0/16 nyc1", "prefix 2001:db8::/32 par1 lon1",
	}, "\n"), nil)
	registers(t, d, nodeAt("reg1", "192.0.2.6", "10.1.0.0/16", "!10.1.128.0/18", "2001:db8:1::/48"))
	registers(t, d, nodeAt("reg2", "192.0.2.7", "10.2.0.0/16", "10.1.0.0/16"))
	measured(t, d, map[string]map[string]float64{
		"reg1": {"10.1.130.1": 9, "10.20.1.1": 20, "10.21.1.1": 5, "9.1.1.1": 7}, "reg2": {"10.1.130.1": 2, "10.20.1.1": 10, "10.21.1.1": 10, "9.1.1.1": 0},
	})
	s := d.snapshot.Load()
	shared := s.share()
	table, err := nodemaptest.Read(t, "svc."+testZone, shared.lists, shared.nodes["svc."+testZone]...)
	if err != nil {
		t.Fatal(err)
	}
	random, c, different := rand.New(rand.NewPCG(1, 2)), s.cuts["svc."+testZone], make(map[string]bool) // #nosec G404 -- a repeatable test
	for range 3000 {
		from := netip.AddrFrom4([4]byte{byte(9 + random.IntN(2)), byte(random.IntN(40)), byte(random.IntN(256)), 1})
		if random.IntN(4) == 0 {
			from = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: byte(random.IntN(5)), 15: 1})
		}
		var got []string
		candidates, _ := table.Lookup(from)
		for i, id := range candidates.Nodes {
			got = append(got, candidates.Layers[i]+"="+table.Names[id])
		}
		want := s.considers(c, from)
		slices.Sort(farther(want)) // the search needs only the first one
		slices.Sort(farther(got))
		if !slices.Equal(got, want) {
			t.Fatalf("Expected %v for %s, got %v", want, from, got)
		}
		different[strings.Join(got, " ")] = true
	}
	if len(different) < 8 {
		t.Errorf("Expected many different lists, got %d", len(different))
	}
}

// farther returns the words of nodes by coordinates, but for the nearest one.
func farther(words []string) []string {
	i := slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, "location=") })
	if i < 0 {
		return nil
	}
	return words[i+1:]
}

// TestMapIsSharedWhenItChanges checks when nodes get another version, and are
// notified of it.
func TestMapIsSharedWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := parse(controller("dnsb {\nns b1 192.0.2.1\naccept k1 par1 any\naccept k1 lon1 any\n}"))
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var notified []string
		d.notifyNode = func(_ context.Context, zone string, to netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			notified = append(notified, zone+" "+to.String())
		}
		z := newZone(testZone)
		d.start(z)
		defer z.registry.Close()
		defer d.close()
		registers(t, d, nodeAt("par1", "192.0.2.53", "198.51.100.0/24"))
		time.Sleep(shareDelay - 250*time.Millisecond)
		if z.shared.Load() != nil {
			t.Error("Expected no map before the nodes had time to register again")
		}
		expect := func(serial uint32, what ...string) {
			t.Helper()
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(notified)
			if m := z.shared.Load(); m == nil || m.serial != serial || !slices.Equal(notified, what) {
				t.Errorf("Expected serial %d and notified %q, got %+v and %q", serial, what, m, notified)
			}
			notified = nil
		}
		zone := nodemap.ZoneOf("svc." + testZone)
		first := uint32(time.Now().Add(time.Second).Unix()) // #nosec G115 -- in 2000
		expect(first, zone+" 192.0.2.53")
		time.Sleep(shareInterval)
		registers(t, d, nodeAt("par1", "192.0.2.53", "198.51.100.0/24")) // the lease is renewed
		expect(first)
		registers(t, d, nodeAt("lon1", "192.0.2.54"))
		second := uint32(time.Now().Unix()) // #nosec G115 -- in 2000
		expect(second, zone+" 192.0.2.53", zone+" 192.0.2.54")
		registers(t, d, nodeAt("lon1", "192.0.2.54", "203.0.113.0/24"))
		expect(second) // not so soon
		time.Sleep(shareInterval)
		expect(second+uint32(shareInterval/time.Second), zone+" 192.0.2.53", zone+" 192.0.2.54")
	})
}

// TestMapNeedsSignature checks that an unsigned question for the map of a cut is
// refused, and that the label means nothing in other names.
func TestMapNeedsSignature(t *testing.T) {
	d := started(t, "accept k1 par1 any", nil)
	registers(t, d, nodeAt("par1", "192.0.2.53"))
	m := new(dns.Msg).SetQuestion("_MAP.svc."+testZone, dns.TypeSOA)
	if rcode, err := d.ServeDNS(t.Context(), &test.ResponseWriter{}, m); rcode != dns.RcodeRefused || err != nil {
		t.Errorf("Expected REFUSED, got %s, %v", dns.RcodeToString[rcode], err)
	}
	if m := ask(t, d, "198.51.100.1", "_map.www.svc."+testZone, dns.TypeA); len(m.Ns) != 1 || m.Ns[0].Header().Name != "svc."+testZone {
		t.Errorf("Expected a referral for a name below the cut, got %v", m)
	}
	if m := ask(t, d, "198.51.100.1", "_map."+testZone, dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("Expected NXDOMAIN in the zone itself, got %v", m)
	}
}

// BenchmarkShare makes the map for nodes.
func BenchmarkShare(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchServer(b, n).snapshot.Load()
			for b.Loop() {
				s.share()
			}
		})
	}
}
