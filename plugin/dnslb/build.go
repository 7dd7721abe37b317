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
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// build makes a snapshot of the servers and services of an inventory and of the
// zones of backend plugins, under active overrides. Until something is measured
// the configured order is the answer.
func build(conf *config, i inventory, zones map[string]*zonesource.Zone, active []serverOverride) *snapshot {
	b := newBuilder(conf, i, zones, active)
	b.addZones()
	b.addServices()
	b.indexTargets()
	b.snap.countServed()
	b.snap.inForce, b.snap.idle = b.overrides.effects()
	return b.snap
}

// builder makes one snapshot.
type builder struct {
	conf      *config
	inventory inventory
	snap      *snapshot

	pools     map[string]*pool // by members and options
	options   map[options]*options
	targets   map[latencyprobe.Target]int
	members   map[memberKey]*member
	ids       map[*member]uint32
	byAddr    map[netip.Addr]string // labels of servers; of several the first
	overrides overrideIndex

	// Scratch space, for one pool after the other:
	candidates []candidate
	found      []*member
	key        []byte
}

type memberKey struct {
	target int
	settings
	override memberOverride
}

// candidate is an address that a service may have.
type candidate struct {
	label string
	addr  netip.Addr
	settings
}

func newBuilder(conf *config, i inventory, zones map[string]*zonesource.Zone, active []serverOverride) *builder {
	b := &builder{
		conf:      conf,
		inventory: i,
		snap: &snapshot{
			names:     make(map[string]name, len(i.services)+len(conf.Zones)),
			wildcards: make(map[string]name),
			zones:     zones,
			soas:      make(map[string]*dns.SOA),
			overrides: active,
			counts:    make(map[string]*serviceCounters),
			labels:    [2]string{conf.Zones[0], conf.Node},
		},
		pools:     make(map[string]*pool),
		options:   make(map[options]*options),
		targets:   make(map[latencyprobe.Target]int),
		members:   make(map[memberKey]*member),
		ids:       make(map[*member]uint32),
		byAddr:    make(map[netip.Addr]string),
		overrides: newOverrideIndex(active),
	}
	for _, label := range slices.Backward(slices.Sorted(maps.Keys(i.servers))) {
		for _, addr := range i.servers[label].addrs {
			b.byAddr[addr] = label
		}
	}
	return b
}

// addZones adds the zones of the server block, and the names that backend plugins
// have in them.
func (b *builder) addZones() {
	for _, zone := range b.conf.Zones {
		b.snap.counts[zone] = newServiceCounters(zone, b.conf.Node)
		b.snap.soas[zone] = newSOA(zone, b.conf.loaded)
		b.addName(zone, name{zone: zone})
	}
	for _, zone := range b.conf.Zones {
		// Between the apexes of two zones there are empty names.
		if parent := b.zoneOf(dnsmsg.Parent(zone)); parent != "" {
			b.addName(dnsmsg.Parent(zone), name{zone: parent})
		}
	}
	for zone, z := range b.snap.zones {
		b.snap.soas[zone] = z.SOA
		for owner, n := range z.Names {
			b.addName(owner, name{zone: zone, types: n.Types})
		}
	}
}

// zoneOf returns the zone that a name is in.
func (b *builder) zoneOf(owner string) string { return plugin.Zones(b.conf.Zones).Matches(owner) }

// addName adds a name, and the empty names between it and its zone.
func (b *builder) addName(owner string, n name) {
	for {
		b.snap.names[owner] = n
		if strings.HasPrefix(owner, "*.") {
			b.snap.wildcards[dnsmsg.Parent(owner)] = n
		}
		if owner == n.zone {
			return
		}
		owner = dnsmsg.Parent(owner)
		if _, ok := b.snap.names[owner]; ok {
			return
		}
		n = name{zone: n.zone}
	}
}

// addServices adds the services of the inventory or, if it has none, those that
// the zones have.
func (b *builder) addServices() {
	services := b.inventory.services
	if len(services) == 0 {
		services = servicesOf(b.snap.zones)
	}
	b.snap.services = len(services)
	names := make([]string, len(services)) // most pools have one of these, and need no slice of their own
	all := make([]service, len(services))
	for i, svc := range services {
		zone := b.zoneOf(svc.name)
		if b.snap.signed(zone) {
			continue
		}
		b.findCandidates(svc, zone)
		s := &all[i]
		s.name, s.counts = svc.name, b.snap.counts[zone]
		names[i] = svc.name
		s.a = b.pool(svc, names[i:i+1:i+1], netip.Addr.Is4)
		s.aaaa = b.pool(svc, names[i:i+1:i+1], netip.Addr.Is6)
		if s.a != nil || s.aaaa != nil {
			b.addName(svc.name, name{zone: zone, service: s, types: b.snap.names[svc.name].types})
		}
	}
}

// servicesOf returns the names with several addresses in zones as services
// without options.
func servicesOf(zones map[string]*zonesource.Zone) []serviceConfig {
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

// findCandidates finds the addresses of the servers of a service, or those that
// the zone has at its name if the service names no server.
func (b *builder) findCandidates(svc serviceConfig, zone string) {
	b.candidates = b.candidates[:0]
	for _, label := range svc.servers {
		server := b.inventory.servers[label.Value()]
		for _, addr := range server.addrs {
			b.candidates = append(b.candidates, candidate{label.Value(), addr, server.settings})
		}
	}
	if svc.servers != nil {
		return
	}
	addrs := b.snap.zones[zone].Addresses(svc.name)
	if len(addrs) > ranking.MaxServers {
		b.snap.crowded = append(b.snap.crowded, svc.name)
		addrs = addrs[:ranking.MaxServers]
	}
	for _, addr := range addrs {
		c := candidate{addr.String(), addr, plain}
		if label, ok := b.byAddr[addr]; ok {
			c.label, c.settings = label, b.inventory.servers[label].settings
		}
		b.candidates = append(b.candidates, c)
	}
}

// pool returns the pool of the candidates in one family, nil if there are none.
func (b *builder) pool(svc serviceConfig, name []string, family func(netip.Addr) bool) *pool {
	b.found = b.found[:0]
	b.key = fmt.Appendf(b.key[:0], "%s %d %d ", svc.probe, svc.answers, svc.within)
	for _, c := range b.candidates {
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
	p := newPool(b.optionsOf(svc), slices.Clone(b.found), b.conf.ttlHigh)
	p.services = name
	b.pools[string(b.key)] = p
	p.recorded = len(b.snap.pools) < maxPasts
	b.snap.pools = append(b.snap.pools, p)
	return p
}

// optionsOf returns the options of a service: the same for all that have equal ones.
func (b *builder) optionsOf(svc serviceConfig) *options {
	o, ok := b.options[svc.options]
	if !ok {
		o = new(options)
		*o = svc.options
		b.options[svc.options] = o
	}
	return o
}

func (b *builder) member(svc serviceConfig, c candidate) *member {
	t := latencyprobe.Target{Name: c.label, Addr: c.addr, Probe: svc.probe}
	i, ok := b.targets[t]
	if !ok {
		i = len(b.snap.targets)
		b.targets[t] = i
		b.snap.targets = append(b.snap.targets, t)
		b.overrides.addTarget(c.label, c.addr)
	}
	key := memberKey{i, c.settings, b.overrides.of(svc.name, i)}
	m, ok := b.members[key]
	if !ok {
		m = &member{i, c.label, c.addr, resolver.Hash(c.addr.String()), key.settings, key.override, nil}
		m.drain = m.drain || m.override.verb == serveroverride.Drain
		b.members[key] = m
		b.ids[m] = uint32(len(b.ids)) // #nosec G115 -- as many as there are servers
	}
	return m
}

// indexTargets finds the pools of each target.
func (b *builder) indexTargets() {
	b.snap.observed.status = make([]latencyprobe.Status, len(b.snap.targets))
	counts := make([]int, len(b.snap.targets))
	for _, p := range b.snap.pools {
		for _, m := range p.members {
			counts[m.target]++
		}
	}
	b.snap.byTarget = make([][]uint32, len(b.snap.targets))
	for i, n := range counts {
		b.snap.byTarget[i] = make([]uint32, 0, n)
	}
	for i, p := range b.snap.pools {
		for _, m := range p.members {
			b.snap.byTarget[m.target] = append(b.snap.byTarget[m.target], uint32(i)) // #nosec G115 -- an index of pools
		}
	}
}
