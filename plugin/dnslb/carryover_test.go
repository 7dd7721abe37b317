package dnslb

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestRankingOutlivesProbes follows a service whose probe is replaced: servers are
// ranked by the former latencies until all of them are known by the new probe, and
// by their health as soon as it is known.
func TestRankingOutlivesProbes(t *testing.T) {
	var (
		failing = latencyprobe.Status{Probed: true, Failing: true}
		down    = latencyprobe.Status{State: latencyprobe.Down, Probed: true}
		lost    = latencyprobe.Status{State: latencyprobe.Up, Probed: true} // up, without a latency
		up      = func(ms float64) latencyprobe.Status {
			return latencyprobe.Status{State: latencyprobe.Up, Probed: true, Estimate: ranking.Estimate{Round: 1, RTT: ms, Value: ms}}
		}
	)
	type step struct {
		name    string
		reload  bool // by which the new probe knows nothing
		other   bool // reload of something else
		sleep   time.Duration
		a, b, c latencyprobe.Status
		order   string
	}
	for name, steps := range map[string][]step{
		"all measured again": {
			{name: "measured", a: up(10), b: up(200), c: down, order: "a b"},
			{name: "replaced", reload: true, order: "a b"},
			{name: "far server first", b: up(1), order: "a b"},
			{name: "server is up that was down", b: up(1), c: up(2), order: "a b c"},
			{name: "reload of something else", other: true, b: up(1), c: up(2), order: "a b c"},
			{name: "near server fails", a: failing, b: up(1), c: up(2), order: "a b c"},
			{name: "last one", a: up(300), b: up(1), c: up(2), order: "c b a"}, // c is measured for the first time
		},
		"down by the new probe": {
			{name: "measured", a: up(10), b: up(200), c: up(300), order: "a b c"},
			{name: "replaced", reload: true, order: "a b c"},
			{name: "first server is down", a: down, order: "b c"},
		},
		"twice": {
			{name: "measured", a: up(10), b: up(200), c: up(300), order: "a b c"},
			{name: "replaced", reload: true, order: "a b c"},
			{name: "one measured", c: up(1), order: "a b c"},
			{name: "replaced again", reload: true, order: "a b c"},
			{name: "far server first", b: up(1), order: "a b c"},
			{name: "all down but one", a: down, b: up(1), c: down, order: "b"},
		},
		"never measured": {
			{name: "measured", a: up(10), b: up(200), c: up(300), order: "a b c"},
			{name: "replaced", reload: true, order: "a b c"},
			{name: "no latency", sleep: carryOverLimit - time.Second, a: lost, b: up(200), c: up(100), order: "a b c"},
			{name: "too long", sleep: 2 * time.Second, a: lost, b: up(200), c: up(100), order: "c b a"},
		},
		"nothing was known": {
			{name: "cold", order: "a b c"},
			{name: "replaced", reload: true, order: "a b c"},
			{name: "one measured", c: up(1), order: "c a b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := service4(options{answers: 3}, make([]settings, 3), make([]float64, 3))
				f := newFakeMeasurements()
				r := newRanker(d, f)
				for i, s := range steps {
					time.Sleep(s.sleep)
					f.set(map[string]latencyprobe.Status{"a": s.a, "b": s.b, "c": s.c})
					if i == 0 || s.reload || s.other {
						r = newRanker(d, f)
						r.setSnapshot(d.sources.snapshot())
					}
					r.rank(true)
					p := r.snapshot.pools[0]
					var order []string
					for _, i := range p.state.order() {
						order = append(order, p.members[i].label)
					}
					if got := strings.Join(order, " "); got != s.order {
						t.Errorf("%s: Expected the order %s, got %s", s.name, s.order, got)
					}
				}
			})
		})
	}
}

// TestCarryOverIsOfTheSameAddress checks that a renamed server stays known, and that
// a new one is not taken for another.
func TestCarryOverIsOfTheSameAddress(t *testing.T) {
	known := latencyprobe.Status{State: latencyprobe.Up, Probed: true, Estimate: ranking.Estimate{Round: 1, RTT: 5, Value: 5}}
	d := service4(options{answers: 3}, make([]settings, 2), []float64{10, 20})
	f := newFakeMeasurements()
	f.set(map[string]latencyprobe.Status{"a": known, "b": known})
	r := newRanker(d, f)
	r.setSnapshot(d.sources.snapshot())

	changed := newDNSLB(d.config, nil)
	changed.state = d.state
	changed.inventory.servers = map[string]serverConfig{"renamed": machine("192.0.2.1"), "b": machine("192.0.2.2"), "new": machine("192.0.2.3")}
	changed.inventory.services = []serviceConfig{{name: "www." + testZone, servers: labelsOf("renamed", "b", "new"), options: options{answers: 3}}}
	r = newRanker(changed, f)
	r.setSnapshot(changed.sources.snapshot())
	var carried []string
	for i, target := range r.snapshot.targets {
		if r.observed.carried.pending(i) {
			carried = append(carried, target.Name)
		}
	}
	if !slices.Equal(carried, []string{"renamed"}) {
		t.Errorf("Expected the renamed server to be carried over alone, got %v", carried)
	}
}
