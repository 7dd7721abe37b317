package dnsb

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

const (
	// Resolvers raise shorter TTLs or ask without pause; longer ones make the
	// map a matter of days.
	minTTL     = 5 * time.Second
	maxTTL     = 24 * time.Hour
	defaultTTL = 300

	defaultLease = 30 * time.Minute
)

// config is what the server block says. It is immutable.
type config struct {
	zone      string
	block     corefile.Position
	mailbox   string // of the zone's SOA record
	servers   []nameserver
	accepts   []*acceptRule
	rules     map[string][]*acceptRule              // the same, by node
	keys      map[string]bool                       // of accept rules
	declared  map[string]bool                       // nodes of accept rules and static ones
	statics   map[string]*registration.Registration // nodes that do not register
	cuts      map[string][]string                   // cut to its nodes
	nodeCuts  map[string][]string                   // the same, by node, sorted
	cutTree   nameTree                              // of cuts
	ds        map[string][]registration.DS          // cut to its keys, which win over registered ones
	prefixes  []operatorPrefix
	maps      []string   // files
	databases []string   // files
	geoRules  [][]string // their words
	defaults  []string
	export    string            // file; "": none
	store     registry.Location // nil: in memory only
	admin     string            // file; "": none
	explain   []netip.Prefix    // who may ask for explanations

	survey     *surveymsg.Options // nil: there is none
	updateFrom []netip.Prefix     // whose UPDATEs are looked at; none: everybody's

	fastPathOff string // the line that says so; "": none

	leaseMin, leaseMax time.Duration
	ttl                uint32 // of NS records in referrals to more than one node
}

type nameserver struct {
	name      string
	addresses []netip.Addr
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
		rules:    make(map[string][]*acceptRule),
		keys:     make(map[string]bool),
		declared: make(map[string]bool),
		statics:  make(map[string]*registration.Registration),
		cuts:     make(map[string][]string),
		nodeCuts: make(map[string][]string),
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

// reserved returns why no cut may have a name with one of its labels, "" if it may.
func reserved(name string) string {
	for _, label := range dns.SplitDomainName(name) {
		switch label {
		case explain.Label:
			return "the label " + label + " asks for an explanation"
		case nodemap.Label:
			return "the label " + label + " asks for the map of a cut"
		case serveroverride.Label:
			return "the label " + label + " asks for overrides of servers"
		case surveymsg.Label:
			return "the label " + label + " is that of the survey"
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

// cutsOf returns the cuts that a node serves, sorted: those that it registered and
// those of 'cut' lines.
func (c *config) cutsOf(r *registration.Registration) []string {
	configured := c.nodeCuts[r.Node]
	if _, static := c.statics[r.Node]; static {
		return configured
	}
	if len(configured) == 0 && slices.IsSorted(r.Cuts) {
		return r.Cuts
	}
	cuts := slices.Concat(r.Cuts, configured)
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// knows reports whether node is static or may register.
func (c *config) knows(node string) bool { return c.declared[node] }

// nodeName returns the name of a node as the operator wrote it, names have no case.
// It is an error if the node is neither static nor may register.
func (c *config) nodeName(text string) (string, error) {
	node, err := corefile.Label("node", text)
	if err == nil && !c.knows(node) {
		err = fmt.Errorf("unknown node '%s': declare it with 'node' or 'accept' in the Corefile", text)
	}
	return node, err
}

func (c *config) accepted(node string) bool { return len(c.rules[node]) > 0 }

// grant returns the lease for one that was asked for; zero asks for the default.
func (c *config) grant(asked time.Duration) time.Duration {
	if asked == 0 {
		asked = defaultLease
	}
	return min(max(asked, c.leaseMin), c.leaseMax)
}
