package dnsb

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/miekg/dns"
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
func (s *snapshot) choose(c *cut, resolver netip.Addr) (*node, layer) {
	for _, want := range [...]serving{servesLive, servesDrained} {
		if n, l := s.search(c, resolver, want); n != nil {
			return n, l
		}
	}
	// All look dead. That may be an error of ours: a referral to what is known
	// is better than none.
	n, _ := s.search(c, resolver, servesDead)
	if n == nil {
		n = s.hash(c, resolver, servesDead, nil)
	}
	return n, layerLast
}

// search goes through the layers. Nodes must serve the cut as asked.
func (s *snapshot) search(c *cut, resolver netip.Addr, want serving) (*node, layer) {
	if s.orders.pins != nil {
		for _, ids := range s.orders.pins.Supernets(netip.PrefixFrom(resolver, resolver.BitLen())) {
			for _, id := range ids {
				if c.serves[id] >= want {
					return s.nodes[id], layerPin
				}
			}
		}
	}
	e, ok := s.prefixes.Lookup(resolver)
	if !ok {
		return s.unmapped(c, resolver, want, nil)
	}
	// Nearly always the longest prefix is enough.
	var denied []nodeID
	if n, l := s.pick(e, c, want, &denied); n != nil {
		return n, l
	}
	denied = denied[:0]
	for _, e := range s.prefixes.Supernets(netip.PrefixFrom(resolver, resolver.BitLen())) {
		if n, l := s.pick(e, c, want, &denied); n != nil {
			return n, l
		}
	}
	return s.unmapped(c, resolver, want, denied)
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
func (s *snapshot) unmapped(c *cut, resolver netip.Addr, want serving, denied []nodeID) (*node, layer) {
	for _, id := range s.defaults {
		if c.serves[id] >= want && !contains(denied, id) {
			return s.nodes[id], layerDefault
		}
	}
	return s.hash(c, resolver, want, denied), layerHash
}

// deputy returns the first live deputy of n for a cut, nil if there is none.
func (s *snapshot) deputy(n *node, c *cut, resolver netip.Addr) *node {
	for _, id := range n.deputies {
		if id != n.id && c.serves[id] == servesLive && !s.denies(s.nodes[id], resolver) {
			return s.nodes[id]
		}
	}
	return nil
}

// denies reports whether a node said that it is not one for a resolver.
func (s *snapshot) denies(n *node, resolver netip.Addr) bool {
	if !n.negates {
		return false
	}
	for _, e := range s.prefixes.Supernets(netip.PrefixFrom(resolver, resolver.BitLen())) {
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
func (s *snapshot) hash(c *cut, resolver netip.Addr, want serving, denied []nodeID) *node {
	var (
		best *node
		most uint64
		seed = hashAddr(resolver)
	)
	for _, id := range c.nodes {
		if c.serves[id] < want || contains(denied, id) {
			continue
		}
		if n, score := s.nodes[id], mix(seed^s.nodes[id].hash); best == nil || score > most {
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

// hashAddr hashes the /24 or /48 that an address is in: the resolvers of one
// site.
func hashAddr(addr netip.Addr) uint64 {
	if addr.Is4() {
		b := addr.As4()
		return mix(uint64(binary.BigEndian.Uint32(b[:]) >> 8))
	}
	b := addr.As16()
	return mix(binary.BigEndian.Uint64(b[:8]) >> 16)
}

// hashString is FNV-1a.
func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// nat64 is the well-known prefix in which IPv4 resolvers may appear (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// source returns the address of the resolver, as IPv4 if it is one in disguise.
func source(w dns.ResponseWriter) netip.Addr {
	var addr netip.Addr
	switch a := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		addr = a.AddrPort().Addr()
	case *net.TCPAddr:
		addr = a.AddrPort().Addr()
	default: // that of a proxy protocol, which holds the proxy's inside
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			addr = ap.Addr()
		}
	}
	return bare(addr)
}

func bare(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}
