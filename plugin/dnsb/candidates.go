package dnsb

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
)

// candidate is a node that the search for a resolver considers. The search says
// in which list it is.
type candidate struct {
	id        nodeID
	principal *node // the node as whose deputy it is considered, nil: for itself
	layer     layer
	verdict   verdict
}

// verdict says whether a candidate is eligible, or why it is not.
type verdict uint8

const (
	eligible    verdict = iota
	isDenied            // the node, or the operator, denied a prefix of the resolver
	otherCut            // it does not serve the cut
	otherFamily         // it has no address of the family of the resolver
	notServing          // it is dead, drained or not registered
)

// search finds the nodes for one resolver among those that serve a cut. It makes
// several passes over the same lists, and asks for less each time.
type search struct {
	snapshot *snapshot
	cut      *cut
	from     netip.Addr

	// The current pass:
	pass   int
	want   serving  // how nodes must serve the cut, at least
	family families // of which nodes must have an address, or anyFamily
	denied []nodeID // nodes that denied a prefix of the resolver

	// The current list of nodes: those of a prefix, of a geo rule, the default ones.
	list   int
	prefix netip.Prefix // the zero value: it has none, or the longest one of the map
}

// firstEligible returns the first eligible candidate for a resolver, and whether
// it is the last one known: no node of the cut answers. There is no
// candidate only if no node serves the cut.
func (s *snapshot) firstEligible(c *cut, from netip.Addr) (found candidate, last, ok bool) {
	q := search{snapshot: s, cut: c, from: from}
	q.candidates(func(c candidate) bool {
		if c.verdict == eligible {
			found, ok = c, true
		}
		return !ok
	})
	return found, q.want == servesDead, ok
}

// candidates calls yield for all candidates in order, until that returns false.
// Candidates of one list that come after an eligible one are yielded too.
func (q *search) candidates(yield func(candidate) bool) {
	for _, q.want = range [...]serving{servesLive, servesDrained, servesHeld, servesDead} {
		// When all nodes look dead, the fault may be on this side: a referral to the
		// last known one is better than none.
		for _, q.family = range [...]families{familyOf(q.from), anyFamily} {
			q.denied, q.pass = q.denied[:0], q.pass+1
			if !q.pins(yield) || !q.prefixes(yield) || !q.unmapped(yield) {
				return
			}
		}
	}
	q.denied = nil
	q.hashed(yield)
}

// begin makes a list the current one.
func (q *search) begin(prefix netip.Prefix) { q.list, q.prefix = q.list+1, prefix }

// candidate returns a node of the current list.
func (q *search) candidate(id nodeID, l layer) candidate {
	return candidate{id: id, layer: l, verdict: q.verdict(id)}
}

func (q *search) verdict(id nodeID) verdict {
	switch serves := q.cut.state(id); {
	case slices.Contains(q.denied, id):
		return isDenied
	case serves == servesNot:
		return otherCut
	case !q.snapshot.nodes[id].families.hold(q.family):
		return otherFamily
	case serves < q.want:
		return notServing
	}
	return eligible
}

// each yields the nodes of a list.
func (q *search) each(ids []nodeID, l layer, prefix netip.Prefix, yield func(candidate) bool) bool {
	q.begin(prefix)
	for _, id := range ids {
		if !yield(q.candidate(id, l)) {
			return false
		}
	}
	return true
}

// pins yields the nodes of pins, the longest prefix first.
func (q *search) pins(yield func(candidate) bool) bool {
	if q.snapshot.overrides.pins == nil {
		return true
	}
	for prefix, pin := range q.snapshot.overrides.pins.Supernets(hostPrefix(q.from)) {
		if !q.each(pin.nodes, layerPin, prefix, yield) {
			return false
		}
	}
	return true
}

// prefixes yields the nodes of the prefixes that cover the resolver, the longest
// one first. Nearly always that one is enough: its length is looked up only when
// somebody asks.
func (q *search) prefixes(yield func(candidate) bool) bool {
	e, ok := q.snapshot.prefixes.Lookup(q.from)
	if !ok {
		return true
	}
	if !q.claims(e, netip.Prefix{}, yield) {
		return false
	}
	longest := true
	for prefix, e := range q.snapshot.prefixes.Supernets(hostPrefix(q.from)) {
		if !longest && !q.claims(e, prefix, yield) {
			return false
		}
		longest = false
	}
	return true
}

// claims yields the nodes of a prefix. If none is eligible, it yields deputies of
// nodes that registered the prefix and do not serve as wanted: they answer by the
// measurements of such a node.
func (q *search) claims(e *entry, prefix netip.Prefix, yield func(candidate) bool) bool {
	q.begin(prefix)
	found := false
	for _, claim := range e.Claims {
		l := layerRegistration
		if claim.Operator {
			l = layerOperator
		}
		if claim.Negated {
			q.denied = append(q.denied, claim.Node)
		}
		c := q.candidate(claim.Node, l)
		found = found || c.verdict == eligible
		if !yield(c) {
			return false
		}
	}
	if found {
		return true
	}
	for _, claim := range e.Claims {
		serves := q.cut.state(claim.Node)
		if claim.Operator || claim.Negated || serves == servesNot || serves >= q.want || slices.Contains(q.denied, claim.Node) {
			continue
		}
		principal := q.snapshot.nodes[claim.Node]
		for _, id := range principal.deputies {
			c := q.candidate(id, layerRegistration)
			c.principal = principal
			if c.verdict == eligible && q.snapshot.denies(q.snapshot.nodes[id], q.from) {
				c.verdict = isDenied
			}
			if !yield(c) {
				return false
			}
			if c.verdict == eligible {
				return true
			}
		}
	}
	return true
}

// unmapped yields the nodes of resolvers that no prefix with an eligible node
// covers.
func (q *search) unmapped(yield func(candidate) bool) bool {
	if !q.surveyed(yield) {
		return false
	}
	geo, prefix := q.geoRecord()
	for i, rule := range rulesOf(geo) {
		if rule != nil && !q.each(rule.nodes, layerASN+layer(i), prefix, yield) { // #nosec G115 -- three
			return false
		}
	}
	return q.each(q.snapshot.defaults, layerDefault, netip.Prefix{}, yield) && q.nearest(geo.At, prefix, yield) && q.hashed(yield)
}

// noGeoRecord is what the databases say of a resolver that they do not know.
var noGeoRecord geoRecord

// geoRecord returns what the databases say of the resolver, and of which prefix.
func (q *search) geoRecord() (*geoRecord, netip.Prefix) {
	if q.snapshot.geo == nil {
		return &noGeoRecord, netip.Prefix{}
	}
	prefix, geo, ok := q.snapshot.geo.LookupPrefixLPM(hostPrefix(q.from))
	if !ok {
		return &noGeoRecord, netip.Prefix{}
	}
	return geo, prefix
}

// nearest yields the nodes of the cut that have a location: the eligible one that
// is nearest to a point by great-circle distance, then the others.
func (q *search) nearest(to *geodb.Point, prefix netip.Prefix, yield func(candidate) bool) bool {
	if to == nil {
		return true
	}
	best, most := noNode, 0.0
	for i := range q.cut.points {
		if product := q.cut.points[i].Dot(*to); best == noNode || product > most {
			if id := q.cut.located[i]; q.verdict(id) == eligible {
				best, most = id, product
			}
		}
	}
	return q.bestFirst(best, q.cut.located, layerLocation, prefix, yield)
}

// hashed yields the nodes of the cut: the eligible one that rendezvous hashing
// chooses for the resolver site, then the others. When a node comes or goes, only
// its own resolvers change, and all servers with the same nodes choose alike.
func (q *search) hashed(yield func(candidate) bool) bool {
	site := resolver.SiteOf(q.from).Hash()
	best, most := noNode, uint64(0)
	if len(q.cut.nodes) > 0 {
		if id := q.cut.nodes[q.cut.hashed(site)]; q.verdict(id) == eligible {
			return q.bestFirst(id, q.cut.nodes, layerHash, netip.Prefix{}, yield)
		}
	}
	for i, hash := range q.cut.hashes {
		if score := resolver.Score(site, hash); best == noNode || score > most {
			if id := q.cut.nodes[i]; q.verdict(id) == eligible {
				best, most = id, score
			}
		}
	}
	return q.bestFirst(best, q.cut.nodes, layerHash, netip.Prefix{}, yield)
}

const noNode nodeID = -1

// bestFirst yields the best one of these nodes, or noNode, and then the others.
func (q *search) bestFirst(best nodeID, ids []nodeID, l layer, prefix netip.Prefix, yield func(candidate) bool) bool {
	q.begin(prefix)
	if best != noNode && !yield(q.candidate(best, l)) {
		return false
	}
	for _, id := range ids {
		if id != best && !yield(q.candidate(id, l)) {
			return false
		}
	}
	return true
}

// denies reports whether a node, or the operator, denied a prefix of a resolver.
func (s *snapshot) denies(n *node, from netip.Addr) bool {
	if !n.negates {
		return false
	}
	for _, e := range s.prefixes.Supernets(hostPrefix(from)) {
		for _, claim := range e.Claims {
			if claim.Node == n.id && (claim.Negated || !claim.Operator) {
				return claim.Negated
			}
		}
	}
	return false
}

// sitePrefix returns the prefix of the resolver site of an address.
func sitePrefix(addr netip.Addr) netip.Prefix { return resolver.SiteOf(addr).Prefix() }

// hostPrefix returns the prefix that holds one address.
func hostPrefix(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
