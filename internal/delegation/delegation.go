// Package delegation checks the way of a resolver: from DNS-A by DNS-B to the nodes.
package delegation

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Options say what is checked.
type Options struct {
	Zone      string           // that DNS-A delegates
	Name      string           // to be resolved, in the zone or an alias at DNS-A; "": the cuts of the zone
	From      netip.Addr       // the resolver whose referral is checked; the zero Addr is this machine
	Parents   []netip.AddrPort // servers of DNS-A, whose port all servers have; none: the resolvers find them
	Resolvers []netip.AddrPort // recursive ones; may be none
}

// Result is what came of a check.
type Result string

// Results of checks.
const (
	OK        Result = "ok"
	Problem   Result = "problem"
	Unchecked Result = "not checked"
)

// Check is one thing that was checked.
type Check struct {
	Result Result `json:"result"`
	Role   string `json:"role,omitempty"`   // of the server: DNS-A, DNS-B or node
	Name   string `json:"name,omitempty"`   // of the server; absent if it was given by its address
	Server string `json:"server,omitempty"` // its address and port
	Text   string `json:"text"`             // what was found, after the server as its subject
	Remedy string `json:"remedy,omitempty"` // what to do
}

// String returns the check as a sentence, without its result.
func (c Check) String() string {
	text := c.Text
	if c.Server != "" {
		text = strings.Join(strings.Fields(c.Role+" "+c.Name+" "+strings.TrimSuffix(c.Server, ":53")), " ") + " " + text
	}
	if c.Remedy != "" {
		text += ": " + c.Remedy
	}
	return text
}

// Most is how long all checks take at most. Servers that do not answer take a
// fifth of it.
const Most = time.Minute

// maxServers is how many servers of a zone are checked: 13 names, the most that
// fit into a message of 512 bytes, in both address families.
const maxServers = 26

// server is one address of a name server.
type server struct {
	role string
	name string // "" if it was given by its address
	addr netip.AddrPort
}

// walk is one walk from DNS-A to the nodes. Its checks belong to the goroutine
// that calls Run.
type walk struct {
	Options
	port   uint16
	source netip.Addr // of questions about referrals, and to nodes
	checks []Check
}

// Run checks the delegation of a zone. It takes Most at most.
func Run(ctx context.Context, options Options) []Check { return run(ctx, options, 53) }

// run is Run with the port of servers that the resolvers find.
func run(ctx context.Context, options Options, port uint16) []Check {
	ctx, cancel := context.WithTimeout(ctx, Most)
	defer cancel()
	options.Zone, options.Name = dns.CanonicalName(options.Zone), canonical(options.Name)
	w := &walk{Options: options, port: port}
	if isLocal(w.From) {
		w.source = w.From
	}
	parents := w.parents(ctx)
	if len(parents) == 0 {
		return w.checks
	}
	w.port = parents[0].addr.Port()
	parents = w.checkParents(ctx, parents)
	name := w.followAlias(ctx, parents)
	found := w.checkDelegation(ctx, parents)
	if len(found.servers) == 0 {
		return w.checks
	}
	children := w.checkServers(ctx, found)
	w.checkChain(ctx, found, parents, children)
	names := []string{name}
	if name == "" {
		names = w.cuts(ctx, children)
	}
	for _, name := range names {
		w.checkName(ctx, children, name)
	}
	return w.checks
}

// canonical is dns.CanonicalName, and "" for "".
func canonical(name string) string {
	if name == "" {
		return ""
	}
	return dns.CanonicalName(name)
}

// show returns a name without the dot at its end.
func show(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// showAll returns names as a list.
func showAll(names []string) string {
	shown := make([]string, len(names))
	for i, name := range names {
		shown[i] = show(name)
	}
	return strings.Join(shown, ", ")
}

func (w *walk) add(c Check) { w.checks = append(w.checks, c) }

// check returns a check of a server.
func (s server) check(result Result, text, remedy string) Check {
	return Check{result, s.role, show(s.name), s.addr.String(), text, remedy}
}

// referral is a delegation as one server tells it.
type referral struct {
	zone    string
	ttl     uint32
	names   []string // of the servers, in the order of the message
	servers []server // their addresses, in the order of the names
}

// referralOf returns the delegation in NS records and the addresses beside them,
// for a name.
func (w *walk) referralOf(role, name string, records, extra []dns.RR) referral {
	var r referral
	for _, rr := range records {
		ns, ok := rr.(*dns.NS)
		owner := dns.CanonicalName(rr.Header().Name)
		if !ok || !dns.IsSubDomain(owner, name) || r.zone != "" && r.zone != owner {
			continue
		}
		r.zone, r.ttl = owner, ns.Hdr.Ttl
		if target := dns.CanonicalName(ns.Ns); !slices.Contains(r.names, target) {
			r.names = append(r.names, target)
		}
	}
	for _, name := range r.names {
		r.servers = append(r.servers, w.serversOf(role, name, extra)...)
	}
	return r
}

// serversOf returns the addresses of a name server among records.
func (w *walk) serversOf(role, name string, records []dns.RR) []server {
	var servers []server
	for _, rr := range records {
		addr, ok := dnsmsg.Address(rr)
		s := server{role, name, netip.AddrPortFrom(addr, w.port)}
		if ok && dns.CanonicalName(rr.Header().Name) == name && !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	slices.SortFunc(servers, func(a, b server) int { return a.addr.Compare(b.addr) })
	return servers
}

// good adds the checks, one for each server, and returns the servers that are OK.
func (w *walk) good(servers []server, checks []Check) []server {
	var all []server
	asked := false
	for i, c := range checks {
		w.add(c)
		asked = asked || c.Result != Unchecked
		if c.Result == OK {
			all = append(all, servers[i])
		}
	}
	if !asked && len(servers) > 0 {
		w.add(Check{Result: Problem, Text: "No " + servers[0].role + " could be asked", Remedy: "run this command on a machine with a route to it"})
	}
	return all
}

// withoutAddress returns the names of servers that no address is known of.
func (r referral) withoutAddress() []string {
	var names []string
	for _, name := range r.names {
		if !slices.ContainsFunc(r.servers, func(s server) bool { return s.name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// bound leaves out servers beyond maxServers.
func (w *walk) bound(servers []server) []server {
	if len(servers) > maxServers {
		w.add(Check{Result: Unchecked, Text: servers[0].role + " has more addresses than are checked", Remedy: "the first " + itoa(maxServers) + " are"})
		servers = servers[:maxServers]
	}
	return servers
}
