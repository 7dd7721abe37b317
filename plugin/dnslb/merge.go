package dnslb

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// authoritative reports whether no later plugin answers for a zone: there is
// none, or none that will ever have the zone. A plugin without zones, such as
// forward, may answer for a zone that is no cut.
func (d *DNSLB) authoritative(snap *snapshot, zone string) bool {
	return d.Next == nil || snap.unserved[zone] && (d.Node != "" || d.sources.zonesOnly)
}

// backend returns the handler that answers for a zone after dnslb: that of the
// previous instance while the backend plugin does not have the zone again.
func (d *DNSLB) backend(snap *snapshot, zone string) plugin.Handler {
	if z := snap.zones[zone]; z != nil && z.Resumed() {
		return z.Previous
	}
	return d.Next
}

// signed reports whether a zone has signatures in its backend plugin.
func (s *snapshot) signed(zone string) bool {
	z := s.zones[zone]
	return z != nil && z.Signed
}

// needsBackend reports whether the answer for a name needs the backend plugin.
//
// It is not asked for a name that the zone does not have and that a name of dnslb
// hides from a wildcard (RFC 4592, section 2.2.1): the plugin would answer by the
// wildcard. It is not asked for a service with a CNAME record in the zone either:
// the service hides that record.
func (s *snapshot) needsBackend(qname string, n name, exists bool) bool {
	switch {
	case s.zones[n.zone] == nil:
		return true // which names the zone has is not known
	case exists:
		return n.types != nil && (n.service == nil || !n.has(dns.TypeCNAME))
	}
	return !s.hiddenFromWildcard(qname, n.zone)
}

// hiddenFromWildcard reports whether a name that does not exist is below a name
// that hides it from a wildcard.
func (s *snapshot) hiddenFromWildcard(qname, zone string) bool {
	encloser, n := dnsmsg.Parent(qname), name{}
	for ok := false; !ok; {
		if n, ok = s.names[encloser]; !ok {
			encloser = dnsmsg.Parent(encloser)
		}
	}
	if encloser != zone && n.has(dns.TypeNS) || n.has(dns.TypeDNAME) {
		return false // the zone has a referral or an alias for qname
	}
	for encloser != zone {
		encloser = dnsmsg.Parent(encloser)
		if _, ok := s.wildcards[encloser]; ok {
			return true
		}
	}
	return false
}

// merge asks the backend plugin and merges its answer with the services. Without
// a message nothing is written, and the RCODE is that of the plugin, or REFUSED if
// it could only answer from a parent zone.
func (d *DNSLB) merge(ctx context.Context, c client, r *dns.Msg, snap *snapshot, qname string, n name) (m *dns.Msg, result string, rcode int, err error) {
	if snap.parentOnly[n.zone] {
		return nil, "", dns.RcodeRefused, nil
	}
	question := r
	if r.Question[0].Qtype == dns.TypeANY && n.has(dns.TypeCNAME) {
		// RFC 8482, section 4.2: where there is a CNAME, it is the answer to ANY.
		question = r.Copy()
		question.Question[0].Qtype = dns.TypeCNAME
	}
	nw := nonwriter.New(c.w)
	rcode, err = plugin.NextOrFailure(d.Name(), d.backend(snap, n.zone), ctx, nw, question)
	if nw.Msg == nil {
		return nil, "", rcode, err
	}
	answer := completion{d: d, snap: snap, client: c, question: question.Question[0], m: *nw.Msg, zone: n.zone, target: qname}
	result = answer.complete()
	answer.m.Question = r.Question
	dnsmsg.SetOptions(&answer.m, r, dns.ExtendedErrorCodeOther, answer.selected.note)
	dnsmsg.SetScope(&answer.m, answer.client.scope)
	return &answer.m, result, rcode, err
}

// completion makes one answer out of that of the backend plugin and of the
// services. The records in m belong to the plugin: a record that has to change is
// copied.
type completion struct {
	d        *DNSLB
	snap     *snapshot
	client   client
	question dns.Question
	m        dns.Msg
	zone     string    // of the question
	target   string    // of the last CNAME record, or the name of the question; in lower case
	omitted  []dns.RR  // records that the plugin sent and the answer does not have
	selected selection // of the service at target; zero if its addresses are not asked for
}

func (c *completion) complete() (result string) {
	if c.m.Rcode != dns.RcodeSuccess && c.m.Rcode != dns.RcodeNameError {
		return resultZone
	}
	if slices.Contains(c.snap.missing, c.zone) {
		// Resolvers must come back when the names of the zone are ranked.
		c.m.Answer = slices.Clone(c.m.Answer)
		for i, rr := range c.m.Answer {
			c.m.Answer[i] = dnsmsg.LimitTTL(rr, c.d.ttlLow)
		}
	}
	c.followAliases()
	target, exists := c.snap.lookup(c.target)
	if c.isReferral() {
		if target.service == nil {
			// AA is about the first name (RFC 1035, section 4.1.1): its CNAME record
			// is authoritative, which some zone plugins forget.
			c.m.Authoritative = c.m.Authoritative || len(c.m.Answer) > 0 && c.snap.zones[c.zone] != nil
			return resultZone
		}
		// A resolver that followed the referral would not find the service.
		c.m.Authoritative, c.m.Ns, c.m.Extra = true, nil, nil
	}
	if qtype := c.question.Qtype; target.service != nil && (qtype == dns.TypeA || qtype == dns.TypeAAAA) {
		c.selected = c.d.selectFor(&c.client, target.service.pool(qtype), qtype)
		target.service.count(c.selected)
		if c.selected.refused {
			c.m.Rcode, c.m.Authoritative = dns.RcodeRefused, false
			c.m.Answer, c.m.Ns, c.m.Extra = nil, nil, nil
			return resultAllDown
		}
		c.replaceAddresses()
	}
	if isBinding(c.question.Qtype) {
		c.m.Answer = c.d.withCurrentHints(&c.client, c.snap, c.m.Answer)
	}
	result = c.completeAuthority(target, exists)
	c.completeAdditional()
	switch {
	case c.selected.note != "":
		result = resultAllDown
	case len(c.selected.addrs) > 0:
		result = resultRanked
	}
	return result
}

// followAliases sets target to that of the last CNAME record of the answer. A
// service ends the chain: a CNAME record or the DS records of a delegation that
// the zone has at its name are omitted, and so are the records after them.
func (c *completion) followAliases() {
	n, _ := c.snap.lookup(c.target)
	chain := []string{c.target}
	for range c.m.Answer {
		if n.service != nil || c.question.Qtype == dns.TypeCNAME {
			break
		}
		i := slices.IndexFunc(c.m.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && strings.EqualFold(rr.Header().Name, c.target)
		})
		if i < 0 {
			return
		}
		c.target = strings.ToLower(c.m.Answer[i].(*dns.CNAME).Target)
		chain = append(chain, c.target)
		n, _ = c.snap.lookup(c.target)
	}
	if n.service == nil {
		return
	}
	var answer []dns.RR
	for _, rr := range c.m.Answer {
		owner, covered := strings.ToLower(rr.Header().Name), dnsmsg.CoveredType(rr)
		inChain := slices.Contains(chain, owner) || covered == dns.TypeDNAME && len(chain) > 1
		hidden := owner == c.target && (covered == dns.TypeCNAME || covered == dns.TypeDS && c.target != n.zone)
		switch duplicate := func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }; {
		case !inChain || hidden:
			c.omitted = append(c.omitted, rr)
		case !slices.ContainsFunc(answer, duplicate): // as in a loop of aliases
			answer = append(answer, rr)
		}
	}
	c.m.Answer = answer
}

// isReferral reports whether the answer is a referral to a zone below, or ends
// in one.
func (c *completion) isReferral() bool {
	return slices.ContainsFunc(c.m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeNS && !strings.EqualFold(rr.Header().Name, c.zone) && dns.IsSubDomain(c.zone, rr.Header().Name)
	})
}

// replaceAddresses puts the addresses of the service in the place of those that
// the zone has.
func (c *completion) replaceAddresses() {
	var answer []dns.RR
	for _, rr := range c.m.Answer {
		if dnsmsg.CoveredType(rr) != c.question.Qtype {
			answer = append(answer, rr)
		}
	}
	owner := c.target
	if len(answer) == 0 {
		owner = c.question.Name // in the case of the question
	}
	c.m.Answer = append(answer, c.selected.records(owner, c.question.Qtype)...)
}

// completeAuthority makes the authority section. A negative answer has the SOA
// record; it has no NS records, and the answers of a node have none either.
func (c *completion) completeAuthority(target name, exists bool) (result string) {
	positive := slices.ContainsFunc(c.m.Answer, func(rr dns.RR) bool {
		return (rr.Header().Rrtype == c.question.Qtype || c.question.Qtype == dns.TypeANY) && strings.EqualFold(rr.Header().Name, c.target)
	})
	zone := c.zone
	if !strings.EqualFold(c.target, c.question.Name) {
		zone = plugin.Zones(c.d.Zones).Matches(c.target)
	}
	isNegative := !positive && zone != ""
	unknownToZone := c.m.Rcode == dns.RcodeNameError && exists
	if unknownToZone {
		// The zone does not know the name: its NXDOMAIN is NODATA.
		c.m.Rcode, c.m.Authoritative = dns.RcodeSuccess, true
	}

	var authority []dns.RR
	ttl := uint32(math.MaxUint32)
	if isNegative {
		soa := c.negativeSOA(target, zone, unknownToZone)
		authority, ttl = append(authority, soa), soa.Header().Ttl
	}
	for _, rr := range c.m.Ns {
		switch covered := dnsmsg.CoveredType(rr); {
		case covered == dns.TypeNS && (isNegative || c.d.Node != ""):
			c.omitted = append(c.omitted, rr)
		case rr.Header().Rrtype == dns.TypeSOA && isNegative:
		case covered == dns.TypeSOA:
			authority = append(authority, dnsmsg.LimitTTL(rr, ttl))
		case unknownToZone: // a proof that the name does not exist
		default:
			authority = append(authority, rr)
		}
	}
	c.m.Ns = authority

	switch {
	case c.m.Rcode == dns.RcodeNameError:
		return resultNXDomain
	case isNegative:
		return resultNoData
	}
	return resultZone
}

// negativeSOA returns the SOA record of a negative answer: the one that the
// backend plugin sent, or else that of the zone. A plugin that does not know the
// name may have sent the SOA record of a zone far above.
func (c *completion) negativeSOA(target name, zone string, unknownToZone bool) dns.RR {
	soa := c.d.zoneSOA(c.snap, zone)
	for _, rr := range c.m.Ns {
		if rr, ok := rr.(*dns.SOA); ok && (!unknownToZone || dns.IsSubDomain(zone, rr.Header().Name)) {
			soa = *rr
		}
	}
	rr := negative(soa, target)
	if c.selected.note != "" {
		return dnsmsg.LimitTTL(rr, c.selected.ttl)
	}
	return rr
}

// completeAdditional makes the additional section: addresses of services are the
// ranked ones, and records that only omitted records name are omitted.
func (c *completion) completeAdditional() {
	if len(c.m.Extra) == 0 {
		return
	}
	var additional []dns.RR
	done := make(map[dns.Question]bool)
	for _, rr := range c.m.Extra {
		owner, rrtype := strings.ToLower(rr.Header().Name), dnsmsg.CoveredType(rr)
		if rrtype != dns.TypeA && rrtype != dns.TypeAAAA {
			additional = append(additional, rr)
			continue
		}
		if nameHost(c.omitted, owner) && !nameHost(c.m.Answer, owner) {
			continue
		}
		n, _ := c.snap.lookup(owner)
		if n.service == nil {
			additional = append(additional, rr)
			continue
		}
		if key := (dns.Question{Name: owner, Qtype: rrtype}); !done[key] {
			done[key] = true
			additional = append(additional, c.d.selectFor(&c.client, n.service.pool(rrtype), rrtype).records(rr.Header().Name, rrtype)...)
		}
	}
	c.m.Extra = additional
}

// nameHost reports whether records name a host whose addresses belong in the
// additional section.
func nameHost(rrs []dns.RR, host string) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool {
		var target string
		switch rr := rr.(type) {
		case *dns.NS:
			target = rr.Ns
		case *dns.MX:
			target = rr.Mx
		case *dns.SRV:
			target = rr.Target
		case *dns.SVCB:
			target = rr.Target
		case *dns.HTTPS:
			target = rr.Target
		}
		return strings.EqualFold(target, host)
	})
}
