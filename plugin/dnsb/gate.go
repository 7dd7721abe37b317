package dnsb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// gate is the first handler of the chain. It refuses what needs no more than a
// glance, also client subnets that are malformed, before plugins change options. It
// keeps UPDATEs from plugins that would take them for queries by their type, and
// notes their signature, which *tsig* removes, and transfers, which *transfer* answers.
type gate struct {
	next plugin.Handler
	dnsb *DNSB
}

var _ plugin.Handler = (*gate)(nil)

// ServeDNS implements the plugin.Handler interface.
func (g *gate) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if r.Opcode != dns.OpcodeUpdate {
		if dnsmsg.MalformedSubnet(r) && dns.IsSubDomain(g.dnsb.conf.zone, r.Question[0].Name) {
			dnsmsg.NormalizeEDNS(r)
			return dns.RcodeFormatError, nil
		}
		switch {
		case isTransfer(r, g.dnsb.conf.zone):
			return g.serveTransfer(ctx, w, r)
		case isMapTransfer(r):
			ctx, r = pastTransfer(ctx, r)
		}
		return g.next.ServeDNS(ctx, w, r)
	}
	t := r.IsTsig()
	verified := t != nil && w.TsigStatus() == nil
	if !verified {
		wasted(updateCost(r))
		g.logUnverified(w, t)
	}
	refuse := func(outcome registry.Outcome, rcode int, text string) (int, error) {
		g.dnsb.countUpdate(outcome)
		m := new(dns.Msg).SetRcode(r, rcode)
		dnsmsg.SetError(m, r, dns.ExtendedErrorCodeOther, text)
		if verified {
			m.Extra = append(m.Extra, replySignature(m, t, dns.RcodeSuccess))
		}
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	switch {
	case !g.dnsb.conf.updatesFrom(resolver.Address(w)):
		return refuse(outOfScope, dns.RcodeRefused, "the source address is in no prefix of 'update-from'")
	case len(r.Question) != 1 || r.Question[0].Qtype != dns.TypeSOA: // RFC 2136, section 3.1.1
		return refuse(malformed, dns.RcodeFormatError, zoneSectionText)
	case tooManyRecords(len(r.Answer), len(r.Ns), len(r.Extra)):
		return refuse(malformed, dns.RcodeFormatError, tooManyText)
	}
	if t != nil {
		ctx = context.WithValue(ctx, signatureKey{}, t)
	}
	return g.next.ServeDNS(ctx, w, r)
}

// unverified reminds of UPDATEs without a right signature, by zone and reason: the
// sender may have chosen all else.
var unverified reminder.Keyed

// logUnverified counts, notes and logs an UPDATE without a right signature, which *tsig* or
// DNSB.register refuses.
func (g *gate) logUnverified(w dns.ResponseWriter, t *dns.TSIG) {
	from, reason := resolver.Address(w), "it is not signed"
	if t != nil {
		g.dnsb.countUpdate(unsigned)
		switch err := w.TsigStatus(); {
		case errors.Is(err, dns.ErrSecret):
			reason = "unknown key (BADKEY)"
		case errors.Is(err, dns.ErrTime):
			reason = "the clocks differ (BADTIME)"
		default:
			reason = "other secret (BADSIG)"
		}
	}
	sender := "from " + from.String()
	if t != nil {
		sender += fmt.Sprintf(", signed with key %q", clip(dns.CanonicalName(t.Hdr.Name)))
	}
	g.dnsb.zone.updates.note(updateKind{outcome: unsigned, reason: reason}, sender+": "+reason)
	if unverified.Failed(g.dnsb.conf.zone+" "+reason, "") {
		log.Warningf("Refused an update %s: %s", sender, reason)
	}
}

// Name implements the plugin.Handler interface.
func (g *gate) Name() string { return gateName }

const gateName = pluginName + "_gate"

// updatesFrom reports whether an address may send UPDATEs.
func (c *config) updatesFrom(addr netip.Addr) bool {
	if len(c.updateFrom) == 0 {
		return true
	}
	return slices.ContainsFunc(c.updateFrom, func(p netip.Prefix) bool { return p.Contains(addr) })
}
