package dnslb

import (
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

var _ fastpath.Answerer = (*DNSLB)(nil)

// Answer implements the fastpath.Answerer interface. It answers with the addresses of
// services and with the HTTPS records of a node's zone, and that there are none.
func (d *DNSLB) Answer(q *fastpath.Query, out []byte) (n int, ok bool) {
	snap := d.snapshot.Load()
	if snap == nil || d.observe || d.signer != nil || isReserved(q) {
		return 0, false
	}
	found, exists := snap.lookupQuery(q)
	if found.zone == "" || snap.signed(found.zone) {
		return 0, false
	}
	result := ""
	switch p := found.service.pool(q.Type); {
	case p != nil:
		return d.appendRanked(q, found, p, out)
	case d.authoritative(snap, found.zone):
		n, result, ok = d.appendNegative(q, snap, found, exists, out)
	case q.Type == dns.TypeHTTPS && exists:
		n, ok = d.appendHTTPS(q, snap, found, out)
		result = resultZone
	case !snap.needsBackend(string(q.Name), found, exists):
		n, result, ok = d.appendNegative(q, snap, found, exists, out)
	}
	if ok && !q.Trial {
		d.counters.of(q.Server, found.zone, result).Inc()
	}
	return n, ok
}

// isReserved reports whether a query may be for an explanation, a view or a map, or
// for records that every zone has.
func isReserved(q *fastpath.Query) bool {
	return q.Type == dns.TypeTXT || q.Type == dns.TypeSOA || q.Type == dns.TypeNS ||
		slices.ContainsFunc(q.Labels, func(label uint8) bool { return q.Name[label] == '_' })
}

// lookupQuery is lookup for the name of a query. It finds no root zone.
func (s *snapshot) lookupQuery(q *fastpath.Query) (n name, exists bool) {
	for i, label := range q.Labels {
		at := q.Name[label:]
		found, ok := s.names[string(at)]
		if !ok {
			continue
		}
		if i == 0 {
			return found, true
		}
		if wildcard, ok := s.wildcards[string(at)]; ok {
			return wildcard, true
		}
		return name{zone: found.zone}, false
	}
	return name{}, false
}

// appendRanked writes the addresses of a service, if there is nothing else to say.
func (d *DNSLB) appendRanked(q *fastpath.Query, found name, p *pool, out []byte) (n int, ok bool) {
	c := d.clientOfQuery(q)
	sel := d.selectFor(&c, p, q.Type)
	if sel.refused || sel.note != "" || len(sel.addrs) == 0 {
		return 0, false
	}
	b := q.Begin(out, true, dns.RcodeSuccess, len(sel.addrs), 0, 0)
	for _, addr := range sel.addrs {
		b = fastpath.AppendAddress(b, q.Suffix(0), addr, sel.ttl)
	}
	if n, ok = q.EndEcho(b, c.scope); ok && !q.Trial {
		found.service.count(sel)
		d.counters.of(q.Server, found.zone, resultRanked).Inc()
	}
	return n, ok
}

// clientOfQuery is clientOf for a query of the fast path.
func (d *DNSLB) clientOfQuery(q *fastpath.Query) client {
	c := client{from: q.From}
	if d.clientSubnets {
		c.subnet = q.Subnet
	}
	return c
}

// appendNegative writes that a name or type does not exist, as answerAuthority.
func (d *DNSLB) appendNegative(q *fastpath.Query, snap *snapshot, found name, exists bool, out []byte) (n int, result string, ok bool) {
	rcode, result := dns.RcodeSuccess, resultNoData
	if !exists {
		rcode, result = dns.RcodeNameError, resultNXDomain
	}
	b := q.Begin(out, true, rcode, 0, 1, 0)
	at, err := dns.PackRR(negative(d.zoneSOA(snap, found.zone), found), out, len(b), nil, false)
	if err != nil {
		return 0, result, false
	}
	n, ok = q.EndEcho(out[:at], 0)
	return n, result, ok
}

// appendHTTPS writes the HTTPS records that a backend plugin has at a name, with
// current hints, as merge.
func (d *DNSLB) appendHTTPS(q *fastpath.Query, snap *snapshot, found name, out []byte) (n int, ok bool) {
	z := snap.zones[found.zone]
	if d.Node == "" || z == nil || snap.parentOnly[found.zone] || slices.Contains(snap.missing, found.zone) || found.has(dns.TypeNS) || found.has(dns.TypeCNAME) {
		return 0, false
	}
	records := z.HTTPS(d.Next.Name(), q.Name)
	if records == nil {
		return 0, false
	}
	b := q.Begin(out, true, dns.RcodeSuccess, len(records), 0, 0)
	c := d.clientOfQuery(q)
	if found.service == nil {
		for i := range records {
			b = records[i].Append(b)
		}
		return q.EndEcho(b, 0)
	}
	v4, v6 := d.selectFor(&c, found.service.a, dns.TypeA), d.selectFor(&c, found.service.aaaa, dns.TypeAAAA)
	for i := range records {
		b = records[i].AppendHinted(b, min(records[i].TTL, d.ttlHigh, v4.ttl, v6.ttl), v4.addrs, v6.addrs)
	}
	return q.EndEcho(b, c.scope)
}

// replyBasis is what replies come from. All that the pointers lead to is immutable but for
// the pools of the snapshot.
type replyBasis struct {
	snapshot         *snapshot
	views            *peerview.Set
	nameserver       string // it changes when a node registers, not from one moment to the next
	version          any    // of the zone of the backend plugin
	answers          [2]*answer
	principalAnswers [2]*[]*answer
	sites            [2]*siteRanking
}

// Basis implements the fastpath.Answerer interface.
func (d *DNSLB) Basis(q *fastpath.Query) any {
	b := replyBasis{snapshot: d.snapshot.Load(), views: d.state.views()}
	if b.snapshot == nil {
		return b
	}
	found, _ := b.snapshot.lookupQuery(q)
	b.nameserver = d.nameserver(found.zone)
	if z := b.snapshot.zones[found.zone]; z != nil {
		b.version = z.Version()
	}
	for i, qtype := range [...]uint16{dns.TypeA, dns.TypeAAAA} {
		if p := found.service.pool(qtype); p != nil {
			b.answers[i], b.principalAnswers[i] = p.answer.Load(), p.principalAnswers.Load()
			b.sites[i] = p.sites.Load()
		}
	}
	return b
}
