package mapfetch

import (
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	mapPulls = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "map_pulls_total",
		Help:      "Counter of questions for the map of DNS-B by result: new, unchanged, deferred (another version came a moment ago) or failed.",
	}, []string{"node", "dnsb", "result"})

	mapPrefixes = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "map_prefixes"),
		"Gauge of the prefixes in the map of DNS-B that the node has.",
		[]string{"node"}, nil)
	mapAge = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "map_age_seconds"),
		"Gauge of the seconds since a DNS-B said that the map which the node has is the latest.",
		[]string{"node"}, nil)
)

// Collector exports what Fetchers have of the map. Time goes on between scrapes,
// so that it reads that when asked.
type Collector struct {
	All func() []*Fetcher
}

var _ prometheus.Collector = Collector{}

// Describe implements the prometheus.Collector interface.
func (Collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- mapPrefixes
	ch <- mapAge
}

// Collect implements the prometheus.Collector interface.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for _, f := range c.All() {
		f.mu.Lock()
		node, state := f.settings.Node, f.state
		f.mu.Unlock()
		if state.FetchedAt.IsZero() || seen[node] {
			continue
		}
		seen[node] = true
		ch <- prometheus.MustNewConstMetric(mapPrefixes, prometheus.GaugeValue, float64(state.Prefixes), node)
		ch <- prometheus.MustNewConstMetric(mapAge, prometheus.GaugeValue, time.Since(state.CheckedAt).Seconds(), node)
	}
}
