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
	layerASN                       // the operator's for the AS number of the resolver
	layerCountry                   // the operator's for its country
	layerContinent                 // the operator's for its continent
	layerDefault                   // the default nodes
	layerLocation                  // the node that is nearest by coordinates
	layerHash                      // a stable hash over the live nodes
	layerLast                      // no node of the cut is live
	layers
)

func (l layer) String() string {
	return [layers]string{"pin", "operator", "registration", "asn", "country", "continent", "default", "location", "hash", "last"}[l]
}

// choose returns the node that a resolver is referred to for a cut, and why; of
// is the node as whose deputy, nil if it is none's. There is no node only if none
// serves the cut. A trace, if there is one, sees all that is considered.
func (s *snapshot) choose(c *cut, from netip.Addr, t *trace) (n, of *node, l layer) {
	q := search{snapshot: s, cut: c, from: from, trace: t}
	for _, q.want = range [...]serving{servesLive, servesDrained} {
		for _, q.family = range [...]families{familyOf(from), anyFamily} {
			if n, l := q.layers(); n != nil {
				return n, q.of, l
			}
		}
	}
	// All look dead. That may be an error of ours: a referral to what is known
	// is better than none.
	q.want = servesDead
	for _, q.family = range [...]families{familyOf(from), anyFamily} {
		if n, _ := q.layers(); n != nil {
			return n, nil, layerLast
		}
	}
	q.denied = nil
	return q.hash(), nil, layerLast
}

// search is the search of a node for one resolver, among those that serve a cut
// as wanted.
type search struct {
	*snapshot
	cut    *cut
	from   netip.Addr
	want   serving
	family families // of which a node must have an address, or anyFamily
	denied []nodeID // those that denied a prefix of the resolver: they are out of the search
	of     *node    // as whose deputy the node was found; nil: it is there for itself
	trace  *trace   // nil: nobody wants to know
}

// will reports whether a node will do.
func (q *search) will(id nodeID) bool {
	return q.cut.serves[id] >= q.want && q.nodes[id].families.hold(q.family) && !contains(q.denied, id)
}

// layers goes through the layers.
func (q *search) layers() (*node, layer) {
	q.denied, q.of = q.denied[:0], nil
	q.trace.begin()
	if n := q.pins(); n != nil {
		return n, layerPin
	}
	e, ok := q.prefixes.Lookup(q.from)
	if !ok {
		return q.unmapped()
	}
	if q.trace == nil { // which needs to know the prefix
		// Nearly always the longest prefix is enough.
		if n, l := q.pick(e, netip.Prefix{}); n != nil {
			return n, l
		}
		q.denied = q.denied[:0]
	}
	for prefix, e := range q.prefixes.Supernets(netip.PrefixFrom(q.from, q.from.BitLen())) {
		if n, l := q.pick(e, prefix); n != nil {
			return n, l
		}
	}
	return q.unmapped()
}

// pins returns the node of the longest pin that will do.
func (q *search) pins() *node {
	if q.orders.pins == nil {
		return nil
	}
	for prefix, pin := range q.orders.pins.Supernets(netip.PrefixFrom(q.from, q.from.BitLen())) {
		if n := q.first(pin.nodes, layerPin, prefix); n != nil {
			return n
		}
	}
	return nil
}

// first returns the first node of a list that will do. A trace sees those behind
// it too.
func (q *search) first(ids []nodeID, l layer, at netip.Prefix) (found *node) {
	for _, id := range ids {
		will := q.will(id)
		if will && found == nil {
			found = q.nodes[id]
		}
		if q.trace != nil {
			q.saw(id, nil, l, at, will)
		} else if will {
			break
		}
	}
	return found
}

// pick returns the first node of an entry that will do, and notes those that
// denied this prefix. A trace sees those behind it too.
func (q *search) pick(e *entry, at netip.Prefix) (found *node, in layer) {
	for _, claim := range e.claims {
		l := layerRegistration
		if claim.operator {
			l = layerOperator
		}
		if claim.negated {
			q.denied = append(q.denied, claim.node)
			if q.trace != nil {
				q.saw(claim.node, nil, l, at, false)
			}
			continue
		}
		will := q.will(claim.node)
		if will && found == nil {
			found, in = q.nodes[claim.node], l
		}
		if q.trace != nil {
			q.saw(claim.node, nil, l, at, will)
		} else if will {
			break
		}
	}
	if found == nil {
		found, in = q.standIn(e, at), layerRegistration
	}
	return found, in
}

// standIn returns the first deputy that will do of a node which registered this
// prefix and is not live: it answers by what that has measured.
func (q *search) standIn(e *entry, at netip.Prefix) *node {
	for _, claim := range e.claims {
		serves := q.cut.serves[claim.node]
		if claim.operator || claim.negated || serves == servesNot || serves >= q.want || contains(q.denied, claim.node) {
			continue
		}
		of := q.nodes[claim.node]
		for _, id := range of.deputies {
			will := q.will(id) && !q.denies(q.nodes[id], q.from)
			if q.trace != nil {
				q.saw(id, of, layerRegistration, at, will)
			}
			if will {
				q.of = of
				return q.nodes[id]
			}
		}
	}
	return nil
}

// unmapped serves the resolvers that no prefix with a usable node covers.
func (q *search) unmapped() (*node, layer) {
	where, at := q.place()
	for i, r := range where.regions() {
		if r == nil {
			continue
		}
		l := layerASN + layer(i) // #nosec G115 -- three
		if n := q.first(r.nodes, l, at); n != nil {
			return n, l
		}
	}
	if n := q.first(q.defaults, layerDefault, netip.Prefix{}); n != nil {
		return n, layerDefault
	}
	if n := q.nearest(where.at, at); n != nil {
		return n, layerLocation
	}
	return q.hash(), layerHash
}

// nowhere is the place of a resolver that no database knows.
var nowhere place

// place returns what the databases say of the resolver. Only a trace needs to
// know of which prefix.
func (q *search) place() (*place, netip.Prefix) {
	if q.places == nil {
		return &nowhere, netip.Prefix{}
	}
	if q.trace != nil {
		if at, where, ok := q.places.LookupPrefixLPM(netip.PrefixFrom(q.from, q.from.BitLen())); ok {
			return where, at
		}
	} else if where, ok := q.places.Lookup(q.from); ok {
		return where, netip.Prefix{}
	}
	return &nowhere, netip.Prefix{}
}

// nearest returns the node that is nearest to a point by great-circle distance,
// nil if there is none with a location that will do.
func (q *search) nearest(to *point, at netip.Prefix) *node {
	if to == nil {
		return nil
	}
	var (
		best *node
		most float64
	)
	for _, id := range q.cut.nodes {
		n := q.nodes[id]
		if n.at == nil {
			continue
		}
		will := q.will(id)
		if q.trace != nil {
			q.saw(id, nil, layerLocation, at, will)
		}
		if !will {
			continue
		}
		if product := n.at.dot(*to); best == nil || product > most {
			best, most = n, product
		}
	}
	return best
}

// deputy returns the first live deputy of n for a cut that a resolver can reach,
// other than one that it is referred to already; nil if there is none.
func (s *snapshot) deputy(n, other *node, c *cut, from netip.Addr) *node {
	family := familyOf(from)
	if !n.families.hold(family) {
		family = anyFamily // which it has, if it can use n
	}
	for _, id := range n.deputies {
		if id != n.id && id != other.id && c.serves[id] == servesLive && s.nodes[id].families.hold(family) && !s.denies(s.nodes[id], from) {
			return s.nodes[id]
		}
	}
	return nil
}

// denies reports whether a node, or the operator, said that it is not one for a
// resolver.
func (s *snapshot) denies(n *node, from netip.Addr) bool {
	if !n.negates {
		return false
	}
	for _, e := range s.prefixes.Supernets(netip.PrefixFrom(from, from.BitLen())) {
		for _, claim := range e.claims {
			if claim.node == n.id && (claim.negated || !claim.operator) {
				return claim.negated
			}
		}
	}
	return false
}

// hash chooses by rendezvous hashing: when a node comes or goes, only its own
// resolvers change, and all servers with the same nodes choose alike.
func (q *search) hash() *node {
	var (
		best *node
		most uint64
		seed = resolver.SiteOf(q.from).Hash()
	)
	for _, id := range q.cut.nodes {
		will := q.will(id)
		if q.trace != nil {
			q.saw(id, nil, layerHash, netip.Prefix{}, will)
		}
		if !will {
			continue
		}
		if n, score := q.nodes[id], resolver.Score(seed, q.nodes[id].hash); best == nil || score > most {
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
