package dnslb

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const (
	manyServers  = 10_000
	manyServices = 100_000
	perService   = 8
	maxManySize  = 150 // MiB, of all of these
)

// writeMany writes a services file of many services, each with servers of its
// own choice, which have an address in each family.
func writeMany(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "services")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range manyServers {
		fmt.Fprintf(w, "server s%d 10.%d.%d.1 2001:db8:%x::1\n", i, i/256, i%256, i)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range manyServices {
		fmt.Fprintf(w, "service host%d.%s", i, testZone)
		for picked := make(map[int]bool); len(picked) < perService; {
			if s := rnd.IntN(manyServers); !picked[s] {
				picked[s] = true
				fmt.Fprintf(w, " s%d", s)
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// loadMany reads such a file and ranks all of it, under overrides.
func loadMany(tb testing.TB, path string, overrides ...serverOverride) *ranker {
	tb.Helper()
	conf := config{Zones: []string{testZone}, probes: []string{""}, ttlLow: 20, ttlHigh: 60, admin: noAdminFile()}
	conf.admin.Resume(overrides, time.Time{})
	conf.file = newServicesFile(path, &conf, false)
	if err := conf.file.Load(); err != nil {
		tb.Fatal(err)
	}
	d := newDNSLB(conf, nil)
	d.state = newBlockState()
	t := d.sources.snapshot()
	d.state.setSnapshot(t, d)
	r := testRanker(d, t, observations{status: make([]latencyprobe.Status, len(t.targets))})
	r.measure(1, t.targets...)
	r.rankPools(t.pools)
	d.snapshot.Store(t)
	return r
}

// measure gives targets a latency.
func (r *ranker) measure(round uint64, targets ...latencyprobe.Target) {
	for i := range targets {
		ms := 10 + 200*rand.Float64()
		r.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Probed: true, Estimate: ranking.Estimate{Round: round, RTT: ms, Value: ms, Noise: 1}}
	}
}

// BenchmarkLoad reads 100,000 services over 10,000 servers with two addresses
// each and ranks them, also under 50 overrides, half of which name no server.
// heap-MiB is what dnslb keeps of it.
func BenchmarkLoad(b *testing.B) {
	path := writeMany(b)
	var overrides []serverOverride
	until := time.Now().Add(time.Hour)
	for i := range 25 {
		overrides = append(overrides,
			serverOverride{Until: until, Action: serveroverride.Action{Verb: serveroverride.Down, Server: fmt.Sprintf("gone%d-*", i)}},
			serverOverride{Until: until, Action: serveroverride.Action{Verb: serveroverride.Drain, Server: fmt.Sprintf("s%d", i), Service: "host1*." + testZone}})
	}
	b.Run("plain", func(b *testing.B) { benchmarkLoad(b, path) })
	b.Run("overrides", func(b *testing.B) { benchmarkLoad(b, path, overrides...) })
}

func benchmarkLoad(b *testing.B, path string, overrides ...serverOverride) {
	b.Helper()
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse+m.StackInuse) / (1 << 20)
	}
	before := heap()
	var r *ranker
	for b.Loop() {
		r = loadMany(b, path, overrides...)
	}
	size := heap() - before
	b.ReportMetric(size, "heap-MiB")
	if size > maxManySize {
		b.Errorf("Expected at most %d MiB, got %.0f", maxManySize, size)
	}
	if len(r.snapshot.pools) != 2*manyServices {
		b.Fatalf("Expected a pool for each service and family, got %d", len(r.snapshot.pools))
	}
}

// BenchmarkRank ranks again after one measurement, which touches the services
// that have the server, and after one of each server.
func BenchmarkRank(b *testing.B) {
	r := loadMany(b, writeMany(b))
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			target := i % len(r.snapshot.targets)
			r.observed.status[target].Estimate.Value = 10 + 200*rand.Float64()
			r.rankPools(slices.Collect(r.snapshot.poolsOf(target)))
		}
		b.ReportMetric(float64(len(r.snapshot.byTarget[0])), "services")
	})
	b.Run("all", func(b *testing.B) {
		for round := uint64(2); b.Loop(); round++ {
			r.measure(round, r.snapshot.targets...)
			r.rankPools(r.snapshot.pools)
		}
	})
}

// oneChange is the measurement of targets of which one changes at a time: it fails,
// or answers again.
type oneChange struct {
	unmeasured
	changed latencyprobe.Target
	failing bool
}

func (o *oneChange) Changes() []latencyprobe.Target { return []latencyprobe.Target{o.changed} }

func (o *oneChange) Status(t latencyprobe.Target) latencyprobe.Status {
	return latencyprobe.Status{State: latencyprobe.Up, Probed: true, Failing: o.failing && t == o.changed}
}

// BenchmarkHealthChange ranks after the health of one target has changed, and for
// comparison all targets, as each round does. The first must not grow with the
// targets.
func BenchmarkHealthChange(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		inv := inventory{servers: make(map[string]serverConfig)}
		addr := netip.MustParseAddr("10.0.0.1")
		for i := range n {
			name := fmt.Sprintf("s%d", i)
			inv.servers[name] = machine(addr.String())
			inv.services = append(inv.services, serviceConfig{name: fmt.Sprintf("host%d.%s", i, testZone), servers: labelsOf(name), options: options{answers: 1}})
			addr = addr.Next()
		}
		d := newDNSLB(config{Zones: []string{testZone}, inventory: inv, ttlLow: 20, ttlHigh: 60}, nil)
		d.state = newBlockState()
		watch := new(oneChange)
		r := newRanker(d, watch)
		r.setSnapshot(d.sources.snapshot())
		savings.set(d, 0) // what other benchmarks measure depends on it
		for _, all := range []bool{false, true} {
			b.Run(fmt.Sprintf("targets=%d/all=%v", n, all), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					watch.changed, watch.failing = r.snapshot.targets[(i/2)%n], i%2 == 0
					r.rank(all)
				}
			})
		}
	}
}
