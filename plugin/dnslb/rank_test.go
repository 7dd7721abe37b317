package dnslb

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
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

func TestRank(t *testing.T) {
	d := newDNSLB(config{
		Zones: []string{testZone},
		inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1"), "b": machine("192.0.2.2"), "c": machine("192.0.2.3")}, []serviceConfig{
			{name: "www." + testZone, servers: []string{"a", "b", "c"}, options: options{answers: 1}},
			{name: "ftp." + testZone, servers: []string{"a", "b", "c"}, options: options{answers: 1}},
		}},
		ttlLow: 20, ttlHigh: 60, Node: "rank",
	}, nil)
	d.kept = newKept()
	table := d.sources.table()
	if len(table.pools) != 1 || len(table.targets) != 3 {
		t.Fatalf("Expected services with the same servers to share a pool, got %d pools, %d targets", len(table.pools), len(table.targets))
	}
	p := table.pools[0]
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
		r := &ranker{DNSLB: d, table: table, here: vantage{status: status}}
		r.rankPools(table.pools)
		got := p.answer.Load()
		if got.addrs[0].String() != s.first || got.ttl != s.ttl || got.allDown != s.allOut {
			t.Errorf("%s: expected %s, TTL %d, all down %v; got %+v", s.name, s.first, s.ttl, s.allOut, *got)
		}
	}
	if got := testutil.ToFloat64(switches.WithLabelValues(testZone, "rank", "rank", "down")) - before; got != 1 {
		t.Errorf("Expected one switch by a server's death, got %v", got)
	}
}
