package delegation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/operator"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
)

// usualCut is the label of the cut that 'init' makes.
const usualCut = "svc"

// maxCuts is how many cuts are followed if no name was given.
const maxCuts = 10

// explained is the referral in an explanation of dnsb.
type explained struct {
	Cut      string `json:"cut"`
	TTL      uint32 `json:"ns_ttl"`
	Referral []struct {
		Name      string       `json:"name"`
		Addresses []netip.Addr `json:"addresses"`
	} `json:"referral"`
}

// explain asks a DNS-B for its referrals of the resolver.
func (w *walk) explain(ctx context.Context, s server, name string) ([]explained, error) {
	a := operator.Ask(ctx, operator.Server{Address: s.addr}, explain.Label+"."+name, w.From, true)
	if a.Problem != "" && ended(ctx) {
		return nil, errTime
	}
	if a.Problem != "" {
		return nil, errors.New(a.Problem)
	}
	var all []explained
	for _, o := range a.Objects {
		var e explained
		if o.Kind == "referral" && json.Unmarshal(o.Value, &e) == nil && dns.IsSubDomain(w.Zone, dns.CanonicalName(e.Cut)) {
			e.Cut = dns.CanonicalName(e.Cut)
			all = append(all, e)
		}
	}
	return all, nil
}

// cuts returns the cuts of the zone: those that a DNS-B explains, else the one
// that 'init' makes.
func (w *walk) cuts(ctx context.Context, dnsbs []server) []string {
	var cuts []string
	for _, s := range dnsbs {
		if referrals, err := w.explain(ctx, s, w.Zone); err == nil {
			for _, e := range referrals {
				cuts = append(cuts, e.Cut)
			}
		} else if r, err := s.query(ctx, netip.Addr{}, usualCut+"."+w.Zone, dns.TypeSOA); err == nil {
			if cut := w.referralOf("node", usualCut+"."+w.Zone, r.Ns, nil).zone; cut != "" {
				cuts = append(cuts, cut)
			}
		}
		if len(cuts) > 0 {
			break
		}
	}
	if len(cuts) > maxCuts {
		w.add(Check{Result: Unchecked, Text: "The way to the nodes of " + plural.Of(len(cuts)-maxCuts, "more cut") + " of " + show(w.Zone) + " was not followed", Remedy: "give a name below the cut to be checked"})
		cuts = cuts[:maxCuts]
	}
	if len(cuts) == 0 && len(dnsbs) > 0 {
		w.add(Check{Result: Unchecked, Text: "The way to the nodes was not followed, since no cut of " + show(w.Zone) + " is known",
			Remedy: "give a name of a service, such as www." + usualCut + "." + show(w.Zone)})
	}
	return cuts
}

// checkName follows a name from DNS-B to the nodes.
func (w *walk) checkName(ctx context.Context, dnsbs []server, name string) {
	found, checks := make([]referral, len(dnsbs)), make([]Check, len(dnsbs))
	each(len(dnsbs), func(i int) {
		if w.From.IsValid() && !w.source.IsValid() {
			found[i], checks[i] = w.explainedBy(ctx, dnsbs[i], name)
		} else {
			found[i], checks[i] = w.referredBy(ctx, dnsbs[i], name)
		}
	})
	w.good(dnsbs, checks)
	var all referral
	for _, r := range found {
		if r.zone == "" || all.zone != "" && r.zone != all.zone {
			continue
		}
		all.zone = r.zone
		for _, s := range r.servers {
			if !slices.Contains(all.servers, s) {
				all.servers = append(all.servers, s)
			}
		}
	}
	if all.zone != "" {
		w.checkNodes(ctx, dnsbs, all, name)
	}
}

// referredBy returns the referral of a DNS-B to a question of the resolver. It has
// no zone if the DNS-B answers itself.
func (w *walk) referredBy(ctx context.Context, s server, name string) (referral, Check) {
	r, err := s.query(ctx, w.source, name, dns.TypeA)
	if err != nil {
		return referral{}, s.check(Problem, "does not answer for "+show(name)+" ("+err.Error()+")", "ask again")
	}
	if found := w.referralOf("node", name, r.Ns, r.Extra); !r.Authoritative && found.zone != "" && found.zone != w.Zone && dns.IsSubDomain(w.Zone, found.zone) {
		return found, w.referral(s, found)
	}
	if r.Authoritative && r.Rcode == dns.RcodeSuccess && len(r.Answer) > 0 {
		return referral{}, s.check(OK, "answers "+show(name)+" itself, without a node below"+withAddresses(r), "")
	}
	return referral{}, nothing(s, w.Zone, name, r)
}

// explainedBy is referredBy for a resolver with an address that this machine does
// not have.
func (w *walk) explainedBy(ctx context.Context, s server, name string) (referral, Check) {
	referrals, err := w.explain(ctx, s, name)
	if err != nil {
		return referral{}, s.check(Problem, "does not tell the referral of "+w.From.String()+" ("+err.Error()+")",
			"add the address of this machine to 'explain' of dnsb, or run this command at "+w.From.String())
	}
	if len(referrals) == 0 || len(referrals[0].Referral) == 0 {
		return referral{}, s.check(Problem, "has no node for "+show(name), "'coredns-dnslb nodes' shows the nodes of "+show(w.Zone)+" and their cuts")
	}
	e := referrals[0]
	found := referral{zone: e.Cut, ttl: e.TTL}
	for _, n := range e.Referral {
		name := dns.CanonicalName(n.Name)
		found.names = append(found.names, name)
		for _, addr := range n.Addresses {
			found.servers = append(found.servers, server{"node", name, netip.AddrPortFrom(addr, w.port)})
		}
	}
	return found, w.referral(s, found)
}

// referral returns a check of a referral.
func (w *walk) referral(s server, found referral) Check {
	resolver := "this machine"
	if w.From.IsValid() {
		resolver = w.From.String()
	}
	if missing := found.withoutAddress(); len(missing) > 0 {
		return s.check(Problem, "refers "+resolver+" for "+show(found.zone)+" to "+showAll(missing)+" without an address", "give the node an address of its own ('node' of dnslb)")
	}
	return s.check(OK, fmt.Sprintf("refers %s for %s to %s, TTL %d", resolver, show(found.zone), found, found.ttl), "")
}
