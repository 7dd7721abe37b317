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
		for round() == 0 || pairs(s) < nodes*(nodes-1) { // the nodes measure each other
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

// pairs returns how many latencies nodes measured of each other.
func pairs(s *Survey) (n int) {
	for _, node := range s.nodes {
		n += len(node.peers)
	}
	return n
}

// BenchmarkNodesMeasureEachOther takes nodes from their first question until they have
// measured each other, while each of them also measures a site between two questions,
// so that latencies change beside searches. With ten times as many nodes there are a
// hundred times as many latencies: the time of one must not grow with their number.
func BenchmarkNodesMeasureEachOther(b *testing.B) {
	for _, nodes := range []int{30, 100, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			names, addrs := make([]string, nodes), make([][]netip.Addr, nodes)
			for i := range names {
				names[i], addrs[i] = fmt.Sprintf("node%d", i), []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}
			}
			for b.Loop() {
				s := New()
				s.Configure(surveymsg.Options{Budget: 1 << 30})
				now := time.Now().Add(time.Hour)
				for sites := 0; pairs(s) < nodes*(nodes-1); {
					now = now.Add(askAgain)
					s.Tick(now)
					for i, name := range names {
						sites++
						addr := netip.AddrFrom4([4]byte{10, byte(sites >> 16), byte(sites >> 8), byte(sites)})
						s.mu.Lock()
						s.sighted(resolver.SiteOf(addr), addr, now)
						s.mu.Unlock()
						var results []surveymsg.Result
						for _, t := range s.Work(name, addrs[i], now).Targets {
							results = append(results, surveymsg.Result{Address: t.Address, RTT: 1 + math.Abs(float64(i-int(t.Address.As4()[3]))), Method: surveymsg.ICMP})
						}
						if _, err := s.Report(name, results, now); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*nodes*(nodes-1)), "µs/latency")
		})
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
		addr := addrs[i&0xffff]
		if site := table.Lookup(addr); site != nil {
			s.Used(site, addr)
		}
	}
}
