// Package dnslb implements a plugin that answers with the address of the
// server that has the lowest measured latency.
//
// Samples become rankings in one goroutine per server block (rank.go), which
// publishes one immutable answer per pool of servers. A query reads that answer
// and builds its message; it never ranks and never locks.
package dnslb

import (
	"context"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const pluginName = "dnslb"

// DNSLB answers for the services of one server block.
type DNSLB struct {
	Next plugin.Handler

	config

	table   atomic.Pointer[table] // what queries read
	sources *sources
	probe   *latencyprobe.LatencyProbe
	kept    *kept // rankings and registration, which outlive a reload
	stop    context.CancelFunc
	ready   atomic.Bool

	generation atomic.Uint64 // of this instance, among those that overlap
}

var _ plugin.Handler = (*DNSLB)(nil)

// ServeDNS implements the plugin.Handler interface.
func (d *DNSLB) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	qname := state.Name()
	owner, exists := d.table.Load().lookup(qname)
	if owner.zone == "" {
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	}
	if r.Opcode != dns.OpcodeQuery {
		if d.authoritative() {
			return dns.RcodeNotImplemented, nil
		}
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	}

	qtype := state.QType()
	if p := owner.service.pool(qtype); p != nil && !d.observe {
		m, result := d.ranked(w, r, p.answer.Load(), owner.zone)
		return d.write(ctx, w, m, owner.zone, result)
	}

	if d.authoritative() {
		if qtype == dns.TypeAXFR || qtype == dns.TypeIXFR {
			return dns.RcodeRefused, nil
		}
		m, result := d.authority(r, qname, qtype, owner, exists)
		return d.write(ctx, w, m, owner.zone, result)
	}
	if !exists {
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	}

	// The zone behind us need not know our names: its NXDOMAIN is our NODATA.
	nw := nonwriter.New(w)
	rcode, err := plugin.NextOrFailure(d.Name(), d.Next, ctx, nw, r)
	if nw.Msg == nil {
		return rcode, err
	}
	if nw.Msg.Rcode == dns.RcodeNameError {
		nw.Msg.Rcode, rcode = dns.RcodeSuccess, dns.RcodeSuccess
	}
	if werr := w.WriteMsg(nw.Msg); werr != nil {
		return dns.RcodeServerFailure, werr
	}
	return rcode, err
}

func (d *DNSLB) write(ctx context.Context, w dns.ResponseWriter, m *dns.Msg, zone, result string) (int, error) {
	answers.WithLabelValues(metrics.WithServer(ctx), zone, result).Inc()
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// authoritative says whether this block's zones are ours as a whole. They are
// for a node, and where no plugin follows that could have them.
func (d *DNSLB) authoritative() bool { return d.Node != "" || d.Next == nil }

// Ready implements the ready.Readiness interface: the first full round of
// measurement has ended, or the time for it.
func (d *DNSLB) Ready() bool { return d.ready.Load() }

// CacheBypassZones implements the cache.ZoneBypasser interface: a cached answer
// would outlive the ranking that it came from.
func (d *DNSLB) CacheBypassZones() []string { return d.Zones }

// Name implements the plugin.Handler interface.
func (d *DNSLB) Name() string { return pluginName }
