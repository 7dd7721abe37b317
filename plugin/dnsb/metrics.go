package dnsb

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	registrationCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "registrations_total",
		Help:      "Counter of registrations received, by what became of them.",
	}, []string{"zone", "result"})

	leaseEnd = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "lease_end_timestamp_seconds",
		Help:      "Gauge of the time at which the lease of a node ends unless it is renewed.",
	}, []string{"zone", "node"})

	nodeCount = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "nodes",
		Help:      "Gauge of nodes by state.",
	}, []string{"zone", "state"})

	orderCount = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "orders",
		Help:      "Gauge of orders of the admin file that are in force, by what they order.",
	}, []string{"zone", "order"})

	prefixCount = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "map_prefixes",
		Help:      "Gauge of resolver prefixes by who named them.",
	}, []string{"zone", "source"})

	referralCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "referrals_total",
		Help:      "Counter of referrals by the layer of the map that they come from and the node that they name.",
	}, []string{"zone", "layer", "node"})

	reloadCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "map_reloads_total",
		Help:      "Counter of map files that changed and were read again, by result.",
	}, []string{"zone", "result"})

	unmappedCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "unmapped_total",
		Help:      "Counter of referrals of resolvers that no prefix with a live node covers.",
	}, []string{"zone"})

	overlapCount = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "overlaps",
		Help:      "Gauge of registered prefixes that several nodes claim, or that are inside those of another node.",
	}, []string{"zone"})

	storeUp = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "store_up",
		Help:      "Gauge of whether the shared store answers.",
	}, []string{"zone"})
)
