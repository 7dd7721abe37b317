package dnsb

import (
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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
		"prefixes of the operator": testutil.ToFloat64(prefixCount.WithLabelValues(testZone, "operator")) - 1,
		"registered prefixes":      testutil.ToFloat64(prefixCount.WithLabelValues(testZone, "registration")) - 2,
		"live nodes":               testutil.ToFloat64(nodeCount.WithLabelValues(testZone, "live")) - 2,
	} {
		if got != 0 {
			t.Errorf("%s: Expected another number, off by %v", name, got)
		}
	}

	families, err := prometheus.DefaultGatherer.Gather()
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
	problems, err := testutil.GatherAndLint(prometheus.DefaultGatherer)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "coredns_dnsb_") {
			t.Errorf("Expected no problem, got %s: %s", p.Metric, p.Text)
		}
	}
}

// A node that the configuration no longer knows has no lease that could be missed.
func TestMetricOfLeases(t *testing.T) {
	leaseEnd.Reset()
	r := newRegistry()
	before := startedWith(t, r, "accept k1 par1 any\naccept k1 nyc1 any", nil)
	registers(t, before, nodeAt("par1", "192.0.2.53"))
	registers(t, before, nodeAt("nyc1", "192.0.2.54"))
	if n := testutil.CollectAndCount(leaseEnd); n != 2 {
		t.Errorf("Expected two leases, got %d", n)
	}
	startedWith(t, r, "accept k1 par1 any", nil)
	if n := testutil.CollectAndCount(leaseEnd); n != 1 {
		t.Errorf("Expected the lease of one node after a reload, got %d", n)
	}
}
