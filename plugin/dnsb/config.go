package dnsb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

const (
	// Resolvers raise shorter TTLs or ask without pause; longer ones make the
	// map a matter of days.
	minTTL     = 5 * time.Second
	maxTTL     = 24 * time.Hour
	defaultTTL = 300

	defaultLease = 30 * time.Minute

	// Registered prefixes shorter than these are taken only if the operator
	// spelled them out: they cover whole continents.
	shortest4 = 8
	shortest6 = 16
)

// config is what the server block says. It is immutable.
type config struct {
	zone      string
	block     corefile.Position
	mailbox   string // of the zone's SOA record
	servers   []nameserver
	accepts   []acceptance
	statics   map[string]*registration.Registration // nodes that do not register
	cuts      map[string][]string                   // cut to its nodes
	ds        map[string][]registration.DS          // cut to its keys, which win over registered ones
	prefixes  []operatorPrefix
	maps      []string   // files
	databases []string   // files
	regions   [][]string // fields of the lines for AS numbers, countries and continents
	defaults  []string
	export    string            // file; "": none
	store     registry.Location // nil: in memory only
	admin     string            // file; "": none
	explain   []netip.Prefix    // who may ask for explanations

	leaseMin, leaseMax time.Duration
	ttl                uint32 // of NS records in referrals to more than one node
}

type nameserver struct {
	name      string
	addresses []netip.Addr
}

// acceptance is what the holder of a key may register.
type acceptance struct {
	key, node string
	any       bool // all prefixes that are not very short
	prefixes  []netip.Prefix
	cuts      []string // none: all
	ds        bool     // DS records of these cuts too
	at        corefile.Position
}

type operatorPrefix struct {
	prefix netip.Prefix
	nodes  []string // best first
	at     string   // position of the line, as FILE:LINE
}

func newConfig(zone string) *config {
	return &config{
		zone:     zone,
		mailbox:  dnsmsg.Mailbox(zone),
		statics:  make(map[string]*registration.Registration),
		cuts:     make(map[string][]string),
		ds:       make(map[string][]registration.DS),
		leaseMin: 5 * time.Minute,
		leaseMax: 2 * time.Hour,
		ttl:      defaultTTL,
	}
}

// files returns the files that the map is made of.
func (c *config) files() []string { return slices.Concat(c.maps, c.databases) }

// labelName returns the name that holds those of the nodes.
func (c *config) labelName() string { return registration.Label + "." + c.zone }

// isReserved reports whether name is that of the nodes' label, or below it.
func (c *config) isReserved(name string) bool { return dns.IsSubDomain(c.labelName(), name) }

// isExplained reports whether a label of name is the one that asks for an
// explanation.
func isExplained(name string) bool {
	return slices.Contains(dns.SplitDomainName(name), explain.Label)
}

// nested returns a cut of the configuration that is below or above name.
func (c *config) nested(name string) string {
	for cut := range c.cuts {
		if nestedNames(cut, name) {
			return cut
		}
	}
	return ""
}

// coversServer returns the name server at or below which name is, or which is
// below name.
func (c *config) coversServer(name string) string {
	for _, s := range c.servers {
		if dns.IsSubDomain(name, s.name) || dns.IsSubDomain(s.name, name) {
			return s.name
		}
	}
	return ""
}

// knows reports whether node is static or may register.
func (c *config) knows(node string) bool {
	_, static := c.statics[node]
	return static || c.accepted(node)
}

func (c *config) accepted(node string) bool {
	return slices.ContainsFunc(c.accepts, func(a acceptance) bool { return a.node == node })
}

// grant returns the lease for one that was asked for; zero asks for the default.
func (c *config) grant(asked time.Duration) time.Duration {
	if asked == 0 {
		asked = defaultLease
	}
	return min(max(asked, c.leaseMin), c.leaseMax)
}

// permits returns nil if the holder of key may register r, or a reason why not.
// An empty key stands for that of any 'accept' line of the node. held are the
// cuts that the node has already and may give up.
func (c *config) permits(key string, r *registration.Registration, held []string) error {
	var scope []acceptance
	for _, a := range c.accepts {
		if a.node == r.Node && (key == "" || a.key == key) {
			scope = append(scope, a)
		}
	}
	if len(scope) == 0 && key == "" {
		return fmt.Errorf("no 'accept' line lets node %s register", r.Node)
	}
	if len(scope) == 0 {
		return fmt.Errorf("the key %s may not register node %s", key, r.Node)
	}

	for _, cut := range r.Cuts {
		if err := c.cutAllowed(scope, cut); err != nil {
			return err
		}
	}
	for _, cut := range r.FormerCuts {
		if slices.Contains(held, cut) {
			continue
		}
		if err := c.cutAllowed(scope, cut); err != nil {
			return err
		}
	}
	for _, prefix := range r.Prefixes {
		if !prefixAllowed(scope, prefix.Prefix) {
			return fmt.Errorf("node %s may not claim the prefix %s", r.Node, prefix.Prefix)
		}
	}
	return c.dsAllowed(scope, r)
}

func (c *config) cutAllowed(scope []acceptance, cut string) error {
	if cut == c.zone {
		return fmt.Errorf("%s is the zone itself and cannot be a cut", cut)
	}
	if c.isReserved(cut) {
		return fmt.Errorf("%s cannot be a cut: %s and all names below are those of the nodes", cut, c.labelName())
	}
	if isExplained(cut) {
		return fmt.Errorf("%s cannot be a cut: %s asks for an explanation", cut, explain.Label)
	}
	if server := c.coversServer(cut); server != "" {
		return fmt.Errorf("%s cannot be a cut: %s is the name of a server of the zone", cut, server)
	}
	if strings.Contains(cut, "*") {
		return fmt.Errorf("%s cannot be a cut: it has a wildcard", cut)
	}
	if other := c.nested(cut); other != "" {
		return fmt.Errorf("%s cannot be a cut: it is below or above the cut %s", cut, other)
	}
	for _, a := range scope {
		if len(a.cuts) == 0 || slices.Contains(a.cuts, cut) {
			return nil
		}
	}
	return fmt.Errorf("node %s may not serve %s", scope[0].node, cut)
}

func prefixAllowed(scope []acceptance, prefix netip.Prefix) bool {
	shortest := shortest4
	if prefix.Addr().Is6() {
		shortest = shortest6
	}
	short := prefix.Bits() < shortest
	for _, a := range scope {
		if a.any && !short {
			return true
		}
		for _, p := range a.prefixes {
			if p == prefix || !short && p.Bits() <= prefix.Bits() && p.Contains(prefix.Addr()) {
				return true
			}
		}
	}
	return false
}
