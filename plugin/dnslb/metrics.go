package dnslb

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
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
		Help:      "Counter of reloads of the services file, the admin file or the zone, by result.",
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

	overridesInForce = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "orders"),
		"Gauge of overrides of the admin file in force, by verb.",
		[]string{"zone", "node", "order"}, nil)

	servicesAllDown = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "services_all_down"),
		"Number of services of which all servers are down, by type of record.",
		[]string{"zone", "node", "type"}, nil)
)

func init() {
	prometheus.MustRegister(
		snapshotGauges{},
		registrar.Collector{All: ofBlocks(func(b *blockState) *registrar.Registrar { return b.registrar })},
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
