package dnslb

import (
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// negativeTTL is the TTL of negative answers (RFC 2308, section 5).
const negativeTTL = 30

// zoneSOA returns the SOA record of a zone: that of the backend zone, or else one
// that dnslb makes.
func (d *DNSLB) zoneSOA(snap *snapshot, zone string) dns.SOA {
	soa := *snap.soas[zone]
	if soa.Ns == "" { // made by dnslb
		soa.Ns = d.nameserver(zone)
	}
	return soa
}

// negative returns the SOA record of a negative answer (RFC 2308, section 3),
// with a short TTL for a service, which may get an address of the family.
func negative(soa dns.SOA, n name) dns.RR {
	soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	if n.service != nil {
		soa.Hdr.Ttl = min(soa.Hdr.Ttl, negativeTTL)
	}
	return &soa
}

func reply(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	dnsmsg.SetOptions(m, r, 0, "")
	return m
}

// selection is the answer of a service to one resolver in one address family.
type selection struct {
	addrs   []netip.Addr // empty: the service has none in this family
	ttl     uint32       // seconds
	rank    int          // of the first address, from 1; 0: it was not chosen by rank
	slot    int          // of the client
	refused bool         // all servers are down, and 'all-down refuse' is configured
	note    string       // text of an Extended DNS Error; "": none

	bySite   bool // ranked for the site of the client
	bySubnet bool // for the client subnet
	scope    int  // of the client subnet; 0: without addresses
}

// selectFor returns the answer of a pool to a client, and has the client note its
// scope. The addresses of services in any section of any answer come from it.
func (d *DNSLB) selectFor(c *client, p *pool, qtype uint16) selection {
	if !c.subnet.IsValid() {
		views := d.state.views()
		slot, site := views.Slot(c.address)
		return d.selectBy(slot, p.siteAnswer(views, site, c.address), c.address, p, qtype)
	}
	v, address := d.pointOfView(c, p), c.address
	if v.bySubnet {
		address = c.subnet.Addr
	}
	s := d.selectBy(v.slot, v.answer, address, p, qtype)
	s.bySubnet = v.bySubnet
	if !v.bySubnet || v.scope > c.subnet.Bits() { // a resolver gives it to the whole subnet
		s.ttl = min(s.ttl, d.ttlLow)
	}
	if len(s.addrs) > 0 { // negative answers are the same for all clients
		s.scope = v.scope
		c.scope = max(c.scope, s.scope)
	}
	return s
}

// selectBy returns the answer of a pool for a site, or if that is nil from the point of
// view of a slot. Tied servers share sites: address returns one in that of the client.
func (d *DNSLB) selectBy(slot int, a *answer, address func() netip.Addr, p *pool, qtype uint16) selection {
	if p == nil {
		return selection{ttl: d.ttlHigh, slot: slot}
	}
	bySite := a != nil
	if !bySite {
		a = p.answerFor(slot)
	}
	if a.allDown && (d.allDown.refuse || d.allDown.addrs != nil) {
		return d.allDown.selection(qtype, a.ttl, slot)
	}
	addrs, rank, ttl := a.pick(func() uint64 { return resolver.SiteOf(address()).Hash() })
	if a.allDown {
		return selection{addrs: addrs, ttl: ttl, slot: slot, note: "all servers are down; this is the last ranking"}
	}
	return selection{addrs: addrs, ttl: ttl, rank: rank, slot: slot, bySite: bySite}
}

// selection returns the answer that replaces the last ranking.
func (a allDown) selection(qtype uint16, ttl uint32, slot int) selection {
	s := selection{ttl: ttl, slot: slot, refused: a.refuse, note: "all servers are down"}
	if a.refuse {
		return s
	}
	if s.addrs = a.of(qtype); s.addrs != nil {
		s.note += "; these addresses are for that case"
	} else {
		s.note += "; there is no address for that case in this family"
	}
	return s
}

// answerRanked answers a query for the addresses of a service.
func (d *DNSLB) answerRanked(c *client, r *dns.Msg, snap *snapshot, n name) (m *dns.Msg, result string) {
	q := r.Question[0]
	sel := d.selectFor(c, n.service.pool(q.Qtype), q.Qtype)
	n.service.count(sel)
	m, result = reply(r), resultRanked
	switch {
	case sel.refused:
		m.Rcode, m.Authoritative = dns.RcodeRefused, false
	case len(sel.addrs) == 0:
		m.Ns = []dns.RR{dnsmsg.LimitTTL(negative(d.zoneSOA(snap, n.zone), n), sel.ttl)}
	default:
		m.Answer = sel.records(q.Name, q.Qtype)
	}
	if sel.note != "" {
		dnsmsg.SetOptions(m, r, dns.ExtendedErrorCodeOther, sel.note)
		result = resultAllDown
	}
	if c.scope > 0 {
		dnsmsg.SetScope(m, c.scope)
	}
	return m, result
}

// records returns new records: plugins earlier in the chain may change them.
func (s selection) records(owner string, qtype uint16) []dns.RR {
	return dnsmsg.AddressRecords(dnsmsg.Header(owner, qtype, s.ttl), s.addrs)
}

// answerAuthority answers a query that is neither for the addresses of a service
// nor for the backend plugin.
func (d *DNSLB) answerAuthority(r *dns.Msg, snap *snapshot, qname string, n name, exists bool) (*dns.Msg, string) {
	m, result := reply(r), resultNoData
	if q := r.Question[0]; q.Qtype == dns.TypeSOA && qname == n.zone {
		soa := d.zoneSOA(snap, n.zone)
		soa.Hdr.Name = q.Name
		m.Answer = []dns.RR{&soa}
		return m, resultAuthority
	}
	if !exists {
		m.Rcode, result = dns.RcodeNameError, resultNXDomain
	}
	m.Ns = []dns.RR{negative(d.zoneSOA(snap, n.zone), n)}
	return m, result
}

// answerReserved answers a query that the backend plugin never answers: ANY, and
// NS at the apex of a node's zone. It returns nil for other queries.
func (d *DNSLB) answerReserved(w dns.ResponseWriter, r *dns.Msg, snap *snapshot, qname string, n name) *dns.Msg {
	q := r.Question[0]
	apex := qname == n.zone
	authoritative := d.Node != "" || d.authoritative(snap, n.zone)
	var answer []dns.RR
	switch {
	case q.Qtype == dns.TypeANY && (n.service != nil || apex && authoritative || n.types != nil && !n.has(dns.TypeCNAME) && (apex || !n.has(dns.TypeNS))):
		// RFC 8482, section 4.2.
		answer = []dns.RR{&dns.HINFO{Hdr: dnsmsg.Header(q.Name, dns.TypeHINFO, negativeTTL), Cpu: "RFC8482"}}
	// Only for an NS query: a resolver that takes an NS set in another answer for
	// the referral never returns to DNS-B.
	case q.Qtype == dns.TypeNS && apex && d.Node != "":
		answer = d.nameservers(w, q.Name, n.zone)
	default:
		return nil
	}
	m := reply(r)
	m.Answer = answer
	return m
}

// newSOA returns the SOA record of a zone that no backend plugin has. Its name
// server is set later: DNS-B knows what that is called.
func newSOA(zone string, serial uint32) *dns.SOA {
	return dnsmsg.NewSOA(zone, "", dnsmsg.Mailbox(zone), serial, negativeTTL)
}
