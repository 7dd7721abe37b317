package dnslb

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Values of the label "result" of answers.
const (
	resultRanked    = "ranked"    // addresses of servers that are up
	resultAllDown   = "all_down"  // addresses although all servers are down
	resultAuthority = "authority" // SOA, NS or ANY
	resultNoData    = "nodata"
	resultNXDomain  = "nxdomain"
	resultZone      = "zone" // what the plugin behind has
	resultExplain   = "explain"
)

var (
	answers = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "answers_total",
		Help:      "Counter of answers by what they are: ranked, all_down, authority, nodata, nxdomain, zone or explain.",
	}, []string{"server", "zone", "result"})

	switches = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "switches_total",
		Help:      "Counter of changes of the first server of a pool of servers, as the resolvers of a node see them, by cause.",
	}, []string{"zone", "node", "of", "cause"})

	reloads = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "reloads_total",
		Help:      "Counter of sources that changed and were read again: services, admin or zone, by result.",
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
		Help:      "Counter of queries to a node for the addresses of services, by the resolver: own, deputy (one of a node that this one stands in for) or outside (of no such prefix).",
	}, []string{"zone", "node", "place"})

	ordersInForce = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "orders"),
		"Number of orders of the admin file that servers are under now, by what they do.",
		[]string{"zone", "node", "order"}, nil)

	servicesAllDown = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "services_all_down"),
		"Number of services of which all servers are down, by type of record.",
		[]string{"zone", "node", "type"}, nil)

	registrations = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "registrations_total",
		Help:      "Counter of registrations, refreshes and withdrawals sent to a DNS-B, by its RCODE or 'unreachable'.",
	}, []string{"node", "dnsb", "result"})

	registrationUp = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "registration_up"),
		"Whether the last registration at a DNS-B succeeded (1) or not (0).",
		[]string{"node", "dnsb"}, nil)

	registrationLease = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "registration_lease_seconds"),
		"Seconds that are left of the lease that a DNS-B granted; 0 when it has ended.",
		[]string{"node", "dnsb"}, nil)
)

func init() { prometheus.MustRegister(leases{}, standings{}) }

// leases exports the state of the registrations that are kept now. Time runs on
// between scrapes, so it is read when asked for.
type leases struct{}

// Describe implements the prometheus.Collector interface.
func (leases) Describe(ch chan<- *prometheus.Desc) {
	ch <- registrationUp
	ch <- registrationLease
}

// Collect implements the prometheus.Collector interface.
func (leases) Collect(ch chan<- prometheus.Metric) {
	type key struct{ node, dnsb string }
	seen := make(map[key]bool)
	for _, k := range keeper.Values() {
		for _, s := range k.registrar.all() {
			id := key{s.node, string(s.dnsb)}
			if seen[id] {
				continue
			}
			seen[id] = true
			state, up := s.state(), 0.0
			if state.Up {
				up = 1
			}
			ch <- prometheus.MustNewConstMetric(registrationUp, prometheus.GaugeValue, up, s.node, id.dnsb)
			ch <- prometheus.MustNewConstMetric(registrationLease, prometheus.GaugeValue, state.LeaseLeft.Seconds(), s.node, id.dnsb)
		}
	}
}
