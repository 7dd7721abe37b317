package dnslb

import (
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
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
	c := client{from: q.From}
	sel := d.selectFor(&c, p, q.Type)
	if sel.refused || sel.note != "" || len(sel.addrs) == 0 {
		return 0, false
	}
	b := q.Begin(out, true, dns.RcodeSuccess, len(sel.addrs), 0, 0)
	for _, addr := range sel.addrs {
		b = fastpath.AppendAddress(b, q.Suffix(0), addr, sel.ttl)
	}
	if n, ok = q.End(b); ok && !q.Trial {
		found.service.count(sel)
		d.counters.of(q.Server, found.zone, resultRanked).Inc()
	}
	return n, ok
}

// appendNegative writes that a name or type does not exist, as answerAuthority.
func (d *DNSLB) appendNegative(q *fastpath.Query, snap *snapshot, found name, exists bool, out []byte) (n int, result string, ok bool) {
	rcode, result := dns.RcodeSuccess, resultNoData
	if !exists {
		rcode, result = dns.RcodeNameError, resultNXDomain
	}
	n, ok = appendRecords(q, q.Begin(out, true, rcode, 0, 1, 0), out, negative(d.zoneSOA(snap, found.zone), found))
	return n, result, ok
}

// appendHTTPS writes the HTTPS records that a backend plugin has at a name, with
// current hints, as merge.
func (d *DNSLB) appendHTTPS(q *fastpath.Query, snap *snapshot, found name, out []byte) (n int, ok bool) {
	z := snap.zones[found.zone]
	if d.Node == "" || z == nil || snap.parentOnly[found.zone] || slices.Contains(snap.missing, found.zone) || found.has(dns.TypeNS) || found.has(dns.TypeCNAME) {
		return 0, false
	}
	rrs := z.HTTPS(d.Next.Name(), q.Name)
	if rrs == nil {
		return 0, false
	}
	rrs = d.withCurrentHints(&client{from: q.From}, snap, rrs)
	return appendRecords(q, q.Begin(out, true, dns.RcodeSuccess, len(rrs), 0, 0), out, rrs...)
}

// appendRecords completes a reply that begins in out with records.
func appendRecords(q *fastpath.Query, b, out []byte, rrs ...dns.RR) (n int, ok bool) {
	at := len(b)
	for _, rr := range rrs {
		var err error
		if at, err = dns.PackRR(rr, out, at, nil, false); err != nil {
			return 0, false
		}
	}
	return q.End(out[:at])
}
