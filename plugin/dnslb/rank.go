package dnslb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// firstRound is how long the first full round of measurement may take: after
// that the node is ready with what it has measured.
const firstRound = 10 * time.Second

// pool is a set of servers in one address family, with one ranking, for all
// services that have exactly this set, probe and number of answers.
type pool struct {
	key      string
	targets  []int // indexes of DNSLB.targets, in configured order
	answers  int
	services []string // names, for the log
	ranker   *ranking.Ranker
	order    []int // of targets, best first, as last ranked; owned by the ranking goroutine
	answer   atomic.Pointer[answer]
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

func (d *DNSLB) pool(pools map[string]*pool, targets map[latencyprobe.Target]int, conf serviceConfig, family func(netip.Addr) bool) *pool {
	p := &pool{answers: conf.answers}
	var addrs []netip.Addr
	keys := []string{conf.probe, fmt.Sprint(conf.answers)}
	for _, server := range conf.servers {
		for _, addr := range d.servers[server] {
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
			p.targets = append(p.targets, i)
			addrs = append(addrs, addr)
			keys = append(keys, server+"/"+addr.String())
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	p.key = strings.Join(keys, " ")
	if same, ok := pools[p.key]; ok {
		same.services = append(same.services, conf.name)
		return same
	}
	p.services = []string{conf.name}
	p.answer.Store(&answer{addrs: addrs[:min(p.answers, len(addrs))], ttl: d.ttlHigh})
	pools[p.key] = p
	d.pools = append(d.pools, p)
	return p
}

func (p *pool) family() string {
	if p.answer.Load().addrs[0].Is4() {
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

// start takes over the rankings of the instance before and begins to rank.
func (d *DNSLB) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	d.stop = func() { cancel(); <-done }

	d.generation.Store(generations.Add(1))
	watch := d.probe.Watch()
	watch.Set(d.targets)
	for _, p := range d.pools {
		p.ranker = d.kept.ranker(p.key, d.keysOf(p))
	}
	d.rank(watch)
	if d.kept.registered() {
		// The instance before has measured: a reload must not wait again.
		d.ready.Store(true)
		d.register()
	}

	go func() {
		defer close(done)
		defer watch.Close()
		d.rankLoop(ctx, watch)
	}()
}

func (d *DNSLB) keysOf(p *pool) []string {
	keys := make([]string, len(p.targets))
	for i, t := range p.targets {
		keys[i] = d.targets[t].Addr.String()
	}
	return keys
}

// rankLoop ranks once a decision round, and at once when a server's health
// changes.
func (d *DNSLB) rankLoop(ctx context.Context, watch *latencyprobe.Watch) {
	round := time.NewTicker(ranking.Round)
	defer round.Stop()
	deadline := time.After(firstRound)
	for {
		select {
		case <-ctx.Done():
			return
		case <-round.C:
		case <-watch.Changed():
		case <-deadline:
			d.becomeReady()
		}
		if d.rank(watch) {
			d.becomeReady()
		}
	}
}

// becomeReady registers the node for the first time: not before it has
// measured, since DNS-B would send it resolvers.
func (d *DNSLB) becomeReady() {
	if d.ready.Swap(true) {
		return
	}
	for _, p := range d.pools {
		log.Infof("%s%s: first is %s", d.prefix(), p, p.answer.Load().addrs[0])
	}
	d.register()
}

func (d *DNSLB) register() { d.kept.register(d.config, d.generation.Load()) }

// prefix names the node in the log, since a process may be several.
func (d *DNSLB) prefix() string {
	if d.Node == "" {
		return ""
	}
	return d.Node + ": "
}

// generations numbers the instances, so that of two that overlap the younger
// one registers.
var generations atomic.Uint64

// reassert registers this instance's configuration again after a younger
// instance failed to start.
func (d *DNSLB) reassert() {
	d.generation.Store(generations.Add(1))
	if d.Ready() {
		d.register()
	}
}

// rank publishes a new answer for each pool whose answer changed and reports
// whether every target was probed at least once.
func (d *DNSLB) rank(watch *latencyprobe.Watch) (complete bool) {
	status := make([]latencyprobe.Status, len(d.targets))
	complete = true
	for i, t := range d.targets {
		status[i] = watch.Status(t)
		complete = complete && status[i].Probed
	}
	// When our own network is gone the ranking of before is the best there is.
	if d.probe.Isolated() {
		return complete
	}
	for _, p := range d.pools {
		d.rankPool(p, status)
	}
	return complete
}

func (d *DNSLB) rankPool(p *pool, status []latencyprobe.Status) {
	estimates := make([]ranking.Estimate, len(p.targets))
	eligible := make([]bool, len(p.targets))
	for i, t := range p.targets {
		estimates[i] = status[t].Estimate
		eligible[i] = status[t].State != latencyprobe.Down
	}
	order, cause := d.kept.decide(p.ranker, estimates, eligible)

	next := &answer{ttl: d.ttlHigh}
	if len(order) == 0 {
		next.allDown = true
		if order = p.order; order == nil { // down since before the start
			order = inOrder(len(p.targets))
		}
	}
	p.order = order
	first := status[p.targets[order[0]]]
	if first.Failing || next.allDown {
		next.ttl = d.ttlLow
	}
	for _, i := range order[:min(p.answers, len(order))] {
		next.addrs = append(next.addrs, d.targets[p.targets[i]].Addr)
	}

	old := p.answer.Load()
	if old.ttl == next.ttl && old.allDown == next.allDown && slices.Equal(old.addrs, next.addrs) {
		return
	}
	p.answer.Store(next)
	d.report(p, old, next, status, cause)
}

// report tells operators about a changed answer: one line for all services of
// the pool.
func (d *DNSLB) report(p *pool, old, next *answer, status []latencyprobe.Status, cause ranking.Cause) {
	switch {
	case next.allDown && !old.allDown:
		log.Warningf("%s%s: all servers are down, answering the last ranking", d.prefix(), p)
		switches.WithLabelValues(d.Zones[0], d.Node, "all_down").Inc()
	case old.allDown && !next.allDown:
		cause = ranking.Up
		fallthrough
	case old.addrs[0] != next.addrs[0] && cause != ranking.Unchanged: // unchanged, it was taken over from the instance before
		switches.WithLabelValues(d.Zones[0], d.Node, string(cause)).Inc()
		if cause == ranking.First && !d.Ready() {
			return // one line when all are measured will do
		}
		log.Infof("%s%s: first is now %s, before %s: %s", d.prefix(), p, d.describe(p, next.addrs[0], status), d.describe(p, old.addrs[0], status), cause)
	}
}

func (d *DNSLB) describe(p *pool, addr netip.Addr, status []latencyprobe.Status) string {
	for _, t := range p.targets {
		target, s := d.targets[t], status[t]
		if target.Addr != addr {
			continue
		}
		switch {
		case s.State == latencyprobe.Down:
			return fmt.Sprintf("%s %s (down: %s)", target.Name, addr, s.Reason)
		case s.Estimate.Round == 0:
			return fmt.Sprintf("%s %s (not measured yet)", target.Name, addr)
		}
		return fmt.Sprintf("%s %s (%.1f ms)", target.Name, addr, s.Estimate.Value)
	}
	return addr.String()
}

func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}
