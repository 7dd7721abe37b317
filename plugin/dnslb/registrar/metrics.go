package registrar

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	registrations = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "registrations_total",
		Help:      "Counter of registrations, renewals and withdrawals tried at a DNS-B, by the RCODE of its reply or 'unreachable'.",
	}, []string{"node", "dnsb", "result"})

	// results are those that a registration usually has.
	results = []string{"NOERROR", "FORMERR", "SERVFAIL", "NOTIMP", "REFUSED", "NOTAUTH", "NOTZONE", "unreachable"}

	clockDifference = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "clock_difference_seconds"),
		"Gauge of how far the clock of a DNS-B was ahead of that of the node in its last signed reply, in whole seconds.",
		[]string{"node", "dnsb"}, nil)

	registrationUp = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "registration_up"),
		"Gauge of whether the last registration at a DNS-B succeeded (1) or not (0).",
		[]string{"node", "dnsb"}, nil)

	registrationLease = prometheus.NewDesc(
		prometheus.BuildFQName(plugin.Namespace, pluginName, "registration_lease_seconds"),
		"Gauge of the seconds until the lease that a DNS-B granted ends; 0 when it has ended.",
		[]string{"node", "dnsb"}, nil)
)

// Collector exports the state of registrations. It reads the state when it is
// scraped, since leases run down in between.
type Collector struct {
	// All returns the registrars, each of another node.
	All func() []*Registrar
}

// Describe implements the prometheus.Collector interface.
func (Collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- registrationUp
	ch <- registrationLease
	ch <- clockDifference
}

// Collect implements the prometheus.Collector interface.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.All() {
		for _, s := range r.sorted() {
			state, up := s.state(), 0.0
			if state.Up {
				up = 1
			}
			ch <- prometheus.MustNewConstMetric(registrationUp, prometheus.GaugeValue, up, s.node, state.DNSB)
			ch <- prometheus.MustNewConstMetric(registrationLease, prometheus.GaugeValue, state.LeaseLeft.Seconds(), s.node, state.DNSB)
			if s.answered.Load() {
				ch <- prometheus.MustNewConstMetric(clockDifference, prometheus.GaugeValue, float64(s.ahead.Load()), s.node, state.DNSB)
			}
		}
	}
}
