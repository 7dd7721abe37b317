package overridefetch

import (
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// results are how a question may end.
var results = []string{"new", "unchanged", "failed"}

var (
	pulls = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "order_pulls_total",
		Help:      "Counter of questions for the overrides that a DNS-B has for its nodes, by result: new, unchanged or failed.",
	}, []string{"node", "dnsb", "result"})

	count = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "dnsb_orders"),
		"Gauge of the overrides of servers that the node has from a DNS-B.",
		[]string{"node", "dnsb"}, nil)
	age = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "order_age_seconds"),
		"Gauge of the seconds since a DNS-B said which overrides of servers it has.",
		[]string{"node", "dnsb"}, nil)
)

// Collector exports what Fetchers have of each DNS-B. Time goes on between scrapes, so
// that it reads that when asked.
type Collector struct {
	All func() []*Fetcher
}

var _ prometheus.Collector = Collector{}

// Describe implements the prometheus.Collector interface.
func (Collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- count
	ch <- age
}

// Collect implements the prometheus.Collector interface.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[[2]string]bool)
	for _, f := range c.All() {
		f.mu.Lock()
		node := f.settings.Node
		f.mu.Unlock()
		for _, s := range f.States() {
			key := [2]string{node, s.DNSB}
			if s.CheckedAt.IsZero() || seen[key] {
				continue
			}
			seen[key] = true
			ch <- prometheus.MustNewConstMetric(count, prometheus.GaugeValue, float64(s.Overrides), key[:]...)
			ch <- prometheus.MustNewConstMetric(age, prometheus.GaugeValue, time.Since(s.CheckedAt).Seconds(), key[:]...)
		}
	}
}
