package dnsb

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// outcomes are the values of the label "result" of UPDATEs.
var outcomes = []registry.Outcome{
	registry.Added, registry.Changed, registry.Refreshed, registry.Withdrawn, registry.WrongSerial, registry.StoreFailed,
	partial, nothing, unsigned, malformed, prerequisiteFailed, replayed, tooOften, outOfScope,
}

// startCounters makes all counters of a zone begin with 0: the first error of a kind
// is an increase.
func startCounters(zone string) {
	for _, outcome := range outcomes {
		registrationCount.WithLabelValues(zone, string(outcome))
	}
	for _, outcome := range reportOutcomes {
		reportCount.WithLabelValues(zone, string(outcome))
	}
	for _, result := range []string{"ok", "error"} {
		reloadCount.WithLabelValues(zone, result)
		exportCount.WithLabelValues(zone, result)
	}
	for _, result := range []string{"ok", "failed", "busy"} {
		mapTransferCount.WithLabelValues(zone, result)
	}
	unmappedCount.WithLabelValues(zone)
}

var (
	registrationCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "registrations_total",
		Help:      "Counter of UPDATE messages received, by result.",
	}, []string{"zone", "result"})

	reportCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "survey_reports_total",
		Help:      "Counter of reports of measurements received, by result.",
	}, []string{"zone", "result"})

	ignoredCount = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "updates_ignored_total",
		Help:      "Counter of UPDATE messages that were ignored unread because this process had to refuse too many.",
	})

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

	exportCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "exports_total",
		Help:      "Counter of writes of the exported map, by result.",
	}, []string{"zone", "result"})

	mapTransferCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "map_transfers_total",
		Help:      "Counter of transfers of the map to nodes by result: ok, failed, or busy (too many at a time, so that the node tries again).",
	}, []string{"zone", "result"})

	unmappedCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "unmapped_total",
		Help:      "Counter of referrals of resolvers that no prefix with a live node covers.",
	}, []string{"zone"})
)
