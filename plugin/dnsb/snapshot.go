package dnsb

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/topsites"
)

// snapshot is all that a query needs, as of one moment. It is immutable.
type snapshot struct {
	conf      *config
	prefixes  *prefixmap.Table
	operators int
	geo       *bart.Table[*geoRecord] // nil: there are no databases
	nodes     []*node                 // by nodeID; nil for one that has not registered
	names     []string                // by nodeID
	defaults  []nodeID
	order     []nodeID // of the nodes that are not nil, by name
	overrides overrides
	cuts      map[string]*cut
	owners    map[string]*owner // names with authority, in lower case
	serial    uint32
	coldUntil time.Time                       // zero: what is not registered does not exist
	unmapped  *topsites.Counter[lastReferral] // resolver sites that no prefix with an eligible node covers

	survey      *sitesurvey.Survey // that knows sites
	sites       *sitesurvey.Table  // what nodes measured; nil: there is no survey
	surveyNodes []nodeID           // by the number that nodes have in sites; noNode: not configured

	storeUnread bool // since the start the shared store could not be read

	unmappedCount prometheus.Counter

	numbers    *resolverMap // which numbered the nodes
	signatures int          // bytes of those of one RRset; 0: the zone is not signed
}

// node is one node that is static or registered.
type node struct {
	*registration.Registration
	record *registry.Record // nil: static
	fqdn   string
	packed []byte // fqdn in wire form
	hash   uint64
	state  nodeState  // the best one of its cuts
	reason string     // why it does not answer
	cuts   []cutState // sorted by name
	counts [layers]prometheus.Counter

	id         nodeID
	at         *geodb.Point // nil: it has no location
	families   families
	drained    bool     // by the operator
	registered []nodeID // its deputies as it registered them
	deputies   []nodeID // the same, best first
	derived

	// subnetDeputies are those of the deputies that have client subnets.
	subnetDeputies []nodeID
}

// cutState is the state of a node as a server of one cut.
type cutState struct {
	name   string
	state  nodeState
	reason string // why the node does not answer for it
	held   bool   // it is dead because an answer does not count yet
}

type nodeState string

const (
	nodeLive  nodeState = "live"  // answers, or holds a lease and nobody probes it
	nodeStale nodeState = "stale" // its lease ended, but it answers
	nodeDead  nodeState = "dead"  // does not answer, or its lease ended and nobody probes it

	nodeDrained nodeState = "drained" // answers, but the operator wants no referrals to it
)

// serving says whether a node serves a cut.
type serving uint8

const (
	servesNot serving = iota
	servesDead
	servesHeld // dead, but it answers again
	servesDrained
	servesLive
)

// cut is a name that is delegated to nodes.
type cut struct {
	name string
	*members
	ds []registration.DS
}

// members are the nodes of a cut and their states. They are immutable, and cuts
// with the same ones share them.
type members struct {
	serves  []serving     // by nodeID; nodes that were numbered later serve not
	nodes   []nodeID      // those that serve it, by name
	hashes  []uint64      // of the same
	located []nodeID      // those of them that have a location
	points  []geodb.Point // of the same

	alive       int // nodes that are not dead
	withSubnets int // those of them that have client subnets

	choices atomic.Pointer[choices] // nil: none was made
}

// state returns how a node serves.
func (m *members) state(id nodeID) serving {
	if uint(id) < uint(len(m.serves)) { // #nosec G115 -- not negative
		return m.serves[id]
	}
	return servesNot
}

// owner is a name that this server has authority over. One without addresses
// and node has names below it and nothing else.
type owner struct {
	apex      bool
	addresses []netip.Addr // of a name server
	isNode    bool
	node      nodeID     // if it is one
	part      *shownPart // of the prefixes of a node
	text      string     // of a TXT record; "": none
}

func newNode(r *registration.Registration, rec *registry.Record) *node {
	n := &node{Registration: r, record: rec, fqdn: registration.NodeName(r.Node, r.Zone), hash: resolver.Hash(r.Node)}
	n.packed, n.families = packName(n.fqdn), familiesOf(r.Addresses)
	n.at = geodb.ParseLOC(r.Location)
	for l := range n.counts {
		n.counts[l] = referralCount.WithLabelValues(r.Zone, layer(l).String(), r.Node) // #nosec G115 -- a few
	}
	return n
}

// judge sets the states of a node: for each of its cuts, and the best one of these.
func (n *node) judge(cuts []string, h *health) {
	n.state, n.reason, n.cuts = stateOf(n, notProbed), "", make([]cutState, len(cuts))
	for i, c := range h.of(n.Registration, cuts) {
		n.cuts[i] = cutState{cuts[i], stateOf(n, c.result), c.reason, c.result == held && !n.drained}
		if i == 0 || n.state == nodeDead && n.cuts[i].state != nodeDead {
			n.state, n.reason = n.cuts[i].state, n.cuts[i].reason
		}
	}
}

// serving returns the state of a node as a server of a cut.
func (n *node) serving(cut string) cutState {
	if c, ok := n.cut(cut); ok {
		return c
	}
	return cutState{cut, nodeDead, "", false}
}

// cut returns the state of a node as a server of a cut, if it is one.
func (n *node) cut(name string) (cutState, bool) {
	i, found := slices.BinarySearchFunc(n.cuts, name, func(c cutState, name string) int { return strings.Compare(c.name, name) })
	if !found {
		return cutState{}, false
	}
	return n.cuts[i], true
}

func (n *node) stale() bool { return n.record != nil && n.record.Stale }

// stateOf returns the state of a node by its lease, a probe and the operator.
func stateOf(n *node, result probeResult) nodeState {
	switch {
	case result == silent, result == held, n.stale() && result != answering:
		return nodeDead
	case n.drained:
		return nodeDrained
	case n.stale():
		return nodeStale
	}
	return nodeLive
}

// cutOf returns the cut at or above name.
func (s *snapshot) cutOf(name string) *cut {
	for off, end := 0, false; !end && len(name)-off > len(s.conf.zone); off, end = dns.NextLabel(name, off) {
		if c, ok := s.cuts[name[off:]]; ok {
			return c
		}
	}
	return nil
}

// node returns the node with a number, nil if there is none.
func (s *snapshot) node(id nodeID) *node {
	if int(id) >= len(s.nodes) {
		return nil
	}
	return s.nodes[id]
}

// nodeOf returns the node whose name it is, nil if it is none.
func (s *snapshot) nodeOf(o *owner) *node {
	if !o.isNode {
		return nil
	}
	return s.nodes[o.node]
}

// ownNode adds the names of a node.
func (s *snapshot) ownNode(n *node) {
	s.own(n.fqdn, &owner{isNode: true, node: n.id})
	for i := range n.parts {
		s.own(n.parts[i].name, &owner{part: &n.parts[i]})
	}
}

// own adds a name with authority, and the empty names above it.
func (s *snapshot) own(name string, o *owner) {
	s.owners[name] = o
	s.ownAbove(name)
}

func (s *snapshot) ownAbove(name string) {
	for {
		off, end := dns.NextLabel(name, 0)
		if end {
			return
		}
		name = name[off:]
		if _, ok := s.owners[name]; ok {
			return
		}
		s.owners[name] = &owner{}
	}
}
