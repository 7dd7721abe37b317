package fastpath

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics/vars"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const subsystem = "fastpath"

var (
	queryCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: subsystem,
		Name:      "queries_total",
		Help: "Counter of datagrams that the fast path received by result: answered, chain (handed over to the plugin chain), " +
			"compared (answered by the chain, to compare the answers), or lost (more than the chain could take, or the reply could not be sent).",
	}, []string{"server", "result"})

	enabledGauge = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: subsystem,
		Name:      "enabled",
		Help:      "Gauge of whether the fast path of a server is on: 0 after it has switched itself off.",
	}, []string{"server"})
)

// results count what became of the datagrams of a listener.
type results struct{ answered, chain, compared, lost prometheus.Counter }

func newResults(server string) results {
	of := func(result string) prometheus.Counter { return queryCount.WithLabelValues(server, result) }
	return results{of("answered"), of("chain"), of("compared"), of("lost")}
}

// counts are what *prometheus* counts of a zone. Those that are needed are looked up
// once.
type counts struct {
	server, zone, plugin string

	requests [2][maxType]lazyCounter // by family
	do       lazyCounter
	rcodes   [16]lazyCounter

	once                     sync.Once
	duration, received, sent prometheus.Observer
}

// newCounts returns the counts of a zone of a server block, nil if it is without
// *prometheus*.
func newCounts(server, zone string, block *dnsserver.Config) *counts {
	counted, by, ok := countedAs(block, zone)
	if !ok {
		return nil
	}
	return &counts{server: server, zone: counted, plugin: by}
}

// answered is a query that was answered.
type answered struct {
	counts         *counts
	qtype          uint16
	v6, do         bool
	rcode          byte
	received, sent int // bytes, those sent without the OPT record that CoreDNS adds: *prometheus* does not see it
}

func (a *answered) count(took time.Duration) {
	c := a.counts
	c.once.Do(func() {
		c.duration = vars.RequestDuration.WithLabelValues(c.server, c.zone, "")
		c.received = vars.RequestSize.WithLabelValues(c.server, c.zone, "", "udp")
		c.sent = vars.ResponseSize.WithLabelValues(c.server, c.zone, "", "udp")
	})
	family, label := 0, "1"
	if a.v6 {
		family, label = 1, "2"
	}
	c.requests[family][a.qtype].inc(vars.RequestCount, func() []string {
		return []string{c.server, c.zone, "", "udp", label, typeLabel(a.qtype)}
	})
	if a.do {
		c.do.inc(vars.RequestDo, func() []string { return []string{c.server, c.zone, ""} })
	}
	c.rcodes[a.rcode].inc(vars.ResponseRcode, func() []string {
		return []string{c.server, c.zone, "", dns.RcodeToString[int(a.rcode)], c.plugin}
	})
	c.duration.Observe(took.Seconds())
	c.received.Observe(float64(a.received))
	c.sent.Observe(float64(a.sent))
}

// lazyCounter is a counter that is looked up when it is needed first.
type lazyCounter struct {
	counter atomic.Pointer[prometheus.Counter]
}

func (l *lazyCounter) inc(vec *prometheus.CounterVec, labels func() []string) {
	counter := l.counter.Load()
	if counter == nil {
		found := vec.WithLabelValues(labels()...)
		counter = &found
		l.counter.Store(counter)
	}
	(*counter).Inc()
}

// typeLabel returns the label of a type in the metrics of CoreDNS.
func typeLabel(t uint16) string {
	switch t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeDNSKEY, dns.TypeMX, dns.TypeNSEC3, dns.TypeNSEC, dns.TypeNS,
		dns.TypePTR, dns.TypeRRSIG, dns.TypeSOA, dns.TypeSRV, dns.TypeTXT, dns.TypeHTTPS, dns.TypeSVCB:
		return dns.TypeToString[t]
	}
	return "other"
}
