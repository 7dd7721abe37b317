package dnslb

import (
	"crypto/x509"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// config is a parsed dnslb block.
type config struct {
	Zones []string // of the server block, absolute, lower case
	block corefile.Position

	inventory       inventory      // of the Corefile alone
	probes          []string       // names of the latencyprobes of the server block
	file            *servicesFile  // nil: none
	admin           *adminFile     // nil: none
	explainTo       []netip.Prefix // who may ask why; none: nobody
	allDown         allDown
	observe         bool
	fastPathOff     string // the line that says so; "": none
	ttlLow, ttlHigh uint32 // seconds: while the first server is being confirmed down, and else
	loaded          uint32 // serial of the zone: when it was read, in seconds since 1970

	Node              string // "" if DNS-B does not refer here
	addresses         []netip.Addr
	near              []registration.Prefix
	location          string // as in a LOC record; "": not told
	dnsbs             []dnsclient.Endpoint
	ca                *x509.CertPool // that signs the certificates of DNS-Bs; nil: those of the system
	key               dnsclient.Key
	lease             time.Duration
	deputies          []string                  // nodes
	viewKey           dnsclient.Key             // of tsig, with which nodes share views; no name: they do not
	survey            *surveymsg.Options        // nil: the node takes no part
	clientSubnets     bool                      // answer a query for the client subnet in it (RFC 7871)
	port              string                    // at which nodes serve the zone over plain DNS; "": not in this server block
	registrationFiles *filewatch.Loader[config] // nil: none
	sendDS            bool                      // register the DS records of the zones
	ds                []registration.DS         // of the keys of *dnssec*, set at setup
}

// sharing returns the settings for peerview.
func (c config) sharing() peerview.Settings {
	return peerview.Settings{Node: c.Node, Cut: c.Zones[0], Port: c.port, Key: c.viewKey, Deputies: c.deputies, Prefixes: c.near, AllNodes: c.clientSubnets}
}

// allDown is what to answer when no server is up: the last ranking, unless one
// of these is set.
type allDown struct {
	refuse bool
	addrs  []netip.Addr
}

// describe tells what is answered to questions for some types of records.
func (a allDown) describe(qtypes []uint16) string {
	switch {
	case a.refuse:
		return "REFUSED"
	case a.addrs == nil:
		return "the last ranking"
	}
	var answers []string
	for _, qtype := range qtypes {
		for _, addr := range a.of(qtype) {
			answers = append(answers, addr.String())
		}
		if a.of(qtype) == nil {
			answers = append(answers, "no "+dns.Type(qtype).String()+" record")
		}
	}
	return strings.Join(answers, ", ")
}

// of returns the addresses for a type of record.
func (a allDown) of(qtype uint16) []netip.Addr {
	var addrs []netip.Addr
	for _, addr := range a.addrs {
		if addr.Is4() == (qtype == dns.TypeA) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
