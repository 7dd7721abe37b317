package dnsb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// The bounds of the algorithm hold for a stream of far more sites than counters.
func TestUnmappedBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4)) // #nosec G404 -- a test
	zipf := rand.NewZipf(r, 1.1, 1, 50_000)
	u := &unmapped{since: time.Now()}
	exact := make(map[netip.Prefix]uint64)
	var inShard [shards]uint64
	const total = 400_000
	for range total {
		n := zipf.Uint64()
		addr := netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(r.Uint32())})
		if n%3 == 0 {
			addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 8), byte(n), byte(r.Uint32())})
		}
		site := resolver.SiteOf(addr)
		exact[site.Prefix()]++
		for i := range u.shards {
			if &u.shards[i] == u.shardOf(site) {
				inShard[i]++
			}
		}
		u.add(addr, "par1", layerHash)
	}

	got := u.list()
	if got.Counted != total || got.Missed != 0 || len(got.Prefixes) != shards*perShard {
		t.Errorf("Expected %d referrals in %d prefixes, got %d in %d", total, shards*perShard, got.Counted, len(got.Prefixes))
	}
	listed := make(map[netip.Prefix]bool)
	for i, p := range got.Prefixes {
		listed[p.Prefix] = true
		n := exact[p.Prefix]
		if n > p.Count || n < p.Count-p.Error {
			t.Errorf("%s: Expected %d to be within %d and %d", p.Prefix, n, p.Count-p.Error, p.Count)
		}
		if i > 0 && p.Count > got.Prefixes[i-1].Count {
			t.Errorf("%s: Expected the most frequent ones first", p.Prefix)
		}
		if bound := 3 * total / (shards * perShard); p.Error > uint64(bound) {
			t.Errorf("%s: Expected an error of %d at most, got %d", p.Prefix, bound, p.Error)
		}
	}
	for prefix, n := range exact {
		site := resolver.SiteOf(prefix.Addr())
		for i := range u.shards {
			if &u.shards[i] == u.shardOf(site) && n > inShard[i]/perShard && !listed[prefix] {
				t.Errorf("Expected %s with %d of %d to be listed", prefix, n, inShard[i])
			}
		}
	}
}

// Nobody waits: what is not counted is missed.
func TestUnmappedConcurrently(t *testing.T) {
	u := &unmapped{}
	const each = 5_000
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range each {
				u.add(netip.AddrFrom4([4]byte{10, byte(i % 7), 0, 1}), "par1", layerDefault)
			}
		})
	}
	for range 100 {
		u.list()
	}
	wg.Wait()
	if got := u.list(); got.Counted+got.Missed != 8*each || len(got.Prefixes) != 7 {
		t.Errorf("Expected %d referrals in 7 prefixes, got %d, %d missed, in %d", 8*each, got.Counted, got.Missed, len(got.Prefixes))
	}
	u.shardOf(resolver.SiteOf(netip.MustParseAddr("10.0.0.1"))).mu.Lock()
	before := u.missed.Load()
	u.add(netip.MustParseAddr("10.0.0.1"), "par1", layerDefault) // returns
	if u.missed.Load() != before+1 {
		t.Error("Expected a referral to be missed while its counters are in use")
	}
}

func TestUnmappedDoesNotAllocate(t *testing.T) {
	u, i := &unmapped{}, 0
	if n := testing.AllocsPerRun(5000, func() {
		i++
		u.add(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), "par1", layerHash)
	}); n != 0 {
		t.Errorf("Expected no allocations, got %v", n)
	}
}

// What is listed is what was referred, and outlives the instance.
func TestUnmapped(t *testing.T) {
	z := newZone(testZone)
	d := startedWith(t, z, "accept k1 par1 any\nnode st1 192.0.2.4\ncut svc st1\ndefault st1", nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
	for i := range 5 {
		referredTo(t, d, fmt.Sprintf("203.0.113.%d", i))
		referredTo(t, d, fmt.Sprintf("10.0.0.%d", i))
	}
	referredTo(t, d, "2001:db8:1::1")
	younger := startedWith(t, z, "accept k1 par1 any", nil)
	referredTo(t, younger, "2001:db8:1:2::1")
	for _, d := range []*DNSB{d, younger} {
		got := d.Unmapped()
		if got.Counted != 7 || len(got.Prefixes) != 2 || got.Since.IsZero() {
			t.Fatalf("Expected 7 referrals of 2 sites, got %+v", got)
		}
		for i, want := range []UnmappedPrefix{
			{netip.MustParsePrefix("203.0.113.0/24"), 5, 0, "st1", "default", got.Prefixes[0].Last},
			{netip.MustParsePrefix("2001:db8:1::/48"), 2, 0, "par1", "hash", got.Prefixes[1].Last},
		} {
			if got.Prefixes[i] != want || want.Last.IsZero() {
				t.Errorf("Expected %+v, got %+v", want, got.Prefixes[i])
			}
		}
	}
}

func BenchmarkUnmapped(b *testing.B) {
	u := &unmapped{}
	from := resolvers()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(from)); pb.Next(); i++ { // #nosec G404 -- a benchmark
			u.add(from[i&0xffff], "par1", layerHash)
		}
	})
	b.ReportMetric(float64(u.missed.Load())/float64(b.N), "missed/op")
}
