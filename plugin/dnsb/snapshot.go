package dnsb

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/topsites"
)

// snapshot is all that a query needs, as of one moment. It is immutable.
type snapshot struct {
	conf      *config
	prefixes  *bart.Table[*entry]
	operators int
	lines     *prefixmap.Lines        // of operator prefixes in map files
	geo       *bart.Table[*geoRecord] // nil: there are no databases
	nodes     []*node                 // by nodeID; nil for one that has not registered
	names     []string                // by nodeID
	defaults  []nodeID
	overrides overrides
	cuts      map[string]*cut
	owners    map[string]*owner // names with authority, in lower case
	serial    uint32
	coldUntil time.Time                       // zero: what is not registered does not exist
	unmapped  *topsites.Counter[lastReferral] // resolver sites that no prefix with an eligible node covers

	storeUnread bool // since the start the shared store could not be read

	unmappedCount prometheus.Counter

	signatures int // bytes of those of one RRset; 0: the zone is not signed
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

	id       nodeID
	at       *geodb.Point // nil: it has no location
	families families
	deputies []nodeID // best first
	derived

	// subnetDeputies are those of the deputies that have client subnets.
	subnetDeputies []nodeID
}

// cutState is the state of a node as a server of one cut.
type cutState struct {
	name   string
	state  nodeState
	reason string // why the node does not answer for it
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
	servesDrained
	servesLive
)

// cut is a name that is delegated to nodes.
type cut struct {
	name    string
	serves  []serving // by nodeID
	nodes   []nodeID  // those that serve it
	located []nodeID  // those of them that have a location
	ds      []registration.DS

	alive       int // nodes that are not dead
	withSubnets int // those of them that have client subnets
}

// owner is a name that this server has authority over. One without addresses
// and node has names below it and nothing else.
type owner struct {
	apex      bool
	addresses []netip.Addr // of a name server
	node      *node
	part      *shownPart // of the prefixes of a node
}

// build makes a snapshot of what is configured, registered and alive.
func build(conf *config, m *resolverMap, st registry.State, o overrides, cold time.Time, h health) *snapshot {
	s := &snapshot{
		conf:          conf,
		overrides:     o,
		cuts:          make(map[string]*cut),
		owners:        map[string]*owner{conf.zone: {apex: true}},
		serial:        st.Serial,
		coldUntil:     cold,
		unmappedCount: unmappedCount.WithLabelValues(conf.zone),
	}
	for _, ns := range conf.servers {
		s.own(ns.name, &owner{addresses: ns.addresses})
	}
	s.own(conf.labelName(), &owner{})

	nodes := nodesOf(conf, st)
	for _, node := range conf.defaults {
		s.defaults = append(s.defaults, m.prefixes.ID(node))
	}
	m.registerAll(nodes, conf)
	s.names = m.prefixes.Names()
	s.nodes = make([]*node, len(s.names))
	for _, n := range nodes {
		_, drained := o.drained[n.Node]
		n.judge(conf.cutsOf(n.Registration), h, drained)
		n.negates = n.negates || m.prefixes.Excluded(n.id)
		s.add(n)
	}
	for name := range conf.cuts {
		s.cut(name)
	}
	s.matchDeputies()
	s.secure()
	s.prefixes, s.operators, s.lines, s.geo = m.prefixes.Publish(), m.prefixes.Operators(), m.prefixes.Lines(), m.geo.Prefixes
	return s
}

// nodesOf returns the nodes that are static or registered, by name.
func nodesOf(conf *config, st registry.State) []*node {
	nodes := make([]*node, 0, len(conf.statics)+len(st.Records))
	for _, r := range conf.statics {
		nodes = append(nodes, newNode(r, nil))
	}
	for _, rec := range st.Records {
		nodes = append(nodes, newNode(rec.Registration, rec))
	}
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.Node, b.Node) })
	return nodes
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
func (n *node) judge(cuts []string, h health, drained bool) {
	n.state, n.cuts = stateOf(n, notProbed, drained), make([]cutState, len(cuts))
	for i, c := range h.of(n.Registration, cuts) {
		n.cuts[i] = cutState{cuts[i], stateOf(n, c.result, drained), c.reason}
		if i == 0 || n.state == nodeDead && n.cuts[i].state != nodeDead {
			n.state, n.reason = n.cuts[i].state, n.cuts[i].reason
		}
	}
}

// serving returns the state of a node as a server of a cut.
func (n *node) serving(cut string) cutState {
	i, found := slices.BinarySearchFunc(n.cuts, cut, func(c cutState, name string) int { return strings.Compare(c.name, name) })
	if !found {
		return cutState{cut, nodeDead, ""}
	}
	return n.cuts[i]
}

// stateOf returns the state of a node by its lease, a probe and the operator.
func stateOf(n *node, result probeResult, drained bool) nodeState {
	stale := n.record != nil && n.record.Stale
	switch {
	case result == silent, stale && result != answering:
		return nodeDead
	case drained:
		return nodeDrained
	case stale:
		return nodeStale
	}
	return nodeLive
}

// add adds a node with its names and cuts.
func (s *snapshot) add(n *node) {
	s.nodes[n.id] = n
	s.own(n.fqdn, &owner{node: n})
	for i := range n.parts {
		s.own(n.parts[i].name, &owner{part: &n.parts[i]})
	}
	for _, c := range n.cuts {
		s.serve(c, n)
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

func (s *snapshot) cut(name string) *cut {
	c, ok := s.cuts[name]
	if !ok {
		c = &cut{name: name, serves: make([]serving, len(s.nodes))}
		s.cuts[name] = c
		s.ownAbove(name)
	}
	return c
}

func (s *snapshot) serve(state cutState, n *node) {
	c := s.cut(state.name)
	c.nodes = append(c.nodes, n.id)
	if n.at != nil {
		c.located = append(c.located, n.id)
	}
	if state.state != nodeDead {
		c.alive++
		if n.ClientSubnets {
			c.withSubnets++
		}
	}
	switch state.state {
	case nodeDead:
		c.serves[n.id] = servesDead
	case nodeDrained:
		c.serves[n.id] = servesDrained
	default:
		c.serves[n.id] = servesLive
	}
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
