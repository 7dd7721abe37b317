package dnsb

import (
	"context"
	"slices"

	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
)

// maxMapTransfers is how many transfers of the map are served at a time. A node
// that finds no free one tries again.
const maxMapTransfers = 8

// serveMap answers a request for the map of a cut. The plugin *tsig*, earlier in
// the chain, has verified the signature and signs the replies.
func (d *DNSB) serveMap(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, cut string) (int, error) {
	state := request.Request{W: w, Req: r}
	reply := func(rcode int) (int, error) {
		return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	}
	key, signed := tsig.ValidatedKeyName(ctx)
	switch {
	case !signed:
		return dns.RcodeRefused, nil
	case r.Opcode != dns.OpcodeQuery:
		return reply(dns.RcodeNotImplemented)
	case state.Name() != nodemap.ZoneOf(cut) || !d.conf.mayFetch(key, cut):
		return reply(dns.RcodeNotAuth) // RFC 5936, section 2.2.1
	}
	m := d.zone.shared.Load()
	switch {
	case m == nil: // not yet
		return reply(dns.RcodeServerFailure)
	case m.nodes[cut] == nil:
		return reply(dns.RcodeNotAuth)
	}
	soa := nodemap.SOA(cut, d.conf.servers[0].name, m.serial)
	return dns.RcodeSuccess, dnsmsg.ServeZone(w, r, soa, func() error {
		result := "ok"
		defer func() { mapTransferCount.WithLabelValues(d.conf.zone, result).Inc() }()
		select {
		case d.zone.mapTransfers <- struct{}{}:
			defer func() { <-d.zone.mapTransfers }()
		default:
			result = "busy"
			return w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
		}
		err := dnsmsg.WriteTransfer(w, r, soa, m.lists.Records(cut, d.conf.servers[0].name, m.nodes[cut]))
		if err != nil {
			result = "failed"
		}
		return err
	})
}

// mayFetch reports whether the holder of a key may have the map of a cut: it may
// register a node that serves the cut.
func (c *config) mayFetch(key, cut string) bool {
	return slices.ContainsFunc(c.accepts, func(rule *acceptRule) bool { return rule.key == key && rule.permitsCut(cut) })
}
