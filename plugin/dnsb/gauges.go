package dnsb

import (
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

var (
	leaseEnd = gauge("lease_end_timestamp_seconds",
		"Gauge of the time at which the lease of a node ends unless it is renewed.", "node")
	nodeInState = gauge("node_state",
		"Gauge of whether a node is in a state (1) or not (0).", "node", "state")
	reloadSuccessful = gauge("last_reload_successful",
		"Gauge of whether what is in force is what the files of a source hold (1) or the previous version (0).", "source")
	reloadTime = gauge("last_reload_success_timestamp_seconds",
		"Gauge of the time at which the files of a source were loaded last without an error, at the start too.", "source")
	nodeCount     = gauge("nodes", "Gauge of nodes by state.", "state")
	overrideCount = gauge("orders", "Gauge of overrides in force, by verb.", "order")
	prefixCount   = gauge("map_prefixes", "Gauge of resolver prefixes by who named them.", "source")
	nodeOverrides = gauge("node_orders_current",
		"Gauge of whether a node has fetched the overrides of servers that are in force (1) or not (0).", "node")
	overlapCount = gauge("overlaps",
		"Gauge of registered prefixes that overlap with those of other nodes.")
	surveySites       = gauge("survey_sites", "Gauge of resolver sites of the survey by state.", "state")
	surveyImplausible = gauge("survey_implausible", "Gauge of latencies from a node that those from other nodes contradict.", "node")

	mixedCount = gauge("mixed_cuts", "Gauge of cuts some of whose nodes have client subnets while others do not.")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, append([]string{"zone"}, labels...), nil)
}

func init() { prometheus.MustRegister(gauges(zones.Values)) }

// gauges exports what the youngest instance of each zone knows now: during a
// reload two run for a moment, and no value of the previous one may stay.
type gauges func() []*zone

// Describe implements the prometheus.Collector interface.
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{leaseEnd, nodeInState, reloadSuccessful, reloadTime, nodeCount, overrideCount, nodeOverrides, prefixCount, overlapCount, mixedCount, surveySites, surveyImplausible} {
		ch <- d
	}
}

// Collect implements the prometheus.Collector interface.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	for _, z := range g() {
		if d := z.youngest.Load(); d != nil {
			d.collect(ch)
		}
	}
}

func (d *DNSB) collect(ch chan<- prometheus.Metric) {
	emit := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, append([]string{d.conf.zone}, labels...)...)
	}
	s := d.snapshot.Load()
	counts := make(map[nodeState]int)
	registered := 0
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		counts[n.state]++
		registered += len(n.Prefixes)
		for _, state := range nodeStates {
			emit(nodeInState, boolValue(n.state == state), n.Node, string(state))
		}
		if n.record != nil {
			emit(leaseEnd, float64(n.record.LeaseEnd.UnixMilli())/1000, n.Node)
			emit(nodeOverrides, boolValue(d.zone.fetched.has(n.Node, s.overrides.servers)), n.Node)
		}
	}
	for _, state := range nodeStates {
		emit(nodeCount, float64(counts[state]), string(state))
	}
	mixed := 0
	for _, c := range s.cuts {
		if c.differs() {
			mixed++
		}
	}
	emit(mixedCount, float64(mixed))
	for source, status := range d.fileStatus() {
		emit(reloadSuccessful, boolValue(!status.Failed), source)
		emit(reloadTime, unixSeconds(status.Loaded), source)
	}
	for verb, n := range s.overrides.counts {
		emit(overrideCount, float64(n), verb)
	}
	emit(prefixCount, float64(s.operators), "operator")
	emit(prefixCount, float64(registered), "registration")
	if survey := d.Survey(); survey != nil {
		emit(prefixCount, float64(survey.Sites[sitesurvey.StateMeasured]+survey.Sites[sitesurvey.StateRouter]), "survey")
		for _, state := range sitesurvey.SiteStates {
			emit(surveySites, float64(survey.Sites[state]), string(state))
		}
		for _, n := range survey.Nodes {
			emit(surveyImplausible, float64(n.Implausible), n.Node)
		}
	}
	if o := d.overlaps.Load(); o != nil {
		emit(overlapCount, float64(o.total))
	}
}

var nodeStates = []nodeState{nodeLive, nodeStale, nodeDead, nodeDrained}

// fileStatus returns the status of the files of the block, by source.
func (d *DNSB) fileStatus() map[string]filewatch.Status {
	status := make(map[string]filewatch.Status)
	if len(d.conf.maps) > 0 {
		status["map"] = *d.mapStatus.Load()
	}
	if len(d.conf.databases) > 0 { // which are loaded with the map
		status["databases"] = *d.mapStatus.Load()
	}
	if d.conf.admin != "" {
		status["admin"] = d.admin.Status()
	}
	return status
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds returns a time as Prometheus has it, 0 for the zero time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
