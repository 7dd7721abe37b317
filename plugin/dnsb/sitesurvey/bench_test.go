package sitesurvey

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// BenchmarkSurvey takes 100,000 sites in the plane from their first question until
// they are measured by some of 100 nodes. A decision is an answer and what follows.
func BenchmarkSurvey(b *testing.B) {
	const nodes, sites = 100, MaxSites
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a benchmark
	type point struct{ x, y float64 }
	place := func() point { return point{200 * random.Float64(), 100 * random.Float64()} }
	at, names := make([]point, nodes), make([]string, nodes)
	for i := range at {
		at[i], names[i] = place(), fmt.Sprintf("node%d", i)
	}
	where := make(map[netip.Addr]point, sites)
	for i := range sites {
		where[netip.AddrFrom4([4]byte{byte(10 + i>>16), byte(i >> 8), byte(i), 7})] = place()
	}
	var before, after runtime.MemStats
	var s *Survey
	decisions := 0
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s = New()
		s.Configure(surveymsg.Options{Budget: 1 << 30})
		now := time.Now().Add(time.Hour)
		round := func() (n int) {
			now = now.Add(askAgain)
			s.Tick(now)
			for i, name := range names {
				var results []surveymsg.Result
				for _, t := range s.Work(name, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, now).Targets {
					p, ok := where[t.Address]
					if !ok {
						p = at[t.Address.As4()[3]]
					}
					results = append(results, surveymsg.Result{Address: t.Address, RTT: 0.5 + math.Hypot(p.x-at[i].x, p.y-at[i].y), Method: surveymsg.ICMP})
				}
				fresh, err := s.Report(name, results, now)
				if err != nil {
					b.Fatal(err)
				}
				n += fresh
			}
			return n
		}
		for round() == 0 || len(s.between) < nodes*(nodes-1) { // the nodes measure each other
		}
		s.mu.Lock()
		for addr := range where {
			s.sighted(resolver.SiteOf(addr), addr, now)
		}
		s.mu.Unlock()
		for n := 1; n > 0; {
			n = round()
			decisions += n
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(decisions)/b.Elapsed().Seconds(), "decisions/s")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
	b.ReportMetric(float64(decisions)/float64(b.N)/float64(len(s.list)), "measurements/site")
	if n := s.Table().Size(); n != sites {
		b.Errorf("Expected all sites to be measured, got %d", n)
	}
}

// BenchmarkLookup looks a site up as queries do.
func BenchmarkLookup(b *testing.B) {
	s := New()
	values := make(map[string][]byte, MaxSites)
	for i := range MaxSites {
		values[fmt.Sprintf("%d.%d.%d.0/24", 10+i>>16, i>>8&255, i&255)] = fmt.Appendf(nil, "1 %d.%d.%d.7 - icmp 490000 0 n1=5.000,icmp,1769770000", 10+i>>16, i>>8&255, i&255)
	}
	s.Take(values)
	table, random := s.Table(), rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a benchmark
	addrs := make([]netip.Addr, 1<<16)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10 + byte(random.IntN(2)), byte(random.IntN(256)), byte(random.IntN(256)), 9})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if site := table.Lookup(addrs[i&0xffff]); site != nil {
			s.Used(site)
		}
	}
}
