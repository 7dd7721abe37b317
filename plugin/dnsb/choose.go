package dnsb

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// layer is where the node of a referral comes from.
type layer uint8

const (
	layerPin          layer = iota // a pin of the admin file
	layerOperator                  // a prefix that the operator wrote
	layerRegistration              // a prefix that the node registered
	layerDefault                   // the default nodes
	layerHash                      // a stable hash over the live nodes
	layerLast                      // no node of the cut is live
	layers
)

func (l layer) String() string {
	return [layers]string{"pin", "operator", "registration", "default", "hash", "last"}[l]
}

// choose returns the node that a resolver is referred to for a cut, and why. It
// returns nil only if no node serves the cut.
func (s *snapshot) choose(c *cut, from netip.Addr) (*node, layer) {
	for _, want := range [...]serving{servesLive, servesDrained} {
		if n, l := s.search(c, from, want); n != nil {
			return n, l
		}
	}
	// All look dead. That may be an error of ours: a referral to what is known
	// is better than none.
	n, _ := s.search(c, from, servesDead)
	if n == nil {
		n = s.hash(c, from, servesDead, nil)
	}
	return n, layerLast
}

// search goes through the layers. Nodes must serve the cut as asked.
func (s *snapshot) search(c *cut, from netip.Addr, want serving) (*node, layer) {
	if s.orders.pins != nil {
		for _, ids := range s.orders.pins.Supernets(netip.PrefixFrom(from, from.BitLen())) {
			for _, id := range ids {
				if c.serves[id] >= want {
					return s.nodes[id], layerPin
				}
			}
		}
	}
	e, ok := s.prefixes.Lookup(from)
	if !ok {
		return s.unmapped(c, from, want, nil)
	}
	// Nearly always the longest prefix is enough.
	var denied []nodeID
	if n, l := s.pick(e, c, want, &denied); n != nil {
		return n, l
	}
	denied = denied[:0]
	for _, e := range s.prefixes.Supernets(netip.PrefixFrom(from, from.BitLen())) {
		if n, l := s.pick(e, c, want, &denied); n != nil {
			return n, l
		}
	}
	return s.unmapped(c, from, want, denied)
}

// pick returns the first node of an entry that will do, and notes those that
// denied this prefix: they are out of the search.
func (s *snapshot) pick(e *entry, c *cut, want serving, denied *[]nodeID) (*node, layer) {
	for _, claim := range e.claims {
		switch {
		case claim.negated:
			*denied = append(*denied, claim.node)
		case c.serves[claim.node] < want || contains(*denied, claim.node):
		case claim.operator:
			return s.nodes[claim.node], layerOperator
		default:
			return s.nodes[claim.node], layerRegistration
		}
	}
	return nil, 0
}

// unmapped serves the resolvers that no prefix with a usable node covers.
func (s *snapshot) unmapped(c *cut, from netip.Addr, want serving, denied []nodeID) (*node, layer) {
	for _, id := range s.defaults {
		if c.serves[id] >= want && !contains(denied, id) {
			return s.nodes[id], layerDefault
		}
	}
	return s.hash(c, from, want, denied), layerHash
}

// deputy returns the first live deputy of n for a cut, nil if there is none.
func (s *snapshot) deputy(n *node, c *cut, from netip.Addr) *node {
	for _, id := range n.deputies {
		if id != n.id && c.serves[id] == servesLive && !s.denies(s.nodes[id], from) {
			return s.nodes[id]
		}
	}
	return nil
}

// denies reports whether a node said that it is not one for a resolver.
func (s *snapshot) denies(n *node, from netip.Addr) bool {
	if !n.negates {
		return false
	}
	for _, e := range s.prefixes.Supernets(netip.PrefixFrom(from, from.BitLen())) {
		for _, claim := range e.claims {
			if claim.node == n.id && !claim.operator {
				return claim.negated
			}
		}
	}
	return false
}

// hash chooses by rendezvous hashing: when a node comes or goes, only its own
// resolvers change, and all servers with the same nodes choose alike.
func (s *snapshot) hash(c *cut, from netip.Addr, want serving, denied []nodeID) *node {
	var (
		best *node
		most uint64
		seed = resolver.Site(from)
	)
	for _, id := range c.nodes {
		if c.serves[id] < want || contains(denied, id) {
			continue
		}
		if n, score := s.nodes[id], resolver.Mix(seed^s.nodes[id].hash); best == nil || score > most {
			best, most = n, score
		}
	}
	return best
}

func contains(ids []nodeID, id nodeID) bool {
	for _, other := range ids {
		if other == id {
			return true
		}
	}
	return false
}
