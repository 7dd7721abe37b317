package dnslb

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// snapshot is what queries read: the names and, for each pool of servers, the
// answer of now. But for these answers it is immutable; other servers or
// services make another snapshot.
type snapshot struct {
	names      map[string]name             // by owner name, lower case
	wildcards  map[string]name             // of these, those that begin with "*.", by the name above
	zones      map[string]*zonesource.Zone // what backend plugins have, by zone
	unserved   map[string]bool             // zones that no backend plugin will ever answer for
	missing    []string                    // zones that a backend plugin should have and does not have
	parentOnly map[string]bool             // zones of which backend plugins have only one above them
	soas       map[string]*dns.SOA         // by zone, those of the zone plugin or ours

	pools      []*pool
	targets    []latencyprobe.Target
	byTarget   [][]*pool // the pools that have a target, by its index
	services   int
	overrides  []serverOverride            // that have not ended
	inForce    []serverOverride            // of these, those that some member is under
	idle       []idleOverride              // the others of these
	observed   observations                // what the own standings are from
	principals []*principalState           // by slot
	counts     map[string]*serviceCounters // by zone
	labels     [2]string                   // zone and node, of metrics
}

// name is an owner name that exists in one of the zones.
type name struct {
	zone    string
	service *service // nil for an empty non-terminal, the apex, and what only the zone plugin has
	types   []uint16 // that the zone plugin has there, sorted
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

// member is one address of a server, with what the operator wants of it. Pools
// share it.
type member struct {
	target int // index of snapshot.targets
	label  string
	addr   netip.Addr
	hash   uint64
	settings
	override memberOverride
}

// builder makes one snapshot.
type builder struct {
	*snapshot
	pools     map[string]*pool // by members and options
	targets   map[latencyprobe.Target]int
	members   map[memberKey]*member
	ids       map[*member]uint32
	overrides overrideIndex
	found     []*member // of one pool after the other
	key       []byte    // of that pool
}

type memberKey struct {
	target int
	settings
	override memberOverride
}

// build makes a snapshot of the servers and services of an inventory and of the
// zones behind, under overrides that are active. Until something is
// measured the configured order is the answer.
func build(conf *config, i inventory, zones map[string]*zonesource.Zone, active []serverOverride) *snapshot {
	t := &snapshot{
		names: make(map[string]name, len(i.services)+len(conf.Zones)), wildcards: make(map[string]name),
		zones: zones, soas: make(map[string]*dns.SOA), overrides: active, counts: make(map[string]*serviceCounters),
	}
	b := &builder{
		snapshot:  t,
		pools:     make(map[string]*pool),
		targets:   make(map[latencyprobe.Target]int),
		members:   make(map[memberKey]*member),
		ids:       make(map[*member]uint32),
		overrides: newOverrideIndex(active),
	}
	t.labels = [2]string{conf.Zones[0], conf.Node}
	for _, zone := range conf.Zones {
		t.counts[zone] = newServiceCounters(zone, conf.Node)
		t.own(zone, name{zone: zone})
		t.soas[zone] = newSOA(zone, conf.loaded)
	}
	for _, zone := range conf.Zones {
		// Between the apexes of two zones there are empty names.
		if parent := plugin.Zones(conf.Zones).Matches(dnsmsg.Parent(zone)); parent != "" {
			t.own(dnsmsg.Parent(zone), name{zone: parent})
		}
	}
	for zone, z := range zones {
		t.soas[zone] = z.SOA
		for owner, n := range z.Names {
			t.own(owner, name{zone: zone, types: n.Types})
		}
	}
	byAddr := make(map[netip.Addr]string) // of several servers the first by name
	for _, label := range slices.Backward(slices.Sorted(maps.Keys(i.servers))) {
		for _, addr := range i.servers[label].addrs {
			byAddr[addr] = label
		}
	}

	services := i.services
	if len(services) == 0 {
		services = discover(zones)
	}
	t.services = len(services)
	var candidates []candidate // of one service after the other
	for _, svc := range services {
		candidates = candidates[:0]
		for _, label := range svc.servers {
			server := i.servers[label]
			for _, addr := range server.addrs {
				candidates = append(candidates, candidate{label, addr, server.settings})
			}
		}
		zone := plugin.Zones(conf.Zones).Matches(svc.name)
		if t.signed(zone) {
			continue
		}
		if svc.servers == nil {
			for _, addr := range zones[zone].Addresses(svc.name) {
				c := candidate{addr.String(), addr, plain}
				if label, ok := byAddr[addr]; ok {
					c.label, c.settings = label, i.servers[label].settings
				}
				candidates = append(candidates, c)
			}
		}
		s := &service{name: svc.name, counts: t.counts[zone]}
		s.a = b.pool(conf, svc, candidates, netip.Addr.Is4)
		s.aaaa = b.pool(conf, svc, candidates, netip.Addr.Is6)
		if s.a != nil || s.aaaa != nil {
			t.own(svc.name, name{zone: zone, service: s, types: t.names[svc.name].types})
		}
	}

	t.inForce, t.idle = b.overrides.effects()
	t.observed.status = make([]latencyprobe.Status, len(t.targets))
	counts := make([]int, len(t.targets))
	for _, p := range t.pools {
		for _, m := range p.members {
			counts[m.target]++
		}
	}
	t.byTarget = make([][]*pool, len(t.targets))
	for i, n := range counts {
		t.byTarget[i] = make([]*pool, 0, n)
	}
	for _, p := range t.pools {
		for _, m := range p.members {
			t.byTarget[m.target] = append(t.byTarget[m.target], p)
		}
	}
	return t
}

// candidate is one address that a service may have.
type candidate struct {
	label string
	addr  netip.Addr
	settings
}

// discover returns the names of the zones between whose addresses there is a
// choice, as services without options.
func discover(zones map[string]*zonesource.Zone) []serviceConfig {
	var out []serviceConfig
	for _, z := range zones {
		for owner, n := range z.Names {
			if !z.Signed && n.Ranks() && !reservedName(owner) {
				out = append(out, serviceConfig{name: owner, options: options{answers: 1}})
			}
		}
	}
	slices.SortFunc(out, func(a, b serviceConfig) int { return strings.Compare(a.name, b.name) })
	return out
}

// own adds a name, and the empty ones above it.
func (t *snapshot) own(owner string, n name) {
	for {
		t.names[owner] = n
		if strings.HasPrefix(owner, "*.") {
			t.wildcards[dnsmsg.Parent(owner)] = n
		}
		if owner == n.zone {
			return
		}
		owner = dnsmsg.Parent(owner)
		if _, ok := t.names[owner]; ok {
			return
		}
		n = name{zone: n.zone}
	}
}

// pool returns the pool of a service's servers in one family, nil if it has
// none there.
func (b *builder) pool(conf *config, svc serviceConfig, candidates []candidate, family func(netip.Addr) bool) *pool {
	b.found = b.found[:0]
	b.key = fmt.Appendf(b.key[:0], "%s %d %d ", svc.probe, svc.answers, svc.within)
	for _, c := range candidates {
		if !family(c.addr) {
			continue
		}
		m := b.member(svc, c)
		b.found = append(b.found, m)
		b.key = binary.BigEndian.AppendUint32(b.key, b.ids[m])
	}
	if len(b.found) == 0 {
		return nil
	}
	if same, ok := b.pools[string(b.key)]; ok {
		same.services = append(same.services, svc.name)
		return same
	}
	p := newPool(svc, slices.Clone(b.found), conf.ttlHigh)
	b.pools[string(b.key)] = p
	b.snapshot.pools = append(b.snapshot.pools, p)
	return p
}

func (b *builder) member(svc serviceConfig, c candidate) *member {
	t := latencyprobe.Target{Name: c.label, Addr: c.addr, Probe: svc.probe}
	i, ok := b.targets[t]
	if !ok {
		i = len(b.snapshot.targets)
		b.targets[t] = i
		b.snapshot.targets = append(b.snapshot.targets, t)
		b.overrides.addTarget(c.label, c.addr)
	}
	key := memberKey{i, c.settings, b.overrides.of(svc.name, i)}
	m, ok := b.members[key]
	if !ok {
		m = &member{i, c.label, c.addr, resolver.Hash(c.addr.String()), key.settings, key.override}
		m.drain = m.drain || m.override.verb == verbDrain
		b.members[key] = m
		b.ids[m] = uint32(len(b.ids)) // #nosec G115 -- as many as there are servers
	}
	return m
}

// lookup finds qname, by wildcard where the name itself does not exist
// (RFC 4592). A name that does not exist has the zone alone, one outside of the
// zones not even that.
func (t *snapshot) lookup(qname string) (n name, exists bool) {
	if n, ok := t.names[qname]; ok {
		return n, true
	}
	for parent := qname; parent != "."; {
		parent = dnsmsg.Parent(parent)
		encloser, ok := t.names[parent]
		if !ok {
			continue
		}
		if wildcard, ok := t.wildcards[parent]; ok {
			return wildcard, true
		}
		return name{zone: encloser.zone}, false
	}
	return name{}, false
}
