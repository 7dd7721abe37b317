package peerview

import (
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	viewPulls = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "view_pulls_total",
		Help:      "Counter of fetches of the view of another node by result: new, unchanged, unknown (to DNS-B), refused (no longer shared) or failed.",
	}, []string{"node", "of", "result"})

	viewNotifies = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "view_notifies_total",
		Help:      "Counter of NOTIFYs about a new view to a deputy by result: ok or failed.",
	}, []string{"node", "deputy", "result"})

	viewAge = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "view_age_seconds"),
		"Gauge of the age in seconds of the view of another node that its deputy follows.",
		[]string{"node", "of"}, nil)
)

// startPulls makes the counters of the fetches of a view begin with 0, so that the first
// failure is an increase.
func startPulls(node, of string) {
	for _, result := range []string{"new", "unchanged", "refused", "failed"} {
		viewPulls.WithLabelValues(node, of, result)
	}
}

// Collector exports the ages of the views that Sharings follow. Time goes on
// between scrapes, so that it reads them when asked.
type Collector struct {
	All func() []*Sharing
}

var _ prometheus.Collector = Collector{}

// Describe implements the prometheus.Collector interface.
func (Collector) Describe(ch chan<- *prometheus.Desc) { ch <- viewAge }

// Collect implements the prometheus.Collector interface.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	type key struct{ node, of string }
	seen := make(map[key]bool)
	for _, s := range c.All() {
		node := s.currentSettings().Node
		for _, v := range s.Current().Views {
			if v == nil || seen[key{node, v.Node}] {
				continue
			}
			seen[key{node, v.Node}] = true
			ch <- prometheus.MustNewConstMetric(viewAge, prometheus.GaugeValue, time.Since(v.Made).Seconds(), node, v.Node)
		}
	}
}
