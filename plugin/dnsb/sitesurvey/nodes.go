package sitesurvey

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
)

// activeFor is how long after its last question a node counts as one that measures.
const activeFor = 2 * time.Minute

// nodeID is the number of a node in a Survey.
type nodeID = uint16

// node is a node that measures. Its fields belong to Survey.mu.
type node struct {
	id         nodeID
	name       string
	addresses  []netip.Addr // none: it is not measured itself
	asked      time.Time    // for work, last; zero: not since the start
	grouped    bool         // it was in a group since the start
	checked    bool         // others could check latencies that it measured, and they were right
	distrusted bool         // others contradict too many of them

	peers map[nodeID]answer // what it measured of other nodes

	queue []*task // waiting, first come first served; some may be given up
	given []*task // that it measures now
}

func (n *node) active(now time.Time) bool { return !n.asked.IsZero() && now.Sub(n.asked) < activeFor }

// has reports whether the node can measure addresses of a family, as far as its own
// addresses tell.
func (n *node) has(four bool) bool {
	return len(n.addresses) == 0 || slices.ContainsFunc(n.addresses, func(a netip.Addr) bool { return a.Is4() == four })
}

// node returns the node with a name, a new one if there is none. mu is locked.
func (s *Survey) node(name string) *node {
	id, ok := s.ids[name]
	if !ok {
		id = nodeID(len(s.nodes)) // #nosec G115 -- as many as accept lines name
		s.ids[name] = id
		s.nodes = append(s.nodes, &node{id: id, name: name, peers: make(map[nodeID]answer)})
		for i := range s.latencies {
			s.latencies[i] = append(s.latencies[i], survey.Unknown)
		}
		s.latencies = append(s.latencies, slices.Repeat([]float64{survey.Unknown}, len(s.nodes)))
		s.stale = true
	}
	return s.nodes[id]
}

// names returns the names of all nodes, by number. mu is locked.
func (s *Survey) names() []string {
	names := s.table.Load().Names
	for _, n := range s.nodes[len(names):] {
		names = append(slices.Clip(names), n.name)
	}
	return names
}

// group is the nodes that measure addresses of one family. Another one replaces it when
// these have changed, or the latencies between them.
type group struct {
	members []int         // their nodeIDs, ascending
	nodes   *survey.Nodes // reads Survey.latencies: belongs to Survey.mu
}

func (g *group) has(id nodeID) bool {
	_, ok := slices.BinarySearch(g.members, int(id))
	return ok
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

// regroup makes the groups those of the nodes that are active now, if these or their
// latencies have changed. mu is locked.
func (s *Survey) regroup(now time.Time) {
	for f, g := range s.groups {
		var members []int
		for id, n := range s.nodes {
			if n.active(now) && n.has(f == 0) {
				members = append(members, id)
			}
		}
		if g != nil && !s.stale && slices.Equal(g.members, members) {
			continue
		}
		g = &group{members: members}
		for _, id := range members {
			if n := s.nodes[id]; !n.grouped {
				n.grouped = true
				s.round++ // it may be nearer than those that measured
			}
		}
		g.nodes = survey.NewNodes(s.latencies, members, s.pools(g))
		s.groups[f] = g
	}
	s.stale = false
}

// pools returns the nodes of a group that stand beside servers, by service. mu is
// locked.
func (s *Survey) pools(g *group) (pools [][]int) {
	for _, set := range s.beside {
		var pool []int
		for _, name := range set {
			if id, ok := s.ids[name]; ok && g.has(id) {
				pool = append(pool, int(id))
			}
		}
		if len(pool) > 0 {
			pools = append(pools, pool)
		}
	}
	return pools
}

// recordPeer takes what a node measured of another one. If both measured the latency
// between them, the larger one counts: a node cannot make itself nearer than the other
// one sees it. mu is locked.
func (s *Survey) recordPeer(from, to nodeID, a answer) {
	old, known := s.nodes[from].peers[to]
	s.nodes[from].peers[to] = a
	latency := rttOf(a)
	if other, ok := s.nodes[to].peers[from]; ok && !(latency >= rttOf(other)) && other.usable() {
		latency = rttOf(other)
	}
	s.latencies[from][to], s.latencies[to][from] = latency, latency
	if !known || survey.Moved(rttOf(a), rttOf(old)) {
		s.stale = true
		s.opinion++
	}
}

// maxPeers is how many of the tasks that a node gets at a time are other nodes.
const maxPeers = 5

// peers returns tasks for the nodes that a node is to measure now. mu is locked.
func (s *Survey) peers(n *node, now time.Time) []*task {
	var tasks []*task
	for _, other := range s.nodes {
		if other == n || !other.active(now) || len(tasks) == maxPeers {
			continue
		}
		if last, ok := n.peers[other.id]; ok && age(last.at, now) < daily {
			continue
		}
		i := slices.IndexFunc(other.addresses, func(a netip.Addr) bool { return n.has(a.Is4()) && !s.avoids(netip.PrefixFrom(a, a.BitLen())) })
		if i < 0 || slices.ContainsFunc(n.given, func(t *task) bool { return t.address == other.addresses[i] }) {
			continue
		}
		tasks = append(tasks, &task{node: n, peer: other, address: other.addresses[i], every: time.Second})
	}
	return tasks
}

// measuredPeer takes what a node measured of another one. mu is locked.
func (s *Survey) measuredPeer(t *task, a answer) {
	if _, known := t.node.peers[t.peer.id]; !known {
		s.round++
	}
	s.recordPeer(t.node.id, t.peer.id, a)
	s.dirtyOf[t.node.id] = true
}

// rttOf returns the latency of an answer in milliseconds, or Unknown.
func rttOf(a answer) float64 {
	if a.usable() {
		return float64(a.rtt)
	}
	return math.NaN()
}
