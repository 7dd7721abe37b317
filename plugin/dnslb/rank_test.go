package dnslb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// step is one moment in the life of the servers 192.0.2.1 and .2 and .3.
type step struct {
	name   string
	ms     [3]float64 // 0: not measured
	down   [3]bool
	fails  [3]bool
	first  string
	ttl    uint32
	allOut bool
}

// testRanker returns a ranker of a snapshot, without measurements.
func testRanker(d *DNSLB, s *snapshot, observed observations) *ranker {
	r := newRanker(d, nil)
	r.snapshot, r.observed = s, observed
	return r
}

func TestRank(t *testing.T) {
	d := newDNSLB(config{
		Zones: []string{testZone},
		inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1"), "b": machine("192.0.2.2"), "c": machine("192.0.2.3")}, []serviceConfig{
			{name: "www." + testZone, servers: labelsOf("a", "b", "c"), options: options{answers: 1}},
			{name: "ftp." + testZone, servers: labelsOf("a", "b", "c"), options: options{answers: 1}},
		}},
		ttlLow: 20, ttlHigh: 60, Node: "rank",
	}, nil)
	d.state = newBlockState()
	snap := d.sources.snapshot()
	if len(snap.pools) != 1 || len(snap.targets) != 3 {
		t.Fatalf("Expected services with the same servers to share a pool, got %d pools, %d targets", len(snap.pools), len(snap.targets))
	}
	p := snap.pools[0]
	before := testutil.ToFloat64(switches.WithLabelValues(testZone, "rank", "rank", "down"))

	steps := []step{
		{name: "cold", first: "192.0.2.1", ttl: 60},
		{name: "measured", ms: [3]float64{30, 10, 20}, first: "192.0.2.2", ttl: 60},
		{name: "failing", ms: [3]float64{30, 10, 20}, fails: [3]bool{false, true, false}, first: "192.0.2.2", ttl: 20},
		{name: "another fails", ms: [3]float64{30, 10, 20}, fails: [3]bool{true, false, false}, first: "192.0.2.2", ttl: 60},
		{name: "down", ms: [3]float64{30, 10, 20}, down: [3]bool{false, true, false}, first: "192.0.2.3", ttl: 60},
		{name: "all down", ms: [3]float64{30, 10, 20}, down: [3]bool{true, true, true}, first: "192.0.2.2", ttl: 20, allOut: true},
		{name: "one back", ms: [3]float64{30, 10, 20}, down: [3]bool{false, true, true}, first: "192.0.2.1", ttl: 60},
	}
	round := uint64(0)
	for _, s := range steps {
		round++
		status := make([]latencyprobe.Status, 3)
		for i := range status {
			status[i].State = latencyprobe.Up
			if s.down[i] {
				status[i].State = latencyprobe.Down
			}
			status[i].Failing = s.fails[i]
			if s.ms[i] > 0 {
				status[i].Estimate = ranking.Estimate{Round: round, RTT: s.ms[i], Value: s.ms[i]}
			}
		}
		r := testRanker(d, snap, observations{status: status})
		r.rankPools(snap.pools)
		got := p.answer.Load()
		if got.addrs[0].String() != s.first || got.ttl != s.ttl || got.allDown != s.allOut {
			t.Errorf("%s: expected %s, TTL %d, all down %v; got %+v", s.name, s.first, s.ttl, s.allOut, *got)
		}
	}
	if got := testutil.ToFloat64(switches.WithLabelValues(testZone, "rank", "rank", "down")) - before; got != 1 {
		t.Errorf("Expected one switch by a server's death, got %v", got)
	}
}

// fakeMeasurements are those of targets by name.
type fakeMeasurements struct {
	mu      sync.Mutex
	by      map[string]latencyprobe.Status
	targets []latencyprobe.Target
	changed wakeup.Signal
}

func newFakeMeasurements() *fakeMeasurements {
	return &fakeMeasurements{by: make(map[string]latencyprobe.Status), changed: wakeup.New()}
}

func (f *fakeMeasurements) Changed() <-chan struct{} { return f.changed }
func (f *fakeMeasurements) Close()                   {}

func (f *fakeMeasurements) Set(targets []latencyprobe.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets = targets
}

// Changes returns all targets: each may have changed.
func (f *fakeMeasurements) Changes() []latencyprobe.Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.targets
}

func (f *fakeMeasurements) Status(t latencyprobe.Target) latencyprobe.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by[t.Name]
}

// set sets the status of all servers.
func (f *fakeMeasurements) set(by map[string]latencyprobe.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by = by
}

// say makes a server one that is up with a latency in milliseconds.
func (f *fakeMeasurements) say(server string, ms float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := latencyprobe.Status{State: latencyprobe.Up, Probed: true}
	s.Estimate = ranking.Estimate{Round: f.by[server].Estimate.Round + 1, RTT: ms, Value: ms}
	f.by[server] = s
}

// runs starts a ranker of servers a, b, c … until the test ends.
func runs(t *testing.T, servers int) (*DNSLB, *fakeMeasurements) {
	t.Helper()
	d := service4(options{answers: 1}, make([]settings, servers), make([]float64, servers))
	d.probe = new(latencyprobe.LatencyProbe)
	d.configureBlock = func() { d.state.configure(d.blockSettings()) }
	f := newFakeMeasurements()
	r := newRanker(d, f)
	r.setSnapshot(d.sources.snapshot())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx, nil, d.sources.loaded, d.configureBlock)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d, f
}

// TestBecomesReady checks that a node is not ready, and so not registered, before
// every server was probed, or for 10 seconds.
func TestBecomesReady(t *testing.T) {
	for _, probed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d, f := runs(t, 2)
			f.say("a", 10)
			f.changed.Set()
			time.Sleep(firstRound - time.Second)
			if d.Ready() {
				t.Error("Expected to wait for a server that was not probed")
			}
			if probed {
				f.say("b", 20)
				f.changed.Set()
			} else {
				time.Sleep(time.Second)
			}
			synctest.Wait()
			if !d.Ready() {
				t.Errorf("Expected to be ready, all probed: %v", probed)
			}
		})
	}
}

// TestPhase checks that nodes which measure the same do not move in step, but
// within a round.
func TestPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 20
		begin := time.Now()
		moved := make(map[time.Duration]bool)
		var all []*DNSLB
		for range nodes {
			d, f := runs(t, 2)
			f.say("a", 30)
			f.say("b", 10)
			all = append(all, d)
		}
		for len(all) > 0 && time.Since(begin) <= 2*ranking.Round {
			time.Sleep(10 * time.Millisecond)
			all = slices.DeleteFunc(all, func(d *DNSLB) bool {
				there := d.snapshot.Load().pools[0].answer.Load().addrs[0] == netip.MustParseAddr("192.0.2.2")
				if there {
					moved[time.Since(begin).Truncate(ranking.Round/10)] = true
				}
				return there
			})
		}
		if len(all) > 0 || len(moved) < 3 {
			t.Errorf("Expected %d nodes to move at different times, got %v, and %d that did not", nodes, moved, len(all))
		}
	})
}

// TestRankedAgain checks that a measurement ranks again the services that have the
// server, and no others; and each address family by its own.
func TestRankedAgain(t *testing.T) {
	c := config{Zones: []string{testZone}, inventory: inventory{servers: make(map[string]serverConfig)}, ttlLow: 20, ttlHigh: 60}
	for i, name := range []string{"a4", "b4", "c4"} {
		c.inventory.servers[name] = machine(fmt.Sprintf("192.0.2.%d", i+1))
	}
	c.inventory.servers["a6"], c.inventory.servers["b6"] = machine("2001:db8::1"), machine("2001:db8::2")
	c.inventory.services = []serviceConfig{
		{name: "ab." + testZone, servers: labelsOf("a4", "b4", "a6", "b6"), options: options{answers: 1}},
		{name: "bc." + testZone, servers: labelsOf("b4", "c4"), options: options{answers: 1}},
		{name: "c." + testZone, servers: labelsOf("c4"), options: options{answers: 1}},
	}
	d := newDNSLB(c, nil)
	d.state = newBlockState()
	f := newFakeMeasurements()
	for server, ms := range map[string]float64{"a4": 10, "b4": 30, "c4": 20, "a6": 30, "b6": 10} {
		f.say(server, ms)
	}
	r := newRanker(d, f)
	r.setSnapshot(d.sources.snapshot())
	again := func(want string, servers ...string) {
		t.Helper()
		for _, server := range servers {
			f.say(server, 15)
		}
		r.rank(true)
		var got []string
		for _, p := range r.snapshot.pools {
			if p.lastPass == r.pass {
				got = append(got, strings.TrimSuffix(p.String(), "."+testZone+" A"))
			}
		}
		slices.Sort(got)
		if fmt.Sprint(got) != want {
			t.Errorf("%v: expected %s to be ranked again, got %v", servers, want, got)
		}
	}
	again("[]")
	again("[ab]", "a4")
	again("[ab bc]", "b4")
	again("[bc c]", "c4")
	again("[ab."+testZone+" AAAA]", "a6")

	f.say("a4", 1)
	f.say("a6", 100)
	r.setSnapshot(d.sources.snapshot())
	ab := r.snapshot.names["ab."+testZone].service
	if a, aaaa := ab.a.answer.Load().addrs[0], ab.aaaa.answer.Load().addrs[0]; a.String() != "192.0.2.1" || aaaa.String() != "2001:db8::2" {
		t.Errorf("Expected each family to be ranked by its own, got %s and %s", a, aaaa)
	}
}
