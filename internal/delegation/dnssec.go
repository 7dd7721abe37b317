package delegation

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// checkChain checks that the DS records at the parents lead to the keys of the
// zone at its servers, or that neither exist.
func (w *walk) checkChain(ctx context.Context, found referral, parents, servers []server) {
	if len(parents) == 0 || len(servers) == 0 {
		return
	}
	digests, checks := make([][]*dns.DS, len(parents)), make([]Check, len(parents))
	each(len(parents), func(i int) {
		digests[i], checks[i] = parents[i].digests(ctx, found.zone)
	})
	var ds []*dns.DS
	known := false
	for i, c := range checks {
		switch {
		case c.Result != OK:
			w.add(c)
		case known && text(digests[i]) != text(ds):
			w.add(parents[i].check(Problem, "has other DS records of "+show(found.zone)+" than another "+parents[i].role, "wait for the transfer of the zone, or repair it"))
		default:
			ds, known = digests[i], true
		}
	}
	if !known {
		return
	}
	checks = make([]Check, len(servers))
	each(len(servers), func(i int) { checks[i] = servers[i].chain(ctx, found.zone, parents[0].role, ds) })
	for _, c := range checks {
		w.add(c)
	}
}

// text returns DS records in an order of their own.
func text(ds []*dns.DS) string {
	texts := make([]string, len(ds))
	for i, d := range ds {
		texts[i] = fmt.Sprintf("%d %d %d %s", d.KeyTag, d.Algorithm, d.DigestType, strings.ToUpper(d.Digest))
	}
	slices.Sort(texts)
	return strings.Join(texts, "\n")
}

// digests returns the DS records of a zone at a server of the zone above.
func (s server) digests(ctx context.Context, zone string) ([]*dns.DS, Check) {
	r, err := s.query(ctx, netip.Addr{}, zone, dns.TypeDS)
	if err != nil {
		return nil, s.check(Problem, "does not answer for the DS records of "+show(zone)+" ("+err.Error()+")", "ask again")
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, s.check(Problem, "answers "+dns.RcodeToString[r.Rcode]+" for the DS records of "+show(zone), "its log has the reason")
	}
	var all []*dns.DS
	for _, rr := range r.Answer {
		if ds, ok := rr.(*dns.DS); ok {
			all = append(all, ds)
		}
	}
	return all, s.check(OK, "", "")
}

// chain checks the keys of a zone at one server.
func (s server) chain(ctx context.Context, zone, above string, digests []*dns.DS) Check {
	r, err := s.query(ctx, netip.Addr{}, zone, dns.TypeDNSKEY)
	if err != nil {
		return s.check(Problem, "does not answer for the DNSKEY records of "+show(zone)+" ("+err.Error()+")", "ask again")
	}
	var keys []dns.RR
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == dns.TypeDNSKEY {
			keys = append(keys, rr)
		}
	}
	switch {
	case len(keys) == 0 && len(digests) == 0:
		return s.check(OK, "does not sign "+show(zone)+", and "+above+" has no DS record of it", "")
	case len(keys) == 0:
		return s.check(Problem, "does not sign "+show(zone)+", but "+above+" has a DS record: resolvers that validate fail", "remove the DS record, or sign the zone with its key")
	case len(digests) == 0:
		return s.check(Problem, "signs "+show(zone)+", but "+above+" has no DS record: no resolver validates", "add the DS record at "+above+", see docs/dnssec.md")
	}
	signed := false
	for _, rr := range keys {
		key := rr.(*dns.DNSKEY)
		if !slices.ContainsFunc(digests, func(ds *dns.DS) bool {
			made := key.ToDS(ds.DigestType)
			return made != nil && made.KeyTag == ds.KeyTag && made.Algorithm == ds.Algorithm && strings.EqualFold(made.Digest, ds.Digest)
		}) {
			continue
		}
		signed = true
		for _, rr := range r.Answer {
			if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == dns.TypeDNSKEY && sig.KeyTag == key.KeyTag() && sig.Verify(key, keys) == nil && sig.ValidityPeriod(time.Now()) {
				return s.check(OK, fmt.Sprintf("signs %s with key %d, of which %s has the DS record", show(zone), key.KeyTag(), above), "")
			}
		}
	}
	if signed {
		return s.check(Problem, "has no valid signature of its keys of "+show(zone)+": resolvers that validate fail", "set the clock of the server, or sign the zone again")
	}
	return s.check(Problem, "signs "+show(zone)+" with other keys than those in the DS records at "+above+": resolvers that validate fail", "add the DS record of a key that the server has")
}
