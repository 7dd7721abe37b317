package dnslb

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
		Help:      "Counter of looks for the view of another node, by their end: new, unchanged, unknown (to DNS-B), refused (not shared any more) or failed.",
	}, []string{"node", "of", "result"})

	viewNotifies = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "view_notifies_total",
		Help:      "Counter of deputies that were told of a new view, by their end: ok or failed.",
	}, []string{"node", "deputy", "result"})

	viewAge = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "view_age_seconds"),
		"Age in seconds of the view of another node that is used for its resolvers.",
		[]string{"node", "of"}, nil)
)

func init() { prometheus.MustRegister(viewAges{}) }

// viewAges exports the ages of the views that are used now.
type viewAges struct{}

// Describe implements the prometheus.Collector interface.
func (viewAges) Describe(ch chan<- *prometheus.Desc) { ch <- viewAge }

// Collect implements the prometheus.Collector interface.
func (viewAges) Collect(ch chan<- prometheus.Metric) {
	type key struct{ node, of string }
	seen := make(map[key]bool)
	for _, b := range blocks.Values() {
		node := b.sharing.config().Node
		for _, v := range b.sharing.using.Load().views {
			if v == nil || seen[key{node, v.node}] {
				continue
			}
			seen[key{node, v.node}] = true
			ch <- prometheus.MustNewConstMetric(viewAge, prometheus.GaugeValue, time.Since(v.made).Seconds(), node, v.node)
		}
	}
}
