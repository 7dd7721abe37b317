package dnslb

import (
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// client is whom a query is answered for: the resolver that sent it or, with
// 'client-subnets', the client subnet in it (RFC 7871).
type client struct {
	w      dns.ResponseWriter // of the query
	from   netip.Addr         // of the resolver, normalized; invalid: not taken from w yet
	subnet netip.Prefix       // invalid: none, or one that tells nothing
	scope  int                // the longest of the answers so far
}

// clientOf returns the client of a query.
func (d *DNSLB) clientOf(w dns.ResponseWriter, r *dns.Msg) client {
	c := client{w: w}
	if d.clientSubnets {
		c.subnet = dnsmsg.SubnetPrefix(r)
	}
	return c
}

// address returns the source address of the query.
func (c *client) address() netip.Addr {
	if !c.from.IsValid() && c.w != nil {
		c.from = resolver.Address(c.w)
	}
	return c.from
}

// pointOfView is by whose observations a pool is answered for a client.
type pointOfView struct {
	slot     int
	answer   *answer // for the site of the client; nil: that of the slot
	bySubnet bool    // and not by the source address
	scope    int     // how long the prefix of the client subnet is that has this answer
}

// pointOfView returns that for the client subnet of c and a pool, which may be nil.
// The source address counts if the subnet is that of a private network, which may be
// anywhere, and if no node near to the subnet is known. The scope is the same all the
// same then: nodes and views come and go, and resolvers must not hold scopes that
// overlap.
func (d *DNSLB) pointOfView(c *client, p *pool) pointOfView {
	views := d.state.views()
	slot, site, scope := views.SubnetSlot(c.subnet.Addr())
	if p != nil && p.options.within > 0 { // sites share the tied servers, now or later
		scope = max(scope, resolver.SiteLength(c.subnet.Addr()))
	}
	private, length := anywhere.Lookup(c.subnet.Addr())
	v := pointOfView{slot, p.siteAnswer(views, site, c.subnet.Addr), true, max(scope, length)} // never 0, which would be all clients of both families
	switch {
	case len(private.Nodes) > 0:
	case v.answer != nil:
		return v
	case slot != peerview.Outside && (slot == peerview.Own || p == nil || p.principalAnswer(slot) != nil):
		return v
	}
	v.slot, site = views.Slot(c.address)
	v.answer, v.bySubnet = p.siteAnswer(views, site, c.address), false
	return v
}

// anywhere has the addresses that can be in any network: private ones, those between
// carriers and their customers (RFC 6598), of a host or a link, of NAT64 and such.
// Clients there are answered as their resolver, so that no scope has them and others.
var anywhere = nodemap.NewTable("", anywherePrefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
	"172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3", "::/8", "fc00::/7", "fe80::/10", "ff00::/8"))

func anywherePrefixes(texts ...string) []registration.Prefix {
	prefixes := make([]registration.Prefix, len(texts))
	for i, text := range texts {
		prefixes[i].Prefix = netip.MustParsePrefix(text)
	}
	return prefixes
}

// public reports whether the clients in a subnet can be anywhere but in the network
// of the resolver.
func public(addr netip.Addr) bool {
	c, _ := anywhere.Lookup(addr)
	return len(c.Nodes) == 0
}
