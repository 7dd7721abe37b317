package dnsb

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

// A resolver that sends client subnets (RFC 7871) caches an answer without one
// for all its clients, and then no longer asks the node that answers each of them
// as fits it. So all nodes of a cut should have client subnets, or none.

// matchDeputies gives each node the deputies that a referral may name beside a
// node with client subnets. A node with client subnets prefers those that have
// them too, also where they stand in for it.
func (b *builder) matchDeputies() {
	toggled := slices.ContainsFunc(b.changes.nodes, func(c nodeChange) bool {
		return (c.old != nil && c.old.ClientSubnets) != (c.now != nil && c.now.ClientSubnets)
	})
	if !toggled {
		for _, c := range b.changes.nodes {
			if c.now != nil {
				b.next.matchDeputies(c.now)
			}
		}
		return
	}
	for id, n := range b.next.nodes {
		if n == nil || len(n.registered) == 0 {
			continue
		}
		if n == b.previous.node(nodeID(id)) { // #nosec G115 -- as many as there are nodes
			n = new(*n)
			b.next.nodes[id] = n
		}
		b.next.matchDeputies(n)
	}
}

func (s *snapshot) matchDeputies(n *node) {
	without := func(id nodeID) bool { return s.nodes[id] == nil || !s.nodes[id].ClientSubnets }
	n.deputies, n.subnetDeputies = n.registered, n.registered
	if !slices.ContainsFunc(n.registered, without) {
		return
	}
	n.subnetDeputies = slices.DeleteFunc(slices.Clone(n.registered), without)
	if n.ClientSubnets && len(n.subnetDeputies) > 0 {
		others := slices.DeleteFunc(slices.Clone(n.registered), func(id nodeID) bool { return !without(id) })
		n.deputies = slices.Concat(n.subnetDeputies, others)
	}
}

// beside returns those deputies of a node that may be named beside another node,
// best first.
func (n *node) beside(other *node) []nodeID {
	if other.ClientSubnets {
		return n.subnetDeputies
	}
	return n.deputies
}

// differs reports whether some of the nodes of a cut that are not dead have client
// subnets, and some do not.
func (c *cut) differs() bool { return c.withSubnets > 0 && c.withSubnets < c.alive }

// byClientSubnets returns the names of the nodes of a cut that are not dead: those
// with client subnets, and the others.
func (s *snapshot) byClientSubnets(c *cut) (with, without []string) {
	for _, id := range c.nodes {
		switch {
		case c.serves[id] <= servesHeld:
		case s.nodes[id].ClientSubnets:
			with = append(with, s.names[id])
		default:
			without = append(without, s.names[id])
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	return with, without
}

// mixedCuts reminds of the cuts of a zone whose nodes differ in client subnets, as
// the youngest instance knows them: of two that run during a reload, one may be late.
// It is safe for concurrent use.
type mixedCuts struct {
	mu       sync.Mutex
	failures map[string]*reminder.Failure // by cut
}

// log logs what has begun or ended with a snapshot, given the cuts that changed.
func (m *mixedCuts) log(s *snapshot, changed []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, f := range m.failures {
		if c := s.cuts[name]; c == nil || !c.differs() {
			delete(m.failures, name)
			if f.Recovered() {
				log.Infof("Recovered: the nodes of %q agree on client-subnets", name)
			}
		}
	}
	for _, name := range changed {
		if s.cuts[name].differs() && m.failures[name] == nil {
			if m.failures == nil {
				m.failures = make(map[string]*reminder.Failure)
			}
			m.failures[name] = new(reminder.Failure)
		}
	}
	for name, f := range m.failures {
		if c := s.cuts[name]; f.Failed("") {
			with, without := s.byClientSubnets(c)
			log.Warningf("Found nodes of %q with client-subnets (%s) and without (%s), the former get no deputy among the latter: give client-subnets to all nodes of the cut or to none",
				name, someNames(with), someNames(without))
		}
	}
}

// someNames lists the first names.
func someNames(names []string) string {
	const most = 5
	text := strings.Join(names[:min(len(names), most)], " ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// checkClientSubnets returns an error for a 'cut' line with static nodes that
// differ in client subnets.
func (c *config) checkClientSubnets() error {
	for name, nodes := range c.cuts {
		var with, without []string
		for _, node := range nodes {
			switch r := c.statics[node]; {
			case r == nil: // what it registers is not known yet
			case r.ClientSubnets:
				with = append(with, node)
			default:
				without = append(without, node)
			}
		}
		if len(with) > 0 && len(without) > 0 {
			return c.block.Errorf("cut '%s' has nodes with 'client-subnets' (%s) and without (%s): give it to all of them or to none",
				name, someNames(with), someNames(without))
		}
	}
	return nil
}
