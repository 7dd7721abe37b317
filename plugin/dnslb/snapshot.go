package dnslb

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// snapshot is what queries read: the names and, for each pool of servers, the
// current answer. Except for these answers it is immutable: other servers or
// services make another snapshot. The ranking goroutine changes observed and
// principals, under the lock of the block state.
type snapshot struct {
	names      map[string]name             // by owner name in lower case
	wildcards  map[string]name             // those that begin with "*.", by the name above
	zones      map[string]*zonesource.Zone // what backend plugins have, by zone
	unserved   map[string]bool             // zones that no backend plugin will ever answer for
	missing    []string                    // zones that a backend plugin should have and does not have
	parentOnly map[string]bool             // zones of which backend plugins have only one above them
	soas       map[string]*dns.SOA         // by zone, of the backend plugin or else of dnslb

	pools    []*pool
	targets  []latencyprobe.Target
	byTarget [][]uint32 // indexes of the pools that have a target, by that of the target
	services int        // how many there are
	crowded  []string   // those at whose name the zone has more addresses than can be ranked

	overrides []serverOverride // active
	inForce   []serverOverride // those that some member is under
	idle      []idleOverride   // the others

	observed   observations                // as measured by this node
	principals []*principalState           // by slot
	counts     map[string]*serviceCounters // by zone
	labels     [2]string                   // zone and node, of metrics
}

// poolsOf yields the pools that have a target, given its index.
func (s *snapshot) poolsOf(target int) iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		for _, i := range s.byTarget[target] {
			if !yield(s.pools[i]) {
				return
			}
		}
	}
}

// name is an owner name that exists in one of the zones.
type name struct {
	zone    string
	service *service // nil at a name without addresses to rank
	types   []uint16 // of the records that the backend plugin has, sorted
}

// has reports whether the backend plugin has a type of record at the name.
func (n name) has(rrtype uint16) bool {
	_, ok := slices.BinarySearch(n.types, rrtype)
	return ok
}

// service is a load-balanced host name: a pool of servers per address family.
type service struct {
	name    string
	a, aaaa *pool // nil if no server has an address of that family
	counts  *serviceCounters
}

// pool returns the pool that answers qtype, nil if there is none.
func (s *service) pool(qtype uint16) *pool {
	switch {
	case s == nil:
		return nil
	case qtype == dns.TypeA:
		return s.a
	case qtype == dns.TypeAAAA:
		return s.aaaa
	}
	return nil
}

// member is one address of a server with its settings. Pools share it.
type member struct {
	target int // index of snapshot.targets
	label  string
	addr   netip.Addr
	hash   uint64
	settings
	override memberOverride
	alone    []*answer // with this address alone, which pools share
}

// lookup finds qname, by a wildcard where the name itself does not exist (RFC
// 4592). A name that does not exist has only the zone; a name outside of the
// zones has nothing.
func (s *snapshot) lookup(qname string) (n name, exists bool) {
	if n, ok := s.names[qname]; ok {
		return n, true
	}
	for parent := qname; parent != "."; {
		parent = dnsmsg.Parent(parent)
		encloser, ok := s.names[parent]
		if !ok {
			continue
		}
		if wildcard, ok := s.wildcards[parent]; ok {
			return wildcard, true
		}
		return name{zone: encloser.zone}, false
	}
	return name{}, false
}
