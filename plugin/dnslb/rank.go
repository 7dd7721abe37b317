package dnslb

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// firstRound is how long the first round of measurement may take. After that,
// this server is ready with what it has measured.
const firstRound = 10 * time.Second

// ranker ranks the pools of one instance. It belongs to one goroutine, but for
// what blockState.mu guards.
type ranker struct {
	instance *DNSLB // whose snapshots these are
	conf     *config
	block    *blockState
	watch    measurements
	isolated func() bool               // this machine's own network seems gone
	inUse    *atomic.Pointer[snapshot] // the snapshot that queries read
	ready    *atomic.Bool

	snapshot       *snapshot
	index          map[latencyprobe.Target]int // of the targets of the snapshot
	observed       observations                // as this node sees the targets of the snapshot
	health         uint64                      // changes with the health of the targets
	pass           uint32                      // numbers the passes over pools
	unprobed       int                         // targets that were never probed
	sites          siteRanker
	serversChanged bool // a pool answers other servers than the last view says
}

// measurements are a latencyprobe.Watch. What Changed tells is ranked
// immediately.
type measurements interface {
	Set(targets []latencyprobe.Target)
	Status(target latencyprobe.Target) latencyprobe.Status
	Changed() <-chan struct{}
	Changes() []latencyprobe.Target
	Close()
}

var _ measurements = (*latencyprobe.Watch)(nil)

// observations are the health and latency of the targets of a snapshot, as this
// node or as a principal measured them. The ranking goroutine changes them, under
// blockState.mu.
type observations struct {
	status          []latencyprobe.Status  // by target
	downAtPrincipal []bool                 // by target: it counts as down because the principal says so; nil: none
	heldAreUp       bool                   // targets that are held down count as up
	peerRankings    map[*pool]*peerRanking // by the principal; nil: not known
	carried         *carryOver             // nil: the probes of all targets are the same as before
}

func newRanker(d *DNSLB, watch measurements) *ranker {
	return &ranker{
		instance: d, conf: &d.config, block: d.state, watch: watch,
		isolated: d.probe.Isolated, inUse: &d.snapshot, ready: &d.ready,
	}
}

// load takes over the rankings of the previous instance and makes the first snapshot.
func (d *DNSLB) load(watch measurements) *ranker {
	r := newRanker(d, watch)
	d.sources.fromDNSBs = d.state.overrides.Overrides
	d.sources.resume(d.state.youngest())
	r.setSnapshot(d.sources.snapshot())
	return r
}

// start makes the first snapshot and begins to rank.
func (d *DNSLB) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	d.stop = func() { cancel(); <-done }

	d.watch = d.probe.Watch()
	fetched, unsubscribe := d.state.overrides.Subscribe() // before they are read: none is missed
	r := d.load(d.watch)
	if d.state.registrar.Configured() && d.sources.loaded() {
		// The previous instance has measured: a reload must not wait again.
		d.ready.Store(true)
		d.configureBlock()
	}

	snapshots := make(chan *snapshot)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		defer unsubscribe()
		d.sources.follow(ctx, snapshots, fetched, d.pollRegistration)
	}()
	go func() {
		defer close(done)
		defer d.watch.Close()
		defer savings.set(d, 0)
		defer d.state.removeSnapshot(d)
		r.run(ctx, snapshots, d.sources.loaded, d.configureBlock)
		<-followed
	}()
}

// run ranks once a decision round, and immediately when the health of a server
// changes or there is another snapshot or view. Rounds begin at a random time: nodes
// that measure the same change do not move all clients in the same second. When
// this server becomes ready, and when it registers something else then, it calls
// configure.
func (r *ranker) run(ctx context.Context, snapshots <-chan *snapshot, loaded func() bool, configure func()) {
	round := time.NewTimer(rand.N(ranking.Round)) // #nosec G404 -- phase
	defer round.Stop()
	deadline := time.After(firstRound)
	views, unsubscribe := r.block.sharing.Subscribe()
	defer unsubscribe()
	expired, always := false, make(chan struct{})
	close(always)
	for {
		allEstimates, more := false, always
		if r.sites.job == nil {
			more = nil
		}
		select {
		case <-more:
			r.continueSites(siteSlice)
			continue
		case <-ctx.Done():
			return
		case t := <-snapshots:
			before := r.snapshot.nodesBesideServers()
			r.setSnapshot(t)
			if r.ready.Load() && !slices.EqualFunc(before, t.nodesBesideServers(), slices.Equal[[]string]) {
				configure()
			}
		case <-round.C:
			round.Reset(ranking.Round)
			allEstimates = true
		case <-r.watch.Changed():
		case <-views:
		case <-deadline:
			expired = true
		}
		if !r.isolated() { // while isolated, keep the last ranking
			r.rank(allEstimates)
			if allEstimates {
				r.recordRound(time.Now())
			}
			views := r.block.views()
			r.rankForPrincipals(views)
			r.planSites(views, time.Now())
			r.publish()
		}
		// A node registers when it has measured: DNS-B will send it resolvers.
		if (r.unprobed == 0 || expired) && loaded() && !r.ready.Swap(true) {
			r.logFirstServers()
			configure()
		}
	}
}

// setSnapshot makes t the snapshot: it ranks t by the current measurements first,
// so that queries never read a snapshot without rankings.
func (r *ranker) setSnapshot(t *snapshot) {
	savings.set(r.instance, t.services)
	previous := r.block.setSnapshot(t, r.instance)
	r.watch.Set(t.targets)
	r.snapshot, r.serversChanged = t, true
	r.index = make(map[latencyprobe.Target]int, len(t.targets))
	for i, target := range t.targets { // needs no lock: no query reads the snapshot yet
		r.index[target] = i
		t.observed.status[i] = r.watch.Status(target)
	}
	if previous != nil {
		r.block.mu.Lock()
		t.observed.carryOver(t, previous)
		r.block.mu.Unlock()
	}
	r.observed, r.unprobed = t.observed, 0
	for i := range r.observed.status {
		if !r.observed.status[i].Probed {
			r.unprobed++
		}
	}
	r.rankPools(t.pools)
	views := r.block.views()
	r.rankForPrincipals(views)
	r.rankSites(views, time.Now())
	r.inUse.Store(t)
}

// rank brings answers up to date with what was measured: those of all pools with
// a server whose health has changed, and with allEstimates those with a server
// whose estimate has.
func (r *ranker) rank(allEstimates bool) {
	changes := r.watch.Changes() // before any status is read: none is missed
	if c := r.observed.carried; c != nil && c.ended(r.snapshot, r.watch) {
		r.block.mu.Lock()
		r.observed.carried, r.snapshot.observed.carried = nil, nil // the latter for the next snapshot
		r.block.mu.Unlock()
		allEstimates = true
	}
	r.pass++
	var dirty []*pool
	if allEstimates {
		dirty = make([]*pool, 0, len(r.snapshot.pools)) // most of them
		for i := range r.snapshot.targets {
			dirty = r.observe(i, true, dirty)
		}
	} else {
		for _, target := range changes {
			if i, ok := r.index[target]; ok {
				dirty = r.observe(i, false, dirty)
			}
		}
	}
	r.rankPools(dirty)
}

// observe makes what was measured of a target what is observed, if its health has
// changed or, withEstimate, its estimate. It appends the pools to be ranked.
func (r *ranker) observe(i int, withEstimate bool, dirty []*pool) []*pool {
	now, old := r.observed.carried.apply(i, r.watch.Status(r.snapshot.targets[i])), &r.observed.status[i]
	if now.State == old.State && now.Held == old.Held && now.Failing == old.Failing && now.Probed == old.Probed && (!withEstimate || now.Estimate == old.Estimate) {
		return dirty
	}
	if now.State != old.State || now.Held != old.Held || now.Failing != old.Failing {
		r.health++
	}
	switch {
	case now.Probed && !old.Probed:
		r.unprobed--
	case old.Probed && !now.Probed:
		r.unprobed++
	}
	r.block.mu.Lock()
	*old = now
	r.block.mu.Unlock()
	for p := range r.snapshot.poolsOf(i) {
		if p.lastPass != r.pass {
			p.lastPass = r.pass
			dirty = append(dirty, p)
		}
	}
	return dirty
}

func (r *ranker) rankPools(pools []*pool) {
	var switched []poolSwitch
	for _, p := range pools {
		r.block.mu.Lock()
		next, event := r.rankPool(p, &p.state, p.effective(&r.observed))
		if old := p.answer.Load(); !next.equal(old) {
			r.serversChanged = r.serversChanged || !next.sameServers(old)
			p.answer.Store(next)
		}
		if event != nil && event.cause != ranking.First {
			p.pastOf().addSwitch(event)
		}
		r.block.mu.Unlock()
		r.refreshSites(p, peerview.Own)
		if event != nil {
			switched = append(switched, poolSwitch{p, event})
		}
	}
	r.logSwitches(switched, r.conf.Node)
}

// rankPool decides how a pool is ranked from one point of view and makes that its
// rank state. It returns the answer, and the switch, nil if there was none. The
// lock of the block state is held.
func (r *ranker) rankPool(p *pool, s *rankState, o *observations) (*answer, *switchEvent) {
	decided := p.decide(s, o)
	event := p.switchEvent(s, decided, o)
	s.apply(decided, event)
	ttl := func(member int) uint32 {
		if s := &o.status[p.members[member].target]; decided.allDown || s.Failing || s.Held {
			return r.conf.ttlLow
		}
		return r.conf.ttlHigh
	}
	return p.newAnswer(decided.order, decided.tied, ttl, decided.allDown), event
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
