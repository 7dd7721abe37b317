package dnslb

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// counters holds the counters of answers_total that were needed, so that an answer
// need not look its own up. The zero value is ready.
type counters struct {
	mu    sync.Mutex // of changes
	known atomic.Pointer[map[answerKey]prometheus.Counter]
}

type answerKey struct{ server, zone, result string }

func (c *counters) of(server, zone, result string) prometheus.Counter {
	key := answerKey{server, zone, result}
	if known := c.known.Load(); known != nil {
		if counter, ok := (*known)[key]; ok {
			return counter
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[answerKey]prometheus.Counter)
	if known := c.known.Load(); known != nil {
		next = maps.Clone(*known)
	}
	next[key] = answers.WithLabelValues(server, zone, result)
	c.known.Store(&next)
	return next[key]
}

// serviceCounters count the answers for the services of one zone.
type serviceCounters struct {
	ranks   [3]prometheus.Counter // by the rank of the first address
	origins [3]prometheus.Counter // outside, own, deputy; unset where there is no node
	subnet  prometheus.Counter    // for a client subnet; unset as well
	site    prometheus.Counter    // ranked for a site of the survey; unset as well
}

func newServiceCounters(zone, node string) *serviceCounters {
	c := new(serviceCounters)
	for i, rank := range []string{"1", "2", "3+"} {
		c.ranks[i] = ranks.WithLabelValues(zone, node, rank)
	}
	if node == "" {
		return c
	}
	for i, origin := range []string{"outside", "own", "deputy"} {
		c.origins[i] = queries.WithLabelValues(zone, node, origin)
	}
	c.subnet = queries.WithLabelValues(zone, node, "subnet")
	c.site = surveyAnswers.WithLabelValues(zone, node)
	return c
}

// count counts an answer for a service.
func (s *service) count(sel selection) {
	if len(sel.addrs) > 0 {
		p := s.a
		if !sel.addrs[0].Is4() {
			p = s.aaaa
		}
		if p != nil {
			if served, ok := p.served[sel.addrs[0]]; ok {
				served.Add(1)
			}
		}
	}
	if sel.rank > 0 {
		s.counts.ranks[min(sel.rank, len(s.counts.ranks))-1].Inc()
	}
	c := s.counts.origins[min(sel.slot, peerview.Own+1)-peerview.Outside]
	if sel.bySubnet {
		c = s.counts.subnet
	}
	if c != nil {
		c.Inc()
	}
	if sel.bySite && s.counts.site != nil {
		s.counts.site.Inc()
	}
}

// snapshotGauges exports the state of the snapshots in use at the time of a scrape:
// nothing remains of a server block that is gone.
type snapshotGauges struct{}

// Describe implements the prometheus.Collector interface.
func (snapshotGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- overridesInForce
	ch <- servicesAllDown
	ch <- serverAnswers
	ch <- reloadSuccessful
	ch <- reloadTime
}

// Collect implements the prometheus.Collector interface.
func (snapshotGauges) Collect(ch chan<- prometheus.Metric) {
	var snapshots []*snapshot
	files := make(map[[3]string]filewatch.Status) // by zone, node and source
	for _, b := range blocks.Values() {
		youngest := b.youngest()
		if youngest.snapshot == nil {
			continue
		}
		snapshots = append(snapshots, youngest.snapshot)
		for source, status := range youngest.instance.fileStatus() {
			key := [3]string{youngest.instance.Zones[0], youngest.instance.Node, source}
			if previous, ok := files[key]; ok { // several blocks of a zone: the worst counts
				status.Failed = status.Failed || previous.Failed
				if previous.Loaded.Before(status.Loaded) {
					status.Loaded = previous.Loaded
				}
			}
			files[key] = status
		}
	}
	collect(snapshots, ch)
	collectServers(snapshots, ch)
	for key, status := range files {
		loaded, successful := 0.0, 1.0
		if !status.Loaded.IsZero() {
			loaded = float64(status.Loaded.UnixMilli()) / 1000
		}
		if status.Failed {
			successful = 0
		}
		ch <- prometheus.MustNewConstMetric(reloadSuccessful, prometheus.GaugeValue, successful, key[:]...)
		ch <- prometheus.MustNewConstMetric(reloadTime, prometheus.GaugeValue, loaded, key[:]...)
	}
}

// collect adds up snapshots with the same labels: several blocks may have the same
// zone, on different listeners.
func collect(snapshots []*snapshot, ch chan<- prometheus.Metric) {
	type key struct {
		desc  *prometheus.Desc
		block [2]string
		label string
	}
	numbers := make(map[key]int)
	for _, t := range snapshots {
		for _, word := range serveroverride.Grammar.Words() {
			numbers[key{overridesInForce, t.labels, word}] += 0 // exported even if there is none
		}
		for _, o := range t.inForce {
			numbers[key{overridesInForce, t.labels, o.Verb}]++
		}
		down := map[uint16]int{dns.TypeA: 0, dns.TypeAAAA: 0}
		for _, p := range t.pools {
			if p.answer.Load().allDown {
				down[p.qtype()] += len(p.services)
			}
		}
		for qtype, n := range down {
			numbers[key{servicesAllDown, t.labels, dns.Type(qtype).String()}] += n
		}
	}
	for k, n := range numbers {
		ch <- prometheus.MustNewConstMetric(k.desc, prometheus.GaugeValue, float64(n), k.block[0], k.block[1], k.label)
	}
}

// maxServedMembers is how many members a snapshot may have for answers to be counted by
// server: each is a series of the metric.
const maxServedMembers = 1000

// countServed has the pools of a snapshot count answers by server, unless there are
// too many.
func (t *snapshot) countServed() {
	members := 0
	for _, p := range t.pools {
		members += len(p.members)
	}
	if members > maxServedMembers {
		return
	}
	for _, p := range t.pools {
		p.served = make(map[netip.Addr]*atomic.Uint64, len(p.members))
		for _, m := range p.members {
			p.served[m.addr] = new(atomic.Uint64)
		}
	}
}

// continueCounts has the pool go on with the counts of its predecessor, unless another
// pool does.
func (p *pool) continueCounts(predecessor *pool, continued map[*pool]bool) {
	if continued[predecessor] {
		return
	}
	continued[predecessor] = true
	for addr := range p.served {
		if count, ok := predecessor.served[addr]; ok {
			p.served[addr] = count
		}
	}
}

// collectServers exports the answers by server.
func collectServers(snapshots []*snapshot, ch chan<- prometheus.Metric) {
	sums := make(map[[4]string]uint64)
	for _, t := range snapshots {
		for _, p := range t.pools {
			for _, m := range p.members {
				if count := p.served[m.addr]; count != nil {
					sums[[4]string{t.labels[0], t.labels[1], p.services[0], m.label}] += count.Load()
				}
			}
		}
	}
	for labels, sum := range sums {
		ch <- prometheus.MustNewConstMetric(serverAnswers, prometheus.CounterValue, float64(sum), labels[:]...)
	}
}

// countReload counts a change of a source that was loaded again, or could not be.
func countReload(zone, source string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	reloads.WithLabelValues(zone, source, result).Inc()
}
