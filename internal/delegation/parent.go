package delegation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// TTLs of a delegation that are no problem: with a shorter one, resolvers ask
// DNS-A all the time; with a longer one, a move of DNS-B takes days.
const (
	lowTTL  = 60
	highTTL = 2 * 24 * 60 * 60
)

// parents returns the servers of DNS-A.
func (w *walk) parents(ctx context.Context) []server {
	var servers []server
	for _, addr := range w.Parents {
		servers = append(servers, server{role: "DNS-A", addr: addr})
	}
	if len(servers) > 0 {
		return w.bound(servers)
	}
	const remedy = "give a server of DNS-A, such as @192.0.2.1"
	if len(w.Resolvers) == 0 {
		w.add(Check{Result: Problem, Text: "This system has no resolver", Remedy: remedy})
		return nil
	}
	zone, names, err := w.nameservers(ctx)
	if err != nil {
		w.add(Check{Result: Problem, Text: fmt.Sprintf("The resolver of this system does not find the servers of the zone above %s (%v)", show(w.Zone), err), Remedy: remedy})
		return nil
	}
	for _, name := range names {
		addrs := w.resolve(ctx, name)
		if len(addrs) == 0 {
			w.add(Check{Result: Problem, Text: fmt.Sprintf("%s, a server of %s, has no address", show(name), show(zone)), Remedy: "add one, or remove the server from the NS records of " + show(zone)})
		}
		for _, addr := range addrs {
			servers = append(servers, server{"DNS-A", name, netip.AddrPortFrom(addr, w.port)})
		}
	}
	return w.bound(servers)
}

// nameservers returns the zone above, and the names of its servers, by the
// resolvers.
func (w *walk) nameservers(ctx context.Context) (zone string, names []string, err error) {
	for name := dnsmsg.Parent(w.Zone); ; name = dnsmsg.Parent(name) {
		r, err := w.recurse(ctx, name, dns.TypeNS)
		if err != nil {
			return "", nil, err
		}
		if found := w.referralOf("DNS-A", name, r.Answer, nil); found.zone == name {
			return name, found.names, nil
		}
		if name == "." {
			return "", nil, fmt.Errorf("it answers %s", dnsmsg.RcodeText(r.Rcode))
		}
	}
}

// recurse asks one resolver after the other.
func (w *walk) recurse(ctx context.Context, name string, qtype uint16) (r *dns.Msg, err error) {
	if len(w.Resolvers) == 0 {
		return nil, errors.New("this system has no resolver")
	}
	for _, resolver := range w.Resolvers {
		for _, network := range []string{"udp", "tcp"} {
			if r, err = ask(ctx, network, resolver, netip.Addr{}, name, qtype, true); err != nil || !r.Truncated {
				break
			}
		}
		if err == nil && (r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError) {
			return r, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("it answers %s", dnsmsg.RcodeText(r.Rcode))
	}
	return nil, err
}

// resolve returns the addresses of a host by the resolvers.
func (w *walk) resolve(ctx context.Context, name string) []netip.Addr {
	var addrs []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if r, err := w.recurse(ctx, name, qtype); err == nil {
			addrs = append(addrs, addressesIn(r.Answer)...)
		}
	}
	return addrs
}

func addressesIn(records []dns.RR) []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range records {
		if addr, ok := dnsmsg.Address(rr); ok && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// checkParents returns the servers of DNS-A that answer for the zone above.
func (w *walk) checkParents(ctx context.Context, servers []server) []server {
	above := dnsmsg.Parent(w.Zone)
	checks := make([]Check, len(servers))
	each(len(servers), func(i int) {
		r, c := servers[i].reach(ctx, netip.Addr{}, above, above, dns.TypeSOA)
		if r == nil {
			checks[i] = c
			return
		}
		for _, rr := range slices.Concat(r.Answer, r.Ns) {
			if soa, ok := rr.(*dns.SOA); ok {
				checks[i] = servers[i].check(OK, "answers for "+show(dns.CanonicalName(soa.Hdr.Name))+" over UDP and TCP, with EDNS", "")
				return
			}
		}
		checks[i] = servers[i].check(Problem, "has no SOA record of "+show(above)+" or of a zone above", "give a server of DNS-A")
	})
	return w.good(servers, checks)
}

// followAlias returns the name below the zone that Name leads to, "" if there is
// none.
func (w *walk) followAlias(ctx context.Context, parents []server) string {
	if w.Name == "" || dns.IsSubDomain(w.Zone, w.Name) {
		return w.Name
	}
	targets, checks := make([]string, len(parents)), make([]Check, len(parents))
	each(len(parents), func(i int) {
		s := parents[i]
		r, err := s.query(ctx, netip.Addr{}, w.Name, dns.TypeA)
		if err != nil {
			checks[i] = s.check(Problem, "does not answer for "+show(w.Name)+" ("+err.Error()+")", "ask again")
			return
		}
		name := w.Name
		for range r.Answer { // a chain has no more links
			for _, rr := range r.Answer {
				if cname, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(cname.Hdr.Name) == name {
					name = dns.CanonicalName(cname.Target)
				}
			}
		}
		if name == w.Name || !dns.IsSubDomain(w.Zone, name) {
			checks[i] = s.check(Problem, "does not lead "+show(w.Name)+" into "+show(w.Zone), "add the alias '"+w.Name+" 60 IN CNAME "+"NAME."+w.Zone+"', with the NAME of a service")
			return
		}
		targets[i] = name
		checks[i] = s.check(OK, "leads "+show(w.Name)+" to "+show(name), "")
	})
	w.good(parents, checks)
	return cmp.Or(targets...)
}

// checkDelegation returns the delegation to DNS-B, of all servers of DNS-A
// together.
func (w *walk) checkDelegation(ctx context.Context, parents []server) referral {
	found, checks := make([]referral, len(parents)), make([]Check, len(parents))
	each(len(parents), func(i int) { found[i], checks[i] = w.delegationAt(ctx, parents[i]) })
	w.good(parents, checks)
	var all referral
	for i, r := range found {
		if r.zone == "" {
			continue
		}
		if all.zone != "" && (!slices.Equal(r.names, all.names) || !slices.Equal(r.servers, all.servers)) {
			w.add(parents[i].check(Problem, "and other servers of DNS-A have different delegations of "+show(w.Zone), "wait for the transfer of the zone, or repair it"))
		}
		all.zone, all.ttl = r.zone, r.ttl
		for _, name := range r.names {
			if !slices.Contains(all.names, name) {
				all.names = append(all.names, name)
			}
		}
		for _, s := range r.servers {
			if !slices.Contains(all.servers, s) {
				all.servers = append(all.servers, s)
			}
		}
	}
	slices.Sort(all.names)
	all.servers = w.bound(all.servers)
	return all
}

// delegationAt returns the delegation that one server of DNS-A has.
func (w *walk) delegationAt(ctx context.Context, s server) (referral, Check) {
	r, err := s.query(ctx, netip.Addr{}, w.Zone, dns.TypeNS)
	if err != nil {
		return referral{}, s.check(Problem, "does not answer for "+show(w.Zone)+" ("+err.Error()+")", "ask again")
	}
	found := w.referralOf("DNS-B", w.Zone, sorted(r.Ns), r.Extra)
	if r.Authoritative {
		// DNS-A may be DNS-B as well.
		found = w.referralOf("DNS-B", w.Zone, sorted(r.Answer), r.Extra)
		switch {
		case found.zone != w.Zone:
			return referral{}, s.check(Problem, "does not delegate "+show(w.Zone),
				"add an NS record of "+show(w.Zone)+" and the address of the server, as 'init dnsb' has written them to dns-a.zone")
		case !slices.ContainsFunc(found.servers, func(b server) bool { return b.addr == s.addr }):
			return referral{}, s.check(Problem, "has the zone "+show(w.Zone)+" itself, so that it does not refer to DNS-B",
				"remove that zone from it, and keep the delegation in the zone above")
		}
	}
	if found.zone != w.Zone {
		if found.zone != "" {
			return referral{}, s.check(Problem, "delegates "+show(found.zone)+" to "+showAll(found.names)+", above "+show(w.Zone), "give a server of the zone that delegates "+show(w.Zone))
		}
		return referral{}, s.check(Problem, "answers "+dnsmsg.RcodeText(r.Rcode)+" without a delegation of "+show(w.Zone), "its log has the reason")
	}
	for _, name := range found.withoutAddress() {
		found.servers = append(found.servers, w.outside(ctx, s, name)...)
	}
	if missing := found.withoutAddress(); len(missing) > 0 {
		return found, s.check(Problem, "delegates "+show(w.Zone)+" to "+showAll(missing)+" without an address", "add the A or AAAA record of "+missing[0]+" beside the NS record")
	}
	text := fmt.Sprintf("delegates %s to %s, TTL %d", show(w.Zone), found, found.ttl)
	switch {
	case found.ttl < lowTTL:
		return found, s.check(Problem, text, fmt.Sprintf("a TTL below %d makes resolvers ask DNS-A all the time, use 3600", lowTTL))
	case found.ttl > highTTL:
		return found, s.check(Problem, text, "resolvers would follow a move of DNS-B after days, use 3600")
	}
	return found, s.check(OK, text, "")
}

// sorted returns the records in an order that does not depend on the server.
func sorted(records []dns.RR) []dns.RR {
	slices.SortFunc(records, func(a, b dns.RR) int { return strings.Compare(a.String(), b.String()) })
	return records
}

// outside returns the addresses of a server of DNS-B whose name needs no glue:
// from the zone of DNS-A, or by the resolvers.
func (w *walk) outside(ctx context.Context, s server, name string) []server {
	if dns.IsSubDomain(w.Zone, name) {
		return nil
	}
	var addrs []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if r, err := s.query(ctx, netip.Addr{}, name, qtype); err == nil && r.Authoritative {
			addrs = append(addrs, addressesIn(r.Answer)...)
		}
	}
	if len(addrs) == 0 {
		addrs = w.resolve(ctx, name)
	}
	servers := make([]server, len(addrs))
	for i, addr := range addrs {
		servers[i] = server{"DNS-B", name, netip.AddrPortFrom(addr, w.port)}
	}
	return servers
}

// String returns the names of the servers with their addresses.
func (r referral) String() string {
	texts := make([]string, len(r.names))
	for i, name := range r.names {
		var addrs []string
		for _, s := range r.servers {
			if s.name == name {
				addrs = append(addrs, s.addr.Addr().String())
			}
		}
		texts[i] = show(name) + " (" + strings.Join(addrs, " ") + ")"
	}
	return strings.Join(texts, ", ")
}
