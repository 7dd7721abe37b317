package dnsb

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap/prefixmaptest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

var sizes = []int{1_000, 100_000, 1_000_000}

const benchNodes = 50

func benchLines() string {
	lines := "accept k1 par1 any\ncut svc"
	for i := range benchNodes {
		lines += fmt.Sprintf(" n%d", i)
	}
	for i := range benchNodes {
		lines += fmt.Sprintf("\nnode n%d 192.0.2.%d 2001:db8::%d", i, i+1, i+1)
	}
	return lines
}

// benchMap writes a map file of n prefixes.
func benchMap(b *testing.B, n int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "map")
	f, err := os.Create(path) // #nosec G304 -- a benchmark
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i, p := range prefixmaptest.Prefixes(n, 1) {
		fmt.Fprintf(w, "%s n%d n%d\n", p, i%benchNodes, (i+1)%benchNodes)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

func benchServer(b *testing.B, n int) *DNSB {
	b.Helper()
	return started(b, benchLines()+"\nmap "+benchMap(b, n), nil)
}

func resolvers() []netip.Addr {
	r := rand.New(rand.NewPCG(7, 7)) // #nosec G404 -- a benchmark
	addrs := make([]netip.Addr, 1<<16)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{byte(1 + r.IntN(223)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
	}
	return addrs
}

func BenchmarkLookup(b *testing.B) {
	from := resolvers()
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchServer(b, n).snapshot.Load()
			c := s.cuts["svc."+testZone]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, _, ok := s.firstEligible(c, from[i&0xffff]); !ok {
					b.Fatal("Expected a node")
				}
			}
		})
	}
}

// BenchmarkHash chooses the node of a resolver that nothing maps, by its site: of
// one of a thousand sites that ask again and again, and of one of very many.
func BenchmarkHash(b *testing.B) {
	from := resolvers()
	for _, n := range []int{10, 100, 1_000} {
		for _, sites := range []int{1 << 10, len(from)} {
			b.Run(fmt.Sprintf("nodes=%d/sites=%d", n, sites), func(b *testing.B) {
				s := started(b, cutLines(1, n), nil).snapshot.Load()
				c := s.cuts["c0."+testZone]
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if found, _, ok := s.firstEligible(c, from[i&(sites-1)]); !ok || found.layer != layerHash {
						b.Fatal("Expected a node by the hash of the site")
					}
				}
			})
		}
	}
}

func BenchmarkReferral(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := benchServer(b, n)
			m := new(dns.Msg)
			m.SetQuestion("www.svc."+testZone, dns.TypeA)
			w := &test.ResponseWriter{RemoteIP: "198.51.100.1"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExplain is an explanation, which looks for the line of the prefix.
func BenchmarkExplain(b *testing.B) {
	from := resolvers()
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := benchServer(b, n)
			for i := 0; b.Loop(); i++ {
				if _, err := d.Explain("svc."+testZone, from[i&0xffff]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRegistration is the time until 9,000 prefixes, all of them new and in
// the place of 9,000 others, are visible.
func BenchmarkRegistration(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := benchServer(b, n)
			var regs [2]*registration.Registration
			for i := range regs {
				regs[i] = nodeAt("par1", "192.0.2.200")
				for _, p := range prefixmaptest.Prefixes(9000, uint64(i)+10) { // #nosec G115 -- two
					regs[i].Prefixes = append(regs[i].Prefixes, registration.Prefix{Prefix: p})
				}
			}
			registers(b, d, regs[1])
			for i := 0; b.Loop(); i++ {
				registers(b, d, regs[i&1])
			}
		})
	}
}

// BenchmarkRefresh is a registration in which nothing is new.
func BenchmarkRefresh(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := benchServer(b, n)
			r := nodeAt("par1", "192.0.2.200")
			for _, p := range prefixmaptest.Prefixes(9000, 10) {
				r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: p})
			}
			for b.Loop() {
				registers(b, d, r)
			}
		})
	}
}

// BenchmarkLoad reads a map file, and reports what the map takes of the heap.
func BenchmarkLoad(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			block := "dnsb {\nns b1 192.0.2.1\n" + benchLines() + "\nmap " + benchMap(b, n) + "\n}"
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var d *DNSB
			for b.Loop() {
				var err error
				if d, err = parse(controller(block)); err != nil {
					b.Fatal(err)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
			runtime.KeepAlive(d)
		})
	}
}

// cutLines are the lines of cuts that all of some static nodes serve.
func cutLines(cuts, nodes int) string {
	var lines, names strings.Builder
	for i := range nodes {
		fmt.Fprintf(&lines, "node n%d 192.0.%d.%d\n", i, 2+i>>8, i&0xff)
		fmt.Fprintf(&names, " n%d", i)
	}
	for i := range cuts {
		fmt.Fprintf(&lines, "cut c%d%s\n", i, names.String())
	}
	return lines.String()
}

// BenchmarkLoadCuts reads 'cut' lines and makes the first snapshot. It shows
// whether that grows faster than the lines and their nodes.
func BenchmarkLoadCuts(b *testing.B) {
	for _, nodes := range []int{10, 100} {
		for _, cuts := range []int{1_000, 10_000} {
			b.Run(fmt.Sprintf("cuts=%d/nodes=%d", cuts, nodes), func(b *testing.B) {
				lines := cutLines(cuts, nodes)
				for b.Loop() {
					alone(started(b, lines, nil))
				}
			})
		}
	}
}

// leases is a shared store in which a benchmark ends leases.
type leases struct{ registry.Replica }

func (l *leases) String() string { return "leases" }

func (l *leases) Read(string) (registry.Contents, error) { return registry.Contents{}, nil }

func (l *leases) Follow(_ string, replica registry.Replica) registry.Store {
	l.Replica = replica
	l.Replace(nil)
	return l
}

func (l *leases) Version(string) int64      { return 0 }
func (l *leases) Write(*registry.Txn) error { return nil }
func (l *leases) Close() error              { return nil }

// BenchmarkExpiry is the end of one lease, until it is visible.
func BenchmarkExpiry(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := benchServer(b, n)
			store := new(leases)
			if err := d.registry.SetStore(store, 0); err != nil {
				b.Fatal(err)
			}
			e := registry.Entry{Node: "par1", Registration: nodeAt("par1", "192.0.2.200", "198.51.100.0/24")}
			for b.Loop() {
				b.StopTimer()
				e.Serial++
				e.Lease, e.LeaseEnd = time.Hour, time.Now().Add(time.Hour)
				store.Merge([]registry.Entry{e})
				d.catchUp()
				b.StartTimer()
				e.Lease, e.LeaseEnd = 0, time.Now()
				store.Merge([]registry.Entry{e})
				d.catchUp()
			}
		})
	}
}
