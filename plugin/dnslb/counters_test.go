package dnslb

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

func TestCounters(t *testing.T) {
	var c counters
	before := testutil.ToFloat64(answers.WithLabelValues("dns://:53", "counters.example.org.", resultRanked))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				c.of("dns://:53", "counters.example.org.", resultRanked).Inc()
				c.of(fmt.Sprintf("dns://:%d", i), "counters.example.org.", resultNoData).Inc()
			}
		})
	}
	wg.Wait()
	if got := testutil.ToFloat64(answers.WithLabelValues("dns://:53", "counters.example.org.", resultRanked)) - before; got != 800 {
		t.Errorf("Expected 800 answers, got %v", got)
	}
	if got := testing.AllocsPerRun(100, func() { c.of("dns://:53", "counters.example.org.", resultRanked).Inc() }); got != 0 {
		t.Errorf("Expected a known counter to cost nothing, got %v allocations", got)
	}
}

// TestRanks checks that answers are counted by the rank of the server that comes
// first, and those of all servers down are not.
func TestRanks(t *testing.T) {
	count := func() (n [3]float64) {
		for i, rank := range []string{"1", "2", "3+"} {
			n[i] = testutil.ToFloat64(ranks.WithLabelValues(testZone, "par1", rank))
		}
		return n
	}
	tests := []struct {
		name    string
		options options
		ms      []float64
		queries int
		check   func(n [3]float64) bool
	}{
		{"first", options{answers: 2}, []float64{30, 10, 20}, 10, func(n [3]float64) bool { return n == [3]float64{10, 0, 0} }},
		{"within", options{answers: 1, within: 50 * time.Millisecond}, []float64{40, 10, 20, 30}, 400, func(n [3]float64) bool {
			// Four equally near servers: the ranks 3 and 4 are counted as one.
			return n[0]+n[1]+n[2] == 400 && n[0] > 50 && n[1] > 50 && n[2] > 130
		}},
		{"all down", options{answers: 1}, []float64{-1, -1}, 10, func(n [3]float64) bool { return n == [3]float64{} }},
	}
	for _, tc := range tests {
		d := service4(tc.options, make([]settings, len(tc.ms)), tc.ms)
		before := count()
		for i := range tc.queries {
			ask(t, d, fmt.Sprintf("10.0.%d.1", i%256))
		}
		after := count()
		for i := range after {
			after[i] -= before[i]
		}
		if !tc.check(after) {
			t.Errorf("%s: unexpected counts of ranks %v", tc.name, after)
		}
	}
}

// collected is a snapshot of metrics as a collector.
type collected []*snapshot

func (c collected) Describe(ch chan<- *prometheus.Desc) { snapshotGauges{}.Describe(ch) }
func (c collected) Collect(ch chan<- prometheus.Metric) { collect(c, ch) }

// TestStandings checks the gauges, and that blocks with the same labels do not
// make a scrape fail.
func TestStandings(t *testing.T) {
	down := service4(options{answers: 1}, make([]settings, 2), []float64{-1, -1}).snapshot.Load()
	up := service4(options{answers: 1}, make([]settings, 2), []float64{-1, 10}).snapshot.Load()
	down.inForce = []serverOverride{{Verb: "down"}, {Verb: "drain"}, {Verb: "down"}}
	tests := []struct {
		snapshots []*snapshot
		want      []string
	}{
		{[]*snapshot{up}, []string{
			"orders par1 down " + testZone + " 0", "orders par1 drain " + testZone + " 0", "orders par1 up " + testZone + " 0",
			"services_all_down par1 A " + testZone + " 0", "services_all_down par1 AAAA " + testZone + " 0",
		}},
		{[]*snapshot{up, down, down}, []string{
			"orders par1 down " + testZone + " 4", "orders par1 drain " + testZone + " 2", "orders par1 up " + testZone + " 0",
			"services_all_down par1 A " + testZone + " 2", "services_all_down par1 AAAA " + testZone + " 0",
		}},
		{nil, nil},
	}
	for _, tc := range tests {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(collected(tc.snapshots))
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, f := range families {
			for _, m := range f.GetMetric() {
				line := strings.TrimPrefix(f.GetName(), "coredns_dnslb_")
				for _, l := range m.GetLabel() {
					line += " " + l.GetValue()
				}
				lines = append(lines, fmt.Sprint(line, " ", m.GetGauge().GetValue()))
			}
		}
		if !slices.Equal(lines, tc.want) {
			t.Errorf("Expected %q, got %q", tc.want, lines)
		}
	}
	if problems, err := testutil.CollectAndLint(collected{up}); err != nil || len(problems) > 0 {
		t.Errorf("Expected metrics as Prometheus likes them, got %v, %v", problems, err)
	}
}

// BenchmarkCounter shows what is saved beside a look-up by labels.
func BenchmarkCounter(b *testing.B) {
	var c counters
	b.Run("resolved", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.of("dns://:53", testZone, resultRanked).Inc()
		}
	})
	b.Run("by_labels", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			answers.WithLabelValues("dns://:53", testZone, resultRanked).Inc()
		}
	})
}

// TestQueriesByPlace checks that queries are counted by whose resolver asks.
func TestQueriesByPlace(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	m := nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=par1", "203.0.113.0/24": "registration=lon1"})
	set := peerview.NewSet(nil, peerview.NewSlots(m, func(node string) int { return map[string]int{"par1": peerview.Own, "lon1": 3}[node] }))
	d.state.views = func() *peerview.Set { return set }
	for _, tc := range []struct{ from, place string }{
		{"198.51.100.1", "own"}, {"203.0.113.1", "deputy"}, {"192.0.2.1", "outside"},
	} {
		counter := queries.WithLabelValues(testZone, "par1", tc.place)
		before := testutil.ToFloat64(counter)
		ask(t, d, tc.from)
		if got := testutil.ToFloat64(counter) - before; got != 1 {
			t.Errorf("%s: expected a query counted as %s, got %v", tc.from, tc.place, got)
		}
	}
}
