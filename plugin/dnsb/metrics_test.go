package dnsb

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

func TestMetrics(t *testing.T) {
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\ndefault nyc1\nprefix 172.16.0.0/12 par1", nil)
	registers(t, d, nodeAt("par1", "192.0.2.53", "10.0.0.0/8", "11.0.0.0/8"))
	registers(t, d, nodeAt("nyc1", "192.0.2.54"))
	for _, tc := range []struct {
		name   string
		metric prometheus.Collector
		from   string
		want   float64
	}{
		{"operator", referralCount.WithLabelValues(testZone, "operator", "par1"), "172.16.0.1", 1},
		{"registration", referralCount.WithLabelValues(testZone, "registration", "par1"), "10.0.0.1", 1},
		{"default", referralCount.WithLabelValues(testZone, "default", "nyc1"), "192.168.0.1", 1},
		{"unmapped", unmappedCount.WithLabelValues(testZone), "192.168.0.1", 1},
		{"mapped", unmappedCount.WithLabelValues(testZone), "10.0.0.1", 0},
	} {
		before := testutil.ToFloat64(tc.metric)
		referredTo(t, d, tc.from)
		if got := testutil.ToFloat64(tc.metric) - before; got != tc.want {
			t.Errorf("%s: Expected the counter to grow by %v, got %v", tc.name, tc.want, got)
		}
	}
	for name, got := range map[string]float64{
		"prefixes of the operator": gaugeValues(prefixCount, d.zone)["operator"] - 1,
		"registered prefixes":      gaugeValues(prefixCount, d.zone)["registration"] - 2,
		"live nodes":               gaugeValues(nodeCount, d.zone)["live"] - 2,
	} {
		if got != 0 {
			t.Errorf("%s: Expected another number, off by %v", name, got)
		}
	}

	own := prometheus.NewRegistry()
	own.MustRegister(gauges(func() []*zone { return []*zone{d.zone} }))
	gatherer := prometheus.Gatherers{prometheus.DefaultGatherer, own}
	families, err := gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "coredns_dnsb_") && !strings.Contains(string(readme), family.GetName()) {
			t.Errorf("Expected %s to be documented", family.GetName())
		}
	}
	problems, err := testutil.GatherAndLint(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		// A few of each: the time is the square of their number, and other tests
		// have thousands of nodes.
		for _, family := range families {
			family.Metric = family.Metric[:min(10, len(family.Metric))]
		}
		return families, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "coredns_dnsb_") {
			t.Errorf("Expected no problem, got %s: %s", p.Metric, p.Text)
		}
	}
}

// Over a reload the younger instance tells, whatever the older one still does:
// a node that is no longer known has no lease that could be missed.
func TestMetricsOverReload(t *testing.T) {
	z := newZone(testZone)
	expect := func(when string, want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(gaugeValues(leaseEnd, z))); !slices.Equal(got, want) {
			t.Errorf("%s: Expected the leases of %s, got %s", when, want, got)
		}
	}
	old := startedWith(t, z, "accept k1 par1 any\naccept k1 nyc1 any", nil)
	registers(t, old, nodeAt("par1", "192.0.2.53"))
	registers(t, old, nodeAt("nyc1", "192.0.2.54"))
	expect("Before", "nyc1", "par1")
	startedWith(t, z, "accept k1 par1 any", nil)
	old.refresh()
	expect("After a reload", "par1")
	if err := z.configure(old); err != nil {
		t.Fatal(err)
	}
	expect("After one that failed", "nyc1", "par1")
}

// gaugeValues returns what a gauge tells of registries, by the label that is not
// the zone.
func gaugeValues(desc *prometheus.Desc, all ...*zone) map[string]float64 {
	ch := make(chan prometheus.Metric)
	go func() {
		gauges(func() []*zone { return all }).Collect(ch)
		close(ch)
	}()
	values := make(map[string]float64)
	for m := range ch {
		var told dto.Metric
		if m.Desc() != desc || m.Write(&told) != nil {
			continue
		}
		label := ""
		for _, l := range told.Label {
			if l.GetName() != "zone" {
				label = l.GetValue()
			}
		}
		values[label] = told.GetGauge().GetValue()
	}
	return values
}

// TestCountersBeginWithZero checks that each result has a series before it happens,
// so that its first time is an increase, and that no result is missing in the list.
func TestCountersBeginWithZero(t *testing.T) {
	const zone = "zero.example.org."
	startCounters(zone)
	values := make(map[string]int)
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "zone" && l.GetValue() == zone {
					values[f.GetName()]++
				}
			}
		}
	}
	want := map[string]int{
		"coredns_dnsb_registrations_total": len(outcomes), "coredns_dnsb_map_reloads_total": 2, "coredns_dnsb_exports_total": 2,
		"coredns_dnsb_map_transfers_total": 3, "coredns_dnsb_unmapped_total": 1, "coredns_dnsb_survey_reports_total": len(reportOutcomes),
	}
	if !maps.Equal(values, want) {
		t.Errorf("Expected %v series, got %v", want, values)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range slices.Concat(outcomes, reportOutcomes) {
		if !strings.Contains(string(readme), "`"+string(outcome)+"`") {
			t.Errorf("Expected the result %s to be documented", outcome)
		}
	}
}
