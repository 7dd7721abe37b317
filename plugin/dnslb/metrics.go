package dnslb

import (
	"maps"
	"slices"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/overridefetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

// Values of the label "result" of answers.
const (
	resultRanked    = "ranked"    // addresses of servers that are up
	resultAllDown   = "all_down"  // addresses although all servers are down
	resultAuthority = "authority" // SOA, NS or ANY
	resultNoData    = "nodata"
	resultNXDomain  = "nxdomain"
	resultZone      = "zone" // of the backend plugin
	resultExplain   = "explain"
)

var (
	answers = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "answers_total",
		Help:      "Counter of answers by kind: ranked, all_down, authority, nodata, nxdomain, zone or explain.",
	}, []string{"server", "zone", "result"})

	switches = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "switches_total",
		Help:      "Counter of changes of the first server of a pool, by cause and by the node ('of') for whose resolvers it changed.",
	}, []string{"zone", "node", "of", "cause"})

	reloads = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "reloads_total",
		Help:      "Counter of reloads by what was read again (services, admin, registration or zone) and by result.",
	}, []string{"zone", "source", "result"})

	ranks = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "ranks_total",
		Help:      "Counter of ranked answers by the rank of their first address: 1, 2 or 3+.",
	}, []string{"zone", "node", "rank"})

	queries = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "queries_total",
		Help:      "Counter of queries for addresses of services, by whose resolver asks: this node's (own), that of a node whose deputy it is (deputy), or neither (outside), or for which client subnet they are (subnet).",
	}, []string{"zone", "node", "place"})

	surveyAnswers = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "survey_answers_total",
		Help:      "Counter of queries for addresses of services that were answered by the ranking for a site of the survey; queries_total has them too.",
	}, []string{"zone", "node"})

	overridesInForce = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "orders"),
		"Gauge of overrides in force, of the admin file and from DNS-Bs, by verb.",
		[]string{"zone", "node", "order"}, nil)

	serverAnswers = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "server_answers_total"),
		"Counter of answers by the server whose address came first, and the first service of its pool.",
		[]string{"zone", "node", "service", "server"}, nil)

	reloadSuccessful = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "last_reload_successful"),
		"Gauge of whether what is in force is what the files of a source hold (1) or the previous version (0).",
		[]string{"zone", "node", "source"}, nil)

	reloadTime = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "last_reload_success_timestamp_seconds"),
		"Gauge of the time at which the files of a source were loaded last without an error, at the start too.",
		[]string{"zone", "node", "source"}, nil)

	servicesAllDown = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "services_all_down"),
		"Gauge of services whose servers are all down, by type of record.",
		[]string{"zone", "node", "type"}, nil)
)

// startCounters makes the counters of this instance begin with 0: the first error of
// a kind is an increase. listeners are the addresses of the server block as the label
// "server" has them.
func (d *DNSLB) startCounters(listeners []string) {
	for _, zone := range d.Zones {
		for _, listener := range listeners {
			for _, result := range []string{resultRanked, resultAllDown, resultAuthority, resultNoData, resultNXDomain, resultZone, resultExplain} {
				answers.WithLabelValues(listener, zone, result)
			}
		}
	}
	for _, cause := range []ranking.Cause{ranking.First, ranking.Lower, ranking.Down, ranking.Up, AllDown, Tier, Drained, Override, Removed} {
		switches.WithLabelValues(d.Zones[0], d.Node, d.Node, string(cause))
	}
	sources := slices.Collect(maps.Keys(d.fileStatus()))
	if d.sources.zones.HasBackends() {
		sources = append(sources, "zone")
	}
	for _, source := range sources {
		for _, result := range []string{"ok", "error"} {
			reloads.WithLabelValues(d.Zones[0], source, result)
		}
	}
}

// fileStatus returns the status of the files of the block, by source.
func (d *DNSLB) fileStatus() map[string]filewatch.Status {
	status := make(map[string]filewatch.Status)
	if d.file != nil {
		status["services"] = d.file.Status()
	}
	if d.admin != nil {
		status["admin"] = d.admin.Status()
	}
	if d.registrationFiles != nil {
		status["registration"] = d.registrationFiles.Status()
	}
	return status
}

func init() {
	prometheus.MustRegister(
		snapshotGauges{},
		registrar.Collector{All: ofBlocks(func(b *blockState) *registrar.Registrar { return b.registrar })},
		overridefetch.Collector{All: ofBlocks(func(b *blockState) *overridefetch.Fetcher { return b.overrides })},
		mapfetch.Collector{All: ofBlocks(func(b *blockState) *mapfetch.Fetcher { return b.maps })},
		peerview.Collector{All: ofBlocks(func(b *blockState) *peerview.Sharing { return b.sharing })},
	)
}

// ofBlocks returns a function that takes one part of each server block.
func ofBlocks[P any](part func(*blockState) P) func() []P {
	return func() []P {
		all := blocks.Values()
		parts := make([]P, 0, len(all))
		for _, b := range all {
			parts = append(parts, part(b))
		}
		return parts
	}
}
