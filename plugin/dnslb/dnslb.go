// Package dnslb implements a plugin that answers with the address of the
// server that has the lowest measured latency.
//
// Samples become rankings in one goroutine per server block (rank.go), which
// publishes one immutable answer per pool of servers. A query reads that answer
// and builds its message; it never ranks and never locks.
package dnslb

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const pluginName = "dnslb"

// DNSLB answers for the services of one server block.
type DNSLB struct {
	Next plugin.Handler

	config

	snapshot atomic.Pointer[snapshot] // what queries read
	sources  *sources
	probe    *latencyprobe.LatencyProbe
	watch    *latencyprobe.Watch // of the snapshot's targets, from start-up on
	state    *blockState         // outlives a reload
	signer   *nsec.Signer        // nil: the zones are not signed
	stop     context.CancelFunc
	ready    atomic.Bool

	registered atomic.Pointer[config] // by files that have changed since the start; nil: by config

	configureBlock func() // applies blockSettings, if this is the youngest instance

	counters counters
}

var _ plugin.Handler = (*DNSLB)(nil)

// ServeDNS implements the plugin.Handler interface.
func (d *DNSLB) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	qname, snap := state.Name(), d.snapshot.Load()
	n, exists := snap.lookup(qname)
	if n.zone != "" {
		dnsmsg.NormalizeEDNS(r)
	}
	if m := d.explains(w, r, snap, n.zone); m != nil {
		return d.write(ctx, w, m, n.zone, resultExplain)
	}
	switch {
	case r.Opcode == dns.OpcodeNotify && len(d.dnsbs) > 0 && d.notified(qname) != nil:
		rcode := dns.RcodeRefused
		if d.notified(qname)(resolver.SourceAddress(w)) {
			rcode = dns.RcodeSuccess
		}
		return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	case d.viewKey.Name != "" && peerview.IsViewName(qname, d.Zones[0]):
		return d.state.sharing.Serve(ctx, w, r, d.nameserver(d.Zones[0]))
	case n.zone == "" || d.observe:
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	case r.Opcode != dns.OpcodeQuery && d.authoritative(snap, n.zone):
		return dns.RcodeNotImplemented, nil
	case r.Opcode != dns.OpcodeQuery:
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	case snap.signed(n.zone):
		return plugin.NextOrFailure(d.Name(), d.backend(snap, n.zone), ctx, w, r)
	case state.QClass() != dns.ClassINET:
		return dns.RcodeRefused, nil
	}

	if d.signer != nil {
		w = d.signer.Writer(ctx, w, r, d.typesOf)
	}
	qtype, from := state.QType(), d.clientOf(w, r)
	if n.service.pool(qtype) != nil {
		m, result := d.answerRanked(&from, r, snap, n)
		return d.write(ctx, w, m, n.zone, result)
	}
	if m := d.answerReserved(w, r, snap, qname, n); m != nil {
		return d.write(ctx, w, m, n.zone, resultAuthority)
	}
	if qtype == dns.TypeAXFR || qtype == dns.TypeIXFR {
		if d.authoritative(snap, n.zone) {
			return dns.RcodeRefused, nil
		}
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	}
	if !d.authoritative(snap, n.zone) && snap.needsBackend(qname, n, exists) {
		m, result, rcode, err := d.merge(ctx, from, r, snap, qname, n)
		if m != nil {
			return d.write(ctx, w, m, n.zone, result)
		}
		switch {
		case snap.unserved[n.zone] && rcode == dns.RcodeRefused:
			// The backend plugin has other zones, and not this one.
		case n.service != nil && (qtype == dns.TypeA || qtype == dns.TypeAAAA):
			// The addresses of a service are known without the backend plugin.
		default:
			return rcode, err
		}
	}
	m, result := d.answerAuthority(r, snap, qname, n, exists)
	return d.write(ctx, w, m, n.zone, result)
}

// notified returns who is to know of a NOTIFY from an address, by its name: that of
// the map or the overrides of a zone; nil for other names.
func (d *DNSLB) notified(name string) func(netip.Addr) bool {
	if cut, ok := nodemap.CutOf(name); ok && slices.Contains(d.Zones, cut) {
		return d.state.maps.Notify
	}
	if slices.ContainsFunc(d.Zones, func(zone string) bool { return serveroverride.ZoneOf(zone) == name }) {
		return d.state.overrides.Notify
	}
	return nil
}

func (d *DNSLB) write(ctx context.Context, w dns.ResponseWriter, m *dns.Msg, zone, result string) (int, error) {
	d.counters.of(metrics.WithServer(ctx), zone, result).Inc()
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// Ready implements the ready.Readiness interface: every server was probed once, or
// had the time for it.
func (d *DNSLB) Ready() bool { return d.ready.Load() }

// CacheBypassZones implements the cache.ZoneBypasser interface: a cached answer
// would outlive the ranking that it came from.
func (d *DNSLB) CacheBypassZones() []string { return d.Zones }

// Name implements the plugin.Handler interface.
func (d *DNSLB) Name() string { return pluginName }
