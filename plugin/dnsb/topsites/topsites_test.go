package topsites

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// TestCountsAreWithinBounds checks the bounds of the algorithm for a stream of far
// more sites than counters.
func TestCountsAreWithinBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4)) // #nosec G404 -- a test
	zipf := rand.NewZipf(r, 1.1, 1, 50_000)
	c := New[string]()
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
		for i := range c.shards {
			if &c.shards[i] == c.shardOf(site) {
				inShard[i]++
			}
		}
		c.Add(site, "par1")
	}

	got := c.Top()
	if got.Counted != total || got.Missed != 0 || len(got.Sites) != Capacity {
		t.Errorf("Expected %d events of %d sites, got %d of %d", total, Capacity, got.Counted, len(got.Sites))
	}
	listed := make(map[netip.Prefix]bool)
	for i, s := range got.Sites {
		listed[s.Prefix] = true
		n := exact[s.Prefix]
		if n > s.Count || n < s.Count-s.Error {
			t.Errorf("%s: Expected %d to be within %d and %d", s.Prefix, n, s.Count-s.Error, s.Count)
		}
		if i > 0 && s.Count > got.Sites[i-1].Count {
			t.Errorf("%s: Expected the most frequent sites first", s.Prefix)
		}
		if bound := 3 * total / Capacity; s.Error > uint64(bound) {
			t.Errorf("%s: Expected an error of %d at most, got %d", s.Prefix, bound, s.Error)
		}
	}
	for prefix, n := range exact {
		site := resolver.SiteOf(prefix.Addr())
		for i := range c.shards {
			if &c.shards[i] == c.shardOf(site) && n > inShard[i]/perShard && !listed[prefix] {
				t.Errorf("Expected %s with %d of %d to be listed", prefix, n, inShard[i])
			}
		}
	}
}

func TestAddDoesNotWait(t *testing.T) {
	c := New[string]()
	const each = 5_000
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range each {
				c.Add(resolver.SiteOf(netip.AddrFrom4([4]byte{10, byte(i % 7), 0, 1})), "par1")
			}
		})
	}
	for range 100 {
		c.Top()
	}
	wg.Wait()
	if got := c.Top(); got.Counted+got.Missed != 8*each || len(got.Sites) != 7 {
		t.Errorf("Expected %d events of 7 sites, got %d, %d missed, of %d", 8*each, got.Counted, got.Missed, len(got.Sites))
	}
	site := resolver.SiteOf(netip.MustParseAddr("10.0.0.1"))
	c.shardOf(site).mu.Lock()
	before := c.missed.Load()
	c.Add(site, "par1") // returns
	if c.missed.Load() != before+1 {
		t.Error("Expected an event to be missed while its shard is locked")
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	c, i := New[string](), 0
	if n := testing.AllocsPerRun(5000, func() {
		i++
		c.Add(resolver.SiteOf(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})), "par1")
	}); n != 0 {
		t.Errorf("Expected no allocations, got %v", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 7)) // #nosec G404 -- a benchmark
	from := make([]netip.Addr, 1<<16)
	for i := range from {
		from[i] = netip.AddrFrom4([4]byte{byte(1 + r.IntN(223)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
	}
	type last struct {
		node  string
		layer uint8
	}
	c := New[last]()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(from)); pb.Next(); i++ { // #nosec G404 -- a benchmark
			c.Add(resolver.SiteOf(from[i&0xffff]), last{"par1", 8})
		}
	})
	b.ReportMetric(float64(c.missed.Load())/float64(b.N), "missed/op")
}
