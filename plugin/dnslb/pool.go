package dnslb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// pool is a set of servers in one address family, with one ranking, for all
// services that have exactly this set and the same options.
type pool struct {
	key      string
	members  []member // in configured order
	options  options
	services []string // names, for the log
	ranker   *ranking.Ranker
	order    []int // of members, best first, as last ranked; owned by the ranking goroutine
	answer   atomic.Pointer[answer]
}

// member is one address of a server in a pool.
type member struct {
	target int // index of DNSLB.targets
	addr   netip.Addr
	hash   uint64
	serverConfig
}

// buildPools makes the tables that queries read from the configuration. Until
// something is measured the configured order is the answer.
func (d *DNSLB) buildPools() {
	d.names = make(map[string]name, len(d.services)+len(d.Zones))
	for _, zone := range d.Zones {
		d.names[zone] = name{zone: zone}
	}
	pools := make(map[string]*pool)
	targets := make(map[latencyprobe.Target]int)
	for _, conf := range d.config.services {
		svc := &service{name: conf.name}
		svc.a = d.pool(pools, targets, conf, netip.Addr.Is4)
		svc.aaaa = d.pool(pools, targets, conf, netip.Addr.Is6)
		d.own(name{plugin.Zones(d.Zones).Matches(conf.name), svc})
	}
}

// own adds the name of a service and the empty ones above it.
func (d *DNSLB) own(n name) {
	d.names[n.service.name] = n
	for owner := n.service.name; owner != n.zone; {
		owner = above(owner)
		if _, ok := d.names[owner]; ok {
			return
		}
		d.names[owner] = name{zone: n.zone}
	}
}

// pool returns the pool of a service's servers in one family, nil if it has
// none there.
func (d *DNSLB) pool(pools map[string]*pool, targets map[latencyprobe.Target]int, conf serviceConfig, family func(netip.Addr) bool) *pool {
	p := &pool{options: conf.options, services: []string{conf.name}}
	keys := []string{fmt.Sprint(conf.options)}
	for _, server := range conf.servers {
		for _, addr := range d.servers[server].addrs {
			if !family(addr) {
				continue
			}
			t := latencyprobe.Target{Name: server, Addr: addr, Probe: conf.probe}
			i, ok := targets[t]
			if !ok {
				i = len(d.targets)
				targets[t] = i
				d.targets = append(d.targets, t)
			}
			p.members = append(p.members, member{i, addr, resolver.Hash(addr.String()), d.servers[server]})
			keys = append(keys, server+"/"+addr.String())
		}
	}
	if len(p.members) == 0 {
		return nil
	}
	p.key = strings.Join(keys, " ")
	if same, ok := pools[p.key]; ok {
		same.services = append(same.services, conf.name)
		return same
	}
	p.order = p.inOrder()
	p.answer.Store(p.makeAnswer(p.order, nil, d.ttlHigh, false))
	pools[p.key] = p
	d.pools = append(d.pools, p)
	return p
}

// inOrder returns the members by tier and as configured, those that are
// drained last.
func (p *pool) inOrder() []int {
	order := make([]int, len(p.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := p.members[a], p.members[b]
		switch {
		case x.drain != y.drain && y.drain:
			return -1
		case x.drain != y.drain:
			return 1
		}
		return x.tier - y.tier
	})
	return order
}

// keys names the members for the ranker.
func (p *pool) keys() []string {
	keys := make([]string, len(p.members))
	for i, m := range p.members {
		keys[i] = m.addr.String()
	}
	return keys
}

// family is the type of record that the pool answers.
func (p *pool) family() string {
	if p.members[0].addr.Is4() {
		return "A"
	}
	return "AAAA"
}

// String names the services of the pool.
func (p *pool) String() string {
	if n := len(p.services); n > 1 {
		return fmt.Sprintf("%s and %d more services, %s", p.services[0], n-1, p.family())
	}
	return p.services[0] + " " + p.family()
}

// answer is what a pool answers now. It is immutable.
type answer struct {
	addrs   []netip.Addr // best first
	near    []choice     // of them, those that count as equally fast; nil: the order decides
	count   int          // how many addresses to answer
	ttl     uint32       // seconds
	allDown bool         // no server is up: addrs is the last ranking
}

type choice struct {
	addr   netip.Addr
	hash   uint64
	weight float64
}

// makeAnswer returns the answer of a ranking, of which the near members count
// as equally fast.
func (p *pool) makeAnswer(order, near []int, ttl uint32, allDown bool) *answer {
	a := &answer{count: p.options.answers, ttl: ttl, allDown: allDown}
	for _, i := range order {
		a.addrs = append(a.addrs, p.members[i].addr)
	}
	if len(near) < 2 || allDown {
		a.addrs = a.addrs[:min(a.count, len(a.addrs))]
		return a
	}
	for _, i := range near {
		m := p.members[i]
		a.near = append(a.near, choice{m.addr, m.hash, float64(m.weight)})
	}
	return a
}

// pick returns the addresses for a resolver. Among equally fast servers it
// chooses by weighted rendezvous hashing (the highest of -w/ln u) of the
// resolver's site: a site keeps its server, and one that comes or goes moves no
// sites between the others.
func (a *answer) pick(site func() uint64) []netip.Addr {
	if a.near == nil {
		return a.addrs
	}
	seed := site()
	best, most := 0, math.Inf(-1)
	for i, c := range a.near {
		// A number in (0, 1), of the 53 bits that a float64 holds.
		u := (float64(resolver.Mix(seed^c.hash)>>11) + 0.5) / (1 << 53)
		if score := -c.weight / math.Log(u); score > most {
			best, most = i, score
		}
	}
	first := a.near[best].addr
	picked := make([]netip.Addr, 1, a.count)
	picked[0] = first
	for _, addr := range a.addrs {
		if len(picked) == a.count {
			break
		}
		if addr != first {
			picked = append(picked, addr)
		}
	}
	return picked
}
