package delegation

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// checkServers returns the servers of DNS-B that serve the zone.
func (w *walk) checkServers(ctx context.Context, found referral) []server {
	checks := make([]Check, len(found.servers))
	each(len(found.servers), func(i int) {
		s := found.servers[i]
		r, c := s.reach(ctx, netip.Addr{}, w.Zone, w.Zone, dns.TypeSOA)
		if r == nil {
			checks[i] = c
			return
		}
		for _, rr := range r.Answer {
			if soa, ok := rr.(*dns.SOA); ok && dns.CanonicalName(soa.Hdr.Name) == w.Zone {
				checks[i] = s.check(OK, fmt.Sprintf("answers with authority for %s over UDP and TCP, with EDNS, serial %d", show(w.Zone), soa.Serial), "")
				return
			}
		}
		checks[i] = s.check(Problem, "has no SOA record of "+show(w.Zone), s.served(w.Zone))
	})
	servers := w.good(found.servers, checks)
	checks = make([]Check, len(servers))
	each(len(servers), func(i int) { checks[i] = w.compare(ctx, servers[i], found) })
	for _, c := range checks {
		w.add(c)
	}
	return servers
}

// compare compares the NS records of DNS-B, and the addresses of the servers, with
// the delegation.
func (w *walk) compare(ctx context.Context, s server, found referral) Check {
	r, err := s.query(ctx, netip.Addr{}, w.Zone, dns.TypeNS)
	if err != nil {
		return s.check(Problem, "does not answer for the NS records of "+show(w.Zone)+" ("+err.Error()+")", "ask again")
	}
	told := w.referralOf("DNS-B", w.Zone, r.Answer, nil)
	if len(told.names) == 0 {
		return s.check(OK, "has no NS records of "+show(w.Zone)+", so that resolvers keep to those of DNS-A", "")
	}
	for _, name := range told.names {
		if !slices.Contains(found.names, name) {
			return s.check(Problem, "names the server "+show(name)+", DNS-A does not", "add the NS record and the address of "+show(name)+" at DNS-A, or remove the 'ns' line of dnsb")
		}
	}
	for _, name := range found.names {
		if !slices.Contains(told.names, name) {
			return s.check(Problem, "does not name the server "+show(name)+", DNS-A does", "add an 'ns' line of dnsb, or remove the NS record at DNS-A")
		}
		if !dns.IsSubDomain(w.Zone, name) {
			continue
		}
		var here []server
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			if r, err := s.query(ctx, netip.Addr{}, name, qtype); err == nil {
				here = append(here, w.serversOf("DNS-B", name, r.Answer)...)
			}
		}
		above := slices.DeleteFunc(slices.Clone(found.servers), func(s server) bool { return s.name != name })
		if !sameServers(here, above) {
			return s.check(Problem, fmt.Sprintf("has other addresses of %s (%s) than DNS-A (%s)", show(name), addressesOf(here), addressesOf(above)), "write the same in the 'ns' line of dnsb and at DNS-A")
		}
	}
	return s.check(OK, "names the same servers and addresses as DNS-A", "")
}

func sameServers(a, b []server) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(s server) bool { return !slices.Contains(b, s) })
}

func addressesOf(servers []server) string {
	if len(servers) == 0 {
		return "none"
	}
	texts := make([]string, len(servers))
	for i, s := range servers {
		texts[i] = s.addr.Addr().String()
	}
	return strings.Join(texts, " ")
}

// checkNodes checks the nodes of a cut for a name.
func (w *walk) checkNodes(ctx context.Context, parents []server, found referral, name string) {
	found.servers = w.bound(found.servers)
	qtype := dns.TypeA
	if name == found.zone {
		qtype = dns.TypeSOA
	}
	checks := make([]Check, len(found.servers))
	each(len(found.servers), func(i int) {
		s := found.servers[i]
		r, c := s.reach(ctx, w.source, found.zone, name, qtype)
		switch {
		case r == nil:
			checks[i] = c
		case r.Rcode == dns.RcodeNameError:
			checks[i] = s.check(Problem, "does not have the name "+show(name), "add a 'service' line at this node, or correct the name")
		default:
			checks[i] = s.check(OK, "answers with authority for "+show(name)+" over UDP and TCP, with EDNS"+withAddresses(r), "")
		}
	})
	nodes := w.good(found.servers, checks)
	w.checkChain(ctx, found, parents, nodes)
}

func withAddresses(r *dns.Msg) string {
	addrs := addressesIn(r.Answer)
	if len(addrs) == 0 {
		return ""
	}
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return ": " + strings.Join(texts, " ")
}

// nothing returns why a DNS-B has neither a referral nor an answer for a name.
func nothing(s server, zone, name string, r *dns.Msg) Check {
	switch r.Rcode {
	case dns.RcodeServerFailure:
		return s.check(Problem, "knows no node for "+show(name)+" yet (SERVFAIL)",
			"wait until a node has registered; 'coredns-dnslb nodes' shows the nodes of "+show(zone)+", the log of a node why it has not")
	case dns.RcodeNameError, dns.RcodeSuccess:
		return s.check(Problem, "has no node and no record for "+show(name), "correct the name; 'coredns-dnslb nodes' shows the nodes of "+show(zone)+" and their cuts")
	}
	return s.check(Problem, "answers "+dnsmsg.RcodeText(r.Rcode)+" for "+show(name), "its log has the reason")
}
