package dnslb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// firstRound is how long the first full round of measurement may take: after
// that the node is ready with what it has measured.
const firstRound = 10 * time.Second

// start takes over the rankings of the instance before and begins to rank.
func (d *DNSLB) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	d.stop = func() { cancel(); <-done }

	d.generation.Store(generations.Add(1))
	watch := d.probe.Watch()
	watch.Set(d.targets)
	for _, p := range d.pools {
		p.ranker = d.kept.ranker(p.key, p.keys())
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
		// When our own network is gone the ranking of before is the best there is.
		if !d.probe.Isolated() && d.rank(watch) {
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
	for _, p := range d.pools {
		d.rankPool(p, status)
	}
	return complete
}

func (d *DNSLB) rankPool(p *pool, status []latencyprobe.Status) {
	estimates := make([]ranking.Estimate, len(p.members))
	for i, m := range p.members {
		estimates[i] = m.biased(status[m.target].Estimate)
	}
	order, cause := d.kept.decide(p.ranker, estimates, p.eligible(status))

	allDown := len(order) == 0
	if allDown {
		order = p.order
	}
	p.order = order
	ttl := d.ttlHigh
	if allDown || status[p.members[order[0]].target].Failing {
		ttl = d.ttlLow
	}
	next := p.makeAnswer(order, p.near(order, estimates), ttl, allDown)

	old := p.answer.Load()
	if old.ttl == next.ttl && old.allDown == next.allDown && slices.Equal(old.addrs, next.addrs) && slices.Equal(old.near, next.near) {
		return
	}
	p.answer.Store(next)
	d.report(p, old, next, status, cause)
}

// eligible says which members may be chosen: those that are up and not drained,
// of the lowest tier that has one; if there are none, drained ones that are up.
func (p *pool) eligible(status []latencyprobe.Status) []bool {
	eligible := make([]bool, len(p.members))
	for _, drained := range []bool{false, true} {
		tier, found := 0, false
		for _, m := range p.members {
			if status[m.target].State != latencyprobe.Down && m.drain == drained && (!found || m.tier < tier) {
				tier, found = m.tier, true
			}
		}
		if !found {
			continue
		}
		for i, m := range p.members {
			eligible[i] = status[m.target].State != latencyprobe.Down && m.drain == drained && m.tier == tier
		}
		break
	}
	return eligible
}

// biased adds what the operator adds to a server's latency.
func (m member) biased(e ranking.Estimate) ranking.Estimate {
	if e.Measured() {
		e.RTT += milliseconds(m.bias)
		e.Value += milliseconds(m.bias)
	}
	return e
}

// near returns the members that count as equally fast as the first. They are
// in configured order: which one a site gets does not depend on the ranking.
func (p *pool) near(order []int, estimates []ranking.Estimate) []int {
	if p.options.within == 0 || !estimates[order[0]].Measured() {
		return nil
	}
	limit := estimates[order[0]].Value + milliseconds(p.options.within)
	var near []int
	for _, i := range order {
		if e := estimates[i]; e.Measured() && e.Value <= limit {
			near = append(near, i)
		}
	}
	slices.Sort(near)
	return near
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// report tells operators about a changed answer: one line for all services of
// the pool.
func (d *DNSLB) report(p *pool, old, next *answer, status []latencyprobe.Status, cause ranking.Cause) {
	switch {
	case next.allDown && !old.allDown:
		log.Warningf("%s%s: all servers are down", d.prefix(), p)
		switches.WithLabelValues(d.Zones[0], d.Node, "all_down").Inc()
	case old.allDown && !next.allDown:
		switches.WithLabelValues(d.Zones[0], d.Node, string(ranking.Up)).Inc()
		log.Infof("%s%s: no longer all servers are down, first is %s", d.prefix(), p, d.describe(p, next.addrs[0], status))
	case old.addrs[0] != next.addrs[0] && cause != ranking.Unchanged: // unchanged, it was taken over from the instance before
		switches.WithLabelValues(d.Zones[0], d.Node, string(cause)).Inc()
		if cause == ranking.First && !d.Ready() {
			return // one line when all are measured will do
		}
		log.Infof("%s%s: first is now %s, before %s: %s", d.prefix(), p, d.describe(p, next.addrs[0], status), d.describe(p, old.addrs[0], status), cause)
	}
}

func (d *DNSLB) describe(p *pool, addr netip.Addr, status []latencyprobe.Status) string {
	i := slices.IndexFunc(p.members, func(m member) bool { return m.addr == addr })
	target, s := d.targets[p.members[i].target], status[p.members[i].target]
	who := target.Name + " " + addr.String()
	switch {
	case s.State == latencyprobe.Down:
		return fmt.Sprintf("%s (down: %s)", who, s.Reason)
	case !s.Estimate.Measured():
		return who + " (not measured yet)"
	}
	return fmt.Sprintf("%s (%.1f ms)", who, s.Estimate.Value)
}
