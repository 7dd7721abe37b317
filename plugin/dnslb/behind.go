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

// alone reports whether no plugin behind has a say in a zone: there is none, or
// none that would have this zone. One that has no zones of its own, such as
// forward, has a say where we are no node.
func (d *DNSLB) alone(t *snapshot, zone string) bool {
	return d.Next == nil || t.unserved[zone] && (d.Node != "" || d.sources.zonesOnly)
}

// behind returns what answers for a zone behind us: while the plugin there has
// not got the zone again, that of the instance before.
func (d *DNSLB) behind(t *snapshot, zone string) plugin.Handler {
	if z := t.zones[zone]; z != nil && z.Resumed() {
		return z.Previous
	}
	return d.Next
}

// signed reports whether a zone was signed before it was loaded.
func (t *snapshot) signed(zone string) bool {
	z := t.zones[zone]
	return z != nil && z.Signed
}

// asks reports whether the plugin behind has to be asked for a name. It must not
// be where the zone does not have the name: a wildcard of the zone would answer
// for what one of our names hides from it (RFC 4592, section 2.2.1). Nor where it
// has a CNAME record at the name of a service, which hides that.
func (t *snapshot) asks(qname string, n name, exists bool) bool {
	switch {
	case t.zones[n.zone] == nil:
		return true // what the zone has is not known
	case exists:
		return n.types != nil && (n.service == nil || !n.has(dns.TypeCNAME))
	}
	return !t.hidden(qname, n.zone)
}

// hidden reports whether a name that does not exist is below one that hides it
// from a wildcard.
func (t *snapshot) hidden(qname, zone string) bool {
	encloser, n := dnsmsg.Parent(qname), name{}
	for ok := false; !ok; {
		if n, ok = t.names[encloser]; !ok {
			encloser = dnsmsg.Parent(encloser)
		}
	}
	if encloser != zone && n.has(dns.TypeNS) || n.has(dns.TypeDNAME) {
		return false // the zone has something to say below
	}
	for encloser != zone {
		encloser = dnsmsg.Parent(encloser)
		if _, ok := t.wildcards[encloser]; ok {
			return true
		}
	}
	return false
}

// has reports whether the zone plugin has a type of record at the name.
func (n name) has(rrtype uint16) bool {
	_, ok := slices.BinarySearch(n.types, rrtype)
	return ok
}

// ask asks the plugin behind and completes what it says. Without a message it
// has written nothing, and the code is what it returned, or REFUSED if it could
// only answer from a zone above.
func (d *DNSLB) ask(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, t *snapshot, qname string, n name) (m *dns.Msg, result string, rcode int, err error) {
	if t.parentOnly[n.zone] {
		return nil, "", dns.RcodeRefused, nil
	}
	question := r
	if r.Question[0].Qtype == dns.TypeANY && n.has(dns.TypeCNAME) {
		// RFC 8482, section 4.2: where there is a CNAME, it is the answer to ANY.
		question = r.Copy()
		question.Question[0].Qtype = dns.TypeCNAME
	}
	nw := nonwriter.New(w)
	rcode, err = plugin.NextOrFailure(d.Name(), d.behind(t, n.zone), ctx, nw, question)
	if nw.Msg == nil {
		return nil, "", rcode, err
	}
	c := completion{d: d, snapshot: t, w: w, Question: question.Question[0], zone: n.zone, end: qname}
	c.m = *nw.Msg
	result = c.complete()
	c.m.Question = r.Question
	dnsmsg.SetOptions(&c.m, r, dns.ExtendedErrorCodeOther, c.sel.note)
	return &c.m, result, rcode, err
}

// completion makes one answer of what the plugin behind says and of the
// services. The records that it gets belong to that plugin: those that have to
// change are copied.
type completion struct {
	d *DNSLB
	*snapshot
	dns.Question
	w    dns.ResponseWriter
	m    dns.Msg
	zone string
	end  string    // the name that the answer is about, in lower case: behind all CNAME records
	left []dns.RR  // out, so that their additional records do not belong to the answer
	sel  selection // of the service there; none if it is not asked for its addresses
}

func (c *completion) complete() (result string) {
	if c.m.Rcode != dns.RcodeSuccess && c.m.Rcode != dns.RcodeNameError {
		return resultZone
	}
	if slices.Contains(c.missing, c.zone) {
		// What is not ranked yet must not be kept for long.
		c.m.Answer = slices.Clone(c.m.Answer)
		for i, rr := range c.m.Answer {
			c.m.Answer[i] = dnsmsg.LimitTTL(rr, c.d.ttlLow)
		}
	}
	c.follow()
	at, exists := c.lookup(c.end)
	if c.refers() {
		if at.service == nil {
			// AA is about the first name (RFC 1035, section 4.1.1), which is ours if
			// its CNAME record is here. Not all zone plugins think of it.
			c.m.Authoritative = c.m.Authoritative || len(c.m.Answer) > 0 && c.zones[c.zone] != nil
			return resultZone
		}
		// Who follows the referral does not find the service.
		c.m.Authoritative, c.m.Ns, c.m.Extra = true, nil, nil
	}
	if at.service != nil && (c.Qtype == dns.TypeA || c.Qtype == dns.TypeAAAA) {
		c.sel = c.d.selectFor(c.w, at.service.pool(c.Qtype), c.Qtype)
		at.service.count(c.sel)
		if c.sel.refused {
			c.m.Rcode, c.m.Authoritative = dns.RcodeRefused, false
			c.m.Answer, c.m.Ns, c.m.Extra = nil, nil, nil
			return resultAllDown
		}
		c.put()
	}
	if isBinding(c.Qtype) {
		c.m.Answer = c.d.hinted(c.w, c.snapshot, c.m.Answer)
	}
	result = c.authority(at, exists)
	c.additional()
	switch {
	case c.sel.note != "":
		result = resultAllDown
	case len(c.sel.addrs) > 0:
		result = resultRanked
	}
	return result
}

// follow goes to the end of the CNAME records of the answer. A service ends them:
// a CNAME record that the zone has at its name does not count, nor does what
// comes after it, nor the DS records of a delegation.
func (c *completion) follow() {
	n, _ := c.lookup(c.end)
	passed := []string{c.end}
	for range c.m.Answer {
		if n.service != nil || c.Qtype == dns.TypeCNAME {
			break
		}
		i := slices.IndexFunc(c.m.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && strings.EqualFold(rr.Header().Name, c.end)
		})
		if i < 0 {
			return
		}
		c.end = strings.ToLower(c.m.Answer[i].(*dns.CNAME).Target)
		passed = append(passed, c.end)
		n, _ = c.lookup(c.end)
	}
	if n.service == nil {
		return
	}
	var kept []dns.RR
	for _, rr := range c.m.Answer {
		owner, covered := strings.ToLower(rr.Header().Name), dnsmsg.CoveredType(rr)
		hidden := owner == c.end && (covered == dns.TypeCNAME || covered == dns.TypeDS && c.end != n.zone)
		of := slices.Contains(passed, owner) || covered == dns.TypeDNAME && len(passed) > 1
		switch twice := func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }; {
		case !of || hidden:
			c.left = append(c.left, rr)
		case !slices.ContainsFunc(kept, twice): // as in a loop of aliases
			kept = append(kept, rr)
		}
	}
	c.m.Answer = kept
}

// refers reports whether the answer is a referral to a zone below, or ends in
// one.
func (c *completion) refers() bool {
	return slices.ContainsFunc(c.m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeNS && !strings.EqualFold(rr.Header().Name, c.zone) && dns.IsSubDomain(c.zone, rr.Header().Name)
	})
}

// put puts the addresses of a service in the place of those that the zone has.
func (c *completion) put() {
	var answer []dns.RR
	for _, rr := range c.m.Answer {
		if dnsmsg.CoveredType(rr) != c.Qtype {
			answer = append(answer, rr)
		}
	}
	owner := c.end
	if len(answer) == 0 {
		owner = c.Name
	}
	c.m.Answer = append(answer, c.sel.records(owner, c.Qtype)...)
}

// authority makes the authority section: in a negative answer the SOA record,
// and no NS records there nor, from a node, anywhere.
func (c *completion) authority(at name, exists bool) (result string) {
	positive := slices.ContainsFunc(c.m.Answer, func(rr dns.RR) bool {
		return (rr.Header().Rrtype == c.Qtype || c.Qtype == dns.TypeANY) && strings.EqualFold(rr.Header().Name, c.end)
	})
	zone := plugin.Zones(c.d.Zones).Matches(c.end)
	empty := !positive && zone != ""
	known := c.m.Rcode == dns.RcodeNameError && exists
	if known {
		// The zone need not know our names: its NXDOMAIN is our NODATA.
		c.m.Rcode, c.m.Authoritative = dns.RcodeSuccess, true
	}

	var ns []dns.RR
	ttl := uint32(math.MaxUint32)
	if empty {
		soa := c.d.zoneSOA(c.snapshot, zone)
		for _, rr := range c.m.Ns {
			// Who knows nothing of the zone tells of one far above.
			if rr, ok := rr.(*dns.SOA); ok && (!known || dns.IsSubDomain(zone, rr.Header().Name)) {
				soa = *rr
			}
		}
		ns = append(ns, negative(soa, at))
		if c.sel.note != "" {
			ns[0] = dnsmsg.LimitTTL(ns[0], c.sel.ttl)
		}
		ttl = ns[0].Header().Ttl
	}
	for _, rr := range c.m.Ns {
		switch covered := dnsmsg.CoveredType(rr); {
		case covered == dns.TypeNS && (empty || c.d.Node != ""):
			c.left = append(c.left, rr)
		case rr.Header().Rrtype == dns.TypeSOA && empty:
		case covered == dns.TypeSOA:
			ns = append(ns, dnsmsg.LimitTTL(rr, ttl))
		case known: // a proof that the name does not exist
		default:
			ns = append(ns, rr)
		}
	}
	c.m.Ns = ns

	switch {
	case c.m.Rcode == dns.RcodeNameError:
		return resultNXDomain
	case empty:
		return resultNoData
	}
	return resultZone
}

// additional makes the additional section: addresses of services are the ranked
// ones, and there are none for records that are left out.
func (c *completion) additional() {
	if len(c.m.Extra) == 0 {
		return
	}
	var extra []dns.RR
	done := make(map[dns.Question]bool)
	for _, rr := range c.m.Extra {
		owner, rrtype := strings.ToLower(rr.Header().Name), dnsmsg.CoveredType(rr)
		if rrtype != dns.TypeA && rrtype != dns.TypeAAAA {
			extra = append(extra, rr)
			continue
		}
		if named(c.left, owner) && !named(c.m.Answer, owner) {
			continue
		}
		n, _ := c.lookup(owner)
		if n.service == nil {
			extra = append(extra, rr)
			continue
		}
		if key := (dns.Question{Name: owner, Qtype: rrtype}); !done[key] {
			done[key] = true
			extra = append(extra, c.d.selectFor(c.w, n.service.pool(rrtype), rrtype).records(rr.Header().Name, rrtype)...)
		}
	}
	c.m.Extra = extra
}

// named reports whether records name a host whose addresses belong into the
// additional section.
func named(rrs []dns.RR, host string) bool {
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
