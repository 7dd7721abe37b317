package dnslb

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// firstRound is how long the first full round of measurement may take: after
// that the node is ready with what it has measured.
const firstRound = 10 * time.Second

// ranker makes the rankings of one instance. It belongs to one goroutine.
type ranker struct {
	*DNSLB
	watch          measurements
	snapshot       *snapshot
	observed       observations // that of the snapshot
	pass           uint64
	allProbed      bool // every target was probed at least once
	serversChanged bool // a pool answers other servers than was shared
}

// measurements are what latencyprobe knows of targets, those that were set. What
// it tells of their health as Changed is to be looked at at once.
type measurements interface {
	Set(targets []latencyprobe.Target)
	Status(target latencyprobe.Target) latencyprobe.Status
	Changed() <-chan struct{}
	Close()
}

// observations is what is known of the targets of a snapshot from one place. The ranking
// goroutine alone changes it, under state.mu.
type observations struct {
	status          []latencyprobe.Status  // by target
	downAtPrincipal []bool                 // counts as down since it is so from the other place; nil: none
	peerRankings    map[*pool]*peerRanking // how members are ranked at the other place; nil: not known
}

// start takes over the rankings of the instance before and begins to rank.
func (d *DNSLB) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	d.stop = func() { cancel(); <-done }

	d.watch = d.probe.Watch()
	r := &ranker{DNSLB: d, watch: d.watch}
	d.sources.resume(d.state.youngest())
	r.setSnapshot(d.sources.snapshot())
	if d.state.registrar.Configured() && d.sources.loaded() {
		// The previous instance has measured: a reload must not wait again.
		d.ready.Store(true)
		d.configureBlock()
	}

	snapshots := make(chan *snapshot)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		d.sources.follow(ctx, snapshots)
	}()
	go func() {
		defer close(done)
		defer r.watch.Close()
		defer r.state.removeSnapshot(d)
		r.run(ctx, snapshots)
		<-followed
	}()
}

// run ranks once a decision round, and at once when a server's health changes or
// there is another snapshot. Rounds begin at a time of this process's own: nodes
// that have measured the same change do not move all clients in one second.
func (r *ranker) run(ctx context.Context, snapshots <-chan *snapshot) {
	round := time.NewTimer(rand.N(ranking.Round)) // #nosec G404 -- phase
	defer round.Stop()
	deadline := time.After(firstRound)
	views, unsubscribe := r.state.sharing.Subscribe()
	defer unsubscribe()
	late := false
	for {
		full := false
		select {
		case <-ctx.Done():
			return
		case t := <-snapshots:
			r.setSnapshot(t)
		case <-round.C:
			round.Reset(ranking.Round)
			full = true
		case <-r.watch.Changed():
		case <-views:
		case <-deadline:
			late = true
		}
		// When our own network is gone the ranking of before is the best there is.
		if !r.probe.Isolated() {
			r.rank(full)
			r.rankForPrincipals()
			r.publish()
		}
		if (r.allProbed || late) && r.sources.loaded() {
			r.becomeReady()
		}
	}
}

// setSnapshot makes t the snapshot: it is ranked by what is known, and then queries see it.
func (r *ranker) setSnapshot(t *snapshot) {
	r.state.setSnapshot(t, r.DNSLB)
	r.watch.Set(t.targets)
	r.snapshot, r.serversChanged = t, true
	r.observed = t.observed // which nobody else has yet
	for i, target := range t.targets {
		r.observed.status[i] = r.watch.Status(target)
	}
	r.rankPools(t.pools)
	r.rankForPrincipals()
	r.DNSLB.snapshot.Store(t)
}

// rank brings the answers up to date with what was measured: of all pools with a
// server whose health changed, and in a full pass of those with another estimate.
func (r *ranker) rank(full bool) {
	r.pass++
	r.allProbed = true
	var dirty []*pool
	for i, target := range r.snapshot.targets {
		now, old := r.watch.Status(target), &r.observed.status[i]
		r.allProbed = r.allProbed && now.Probed
		if now.State == old.State && now.Failing == old.Failing && now.Probed == old.Probed && (!full || now.Estimate == old.Estimate) {
			continue
		}
		r.state.mu.Lock()
		*old = now
		r.state.mu.Unlock()
		for _, p := range r.snapshot.byTarget[i] {
			if p.lastPass != r.pass {
				p.lastPass = r.pass
				dirty = append(dirty, p)
			}
		}
	}
	r.rankPools(dirty)
}

func (r *ranker) rankPools(pools []*pool) {
	var switched []poolSwitch
	for _, p := range pools {
		r.state.mu.Lock()
		next, event := r.rankPool(p, &p.state, &r.observed)
		if old := p.answer.Load(); !next.equal(old) {
			r.serversChanged = r.serversChanged || !next.sameServers(old)
			p.answer.Store(next)
		}
		r.state.mu.Unlock()
		if event != nil {
			switched = append(switched, poolSwitch{p, event})
		}
	}
	r.logSwitches(switched, r.Node)
}

// rankPool decides how a pool is ranked from one point of view and makes that its
// rank state. It returns the answer, and the switch, nil if there was none. The
// lock of the block state must be held.
func (d *DNSLB) rankPool(p *pool, s *rankState, o *observations) (*answer, *switchEvent) {
	decided := p.decide(s, o)
	event := p.switchEvent(s, decided, o)
	s.apply(decided, event)
	ttl := func(member int) uint32 {
		if decided.allDown || o.status[p.members[member].target].Failing {
			return d.ttlLow
		}
		return d.ttlHigh
	}
	return p.newAnswer(decided.order, decided.tied, ttl, decided.allDown), event
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// becomeReady registers the node for the first time: not before it has
// measured, since DNS-B would send it resolvers.
func (d *DNSLB) becomeReady() {
	if d.ready.Swap(true) {
		return
	}
	d.logFirstServers()
	d.configureBlock()
}
