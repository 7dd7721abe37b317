package dnslb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// nsTTL is no longer than the TTL of DNS-B's referral to a node without a
// deputy: resolvers that take the child's NS set must come back in time.
const nsTTL = 30

// nameservers returns the NS records of a zone of a node, for the resolver that
// sent a query. They name the nodes that DNS-B names in its referral of this
// resolver: it may take them for the referral.
//
// Without a node there are none: the names of the servers are known where the
// zone is delegated. From an invented name BIND answers SERVFAIL (it has no
// address), and Unbound asks the ranked servers for DNS (it is a service).
func (d *DNSLB) nameservers(w dns.ResponseWriter, owner, zone string) []dns.RR {
	self := d.nameserver(zone)
	rrs := make([]dns.RR, 0, 2)
	for _, node := range d.referredNodes(resolver.Address(w), time.Now()) {
		rrs = append(rrs, &dns.NS{Hdr: dnsmsg.Header(owner, dns.TypeNS, nsTTL), Ns: node + "." + dnsmsg.Parent(self)})
	}
	return rrs
}

// referredNodes returns the nodes that DNS-B refers a resolver to, best first, as
// far as this node knows: itself and its first deputy, or the node whose view it
// follows for the resolver and a deputy of that. If that node is not live, they are
// two of its deputies. As in a referral, none without client subnets is beside a
// node with client subnets.
func (d *DNSLB) referredNodes(from netip.Addr, now time.Time) []string {
	views := d.state.views()
	slot, _ := views.Slot(func() netip.Addr { return from })
	if slot <= peerview.Own || slot >= len(views.Views) || views.Views[slot] == nil {
		return d.matching(append([]string{d.Node}, d.deputies...), views, d.clientSubnets)
	}
	v := views.Views[slot]
	var nodes []string
	if now.Sub(v.Made) < trustTime {
		nodes = append(nodes, v.Node)
	}
	isDeputy := v.HasDeputy(d.Node)
	if isDeputy {
		nodes = append(nodes, d.Node)
	}
	for _, deputy := range v.Deputies {
		if deputy != d.Node {
			nodes = append(nodes, deputy)
		}
	}
	if !isDeputy {
		nodes = append(nodes, d.Node) // which answers, though nothing refers to it
	}
	return d.matching(nodes, views, v.AllNodes)
}

// matching returns the first of the nodes and one beside it. If the node that DNS-B's
// map names has client subnets, nodes that have them come first.
func (d *DNSLB) matching(nodes []string, views *peerview.Set, subnets bool) []string {
	without := func(node string) bool {
		if node == d.Node {
			return !d.clientSubnets
		}
		// A node with client subnets follows all that have them, too.
		return !slices.ContainsFunc(views.Views, func(v *peerview.View) bool { return v != nil && v.Node == node && v.AllNodes })
	}
	if subnets {
		slices.SortStableFunc(nodes, func(a, b string) int {
			switch {
			case without(a) == without(b):
				return 0
			case without(b):
				return -1
			}
			return 1
		})
	}
	if first := nodes[0]; !without(first) {
		nodes = slices.DeleteFunc(nodes, without)
	}
	return nodes[:min(2, len(nodes))]
}

// nameserver returns the name under which DNS-B refers to this node, NODE.lb.ZONE.
// Until the zone of DNS-B is known, it is taken to be the parent of the cut. Without
// a node, nameserver returns the zone.
func (d *DNSLB) nameserver(zone string) string {
	if d.Node == "" {
		return zone
	}
	if ns := d.state.registrar.NodeName(); ns != "" {
		return ns
	}
	return registration.NodeName(d.Node, dnsmsg.Parent(zone))
}
