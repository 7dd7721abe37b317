package dnslb

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const (
	// viewTime is how long a view is used after it was made: for longer than
	// referralTime, since resolvers ask the deputy for that long after the first node
	// has died; and what was measured some minutes ago at the right place is nearer to
	// the truth than what is measured now at another one.
	viewTime = 10 * time.Minute
	// referralTime is how long resolvers hold a referral, so that they may still ask a
	// deputy that is in none any more.
	referralTime = 5 * time.Minute
	// trustTime is how long the first node is believed that a server is down: while it
	// lives until its next view is here, even if the news of that is lost.
	trustTime = 2 * time.Minute
	// publishEvery is how often a view is published at least, so that a deputy
	// that was started anew has it soon: until then it answers by its own measurements.
	publishEvery = 20 * time.Second
	// publishPause is the least time between two views: a decision round, less
	// what its timer may be early by.
	publishPause = ranking.Round - 500*time.Millisecond
	// material is the least change of an estimate for which a view is published,
	// in milliseconds: as much as moves a ranking.
	material = 1
	// maxViews is how many nodes one can stand in for. Each view costs a ranking of
	// every pool.
	maxViews = 32
)

// sharing is the traffic of views between nodes: it publishes that of this node,
// tells the deputies, and pulls those of the nodes that name this one.
type sharing struct {
	find      func(ctx context.Context, node string) (peer, error) // what DNS-B knows
	targets   func() []latencyprobe.Target                         // what is measured here
	published atomic.Pointer[view]                                 // nil: none yet
	using     atomic.Pointer[viewSet]
	refused   atomic.Pointer[RefusedView] // the last one; nil: none

	ctx    context.Context // the lifetime of its goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	conf      config
	near      string // digest of the prefixes that conf registers
	notifiers map[string]*notifier
	pulls     map[string]*pull
	watchers  map[chan struct{}]bool
	reminded  time.Time // when a refusal was last logged
	closed    bool
}

// viewSet is what is used of the views of other nodes. It is immutable.
type viewSet struct {
	places *places
	views  []*view // by place; nil where there is none
}

func newSharing(find func(context.Context, string) (peer, error), targets func() []latencyprobe.Target) *sharing {
	s := &sharing{
		find: find, targets: targets,
		notifiers: make(map[string]*notifier), pulls: make(map[string]*pull), watchers: make(map[chan struct{}]bool),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.using.Store(new(viewSet))
	return s
}

// set makes conf what is shared with whom.
func (s *sharing) set(conf config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.conf, s.near = conf, digest(conf.near)
	if len(conf.deputies) == 0 {
		s.published.Store(nil) // nobody is to go on by it
	}
	if conf.viewKey.Name == "" {
		for _, p := range s.pulls {
			p.cancel()
		}
		clear(s.pulls)
	}
	for node, n := range s.notifiers {
		if !slices.Contains(conf.deputies, node) {
			n.cancel()
			delete(s.notifiers, node)
		}
	}
	for _, node := range conf.deputies {
		if s.notifiers[node] == nil {
			n := newNotifier(s, node)
			s.notifiers[node] = n
			s.wg.Go(n.run)
		}
	}
	s.use(true)
}

func (s *sharing) config() config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conf
}

// close ends all goroutines.
func (s *sharing) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// watch returns a channel that is written to, coalesced, when other views are
// used, and what ends that.
func (s *sharing) watch() (changed <-chan struct{}, forget func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[ch] = true
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, ch)
	}
}

// use makes the set of views from those that were pulled. The places are made
// anew only if there are others. The lock must be held.
func (s *sharing) use(moved bool) {
	next := &viewSet{places: s.using.Load().places, views: make([]*view, 1)}
	claims := []prefixClaim{{here, s.conf.near}}
	var former []prefixClaim // behind those of now
	for _, p := range slices.SortedFunc(maps.Values(s.pulls), func(a, b *pull) int { return a.place - b.place }) {
		if p.view == nil {
			continue
		}
		for len(next.views) <= p.place {
			next.views = append(next.views, nil)
		}
		next.views[p.place] = p.view
		claims = append(claims, prefixClaim{p.place, p.prefixes})
		for _, f := range p.former {
			former = append(former, prefixClaim{p.place, f.prefixes})
		}
	}
	if moved && len(claims) == 1 && len(s.conf.near) == 0 {
		next.places = nil // nobody belongs anywhere
	} else if moved {
		next.places = newPlaces(append(claims, former...))
	}
	s.using.Store(next)
	for ch := range s.watchers {
		wake(ch)
	}
}

// notified takes the news that a node has a view. It reports whether this is
// one that can be pulled.
func (s *sharing) notified(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if p, ok := s.pulls[node]; ok {
		wake(p.woken)
		return true
	}
	if len(s.pulls) == maxViews {
		return false
	}
	p := newPull(s, node, s.freePlace())
	s.pulls[node] = p
	s.wg.Go(p.run)
	return true
}

// refuse notes that the news of a view was signed otherwise than by the view key.
// Who sends it can be anybody, so few lines are logged.
func (s *sharing) refuse(node, from, why string) {
	now := time.Now()
	s.refused.Store(&RefusedView{Node: node, From: from, At: now, Why: why})
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reminded.IsZero() && now.Sub(s.reminded) < reminder.Interval {
		return
	}
	s.reminded = now
	log.Warningf("%s: refused the news of measurements of %s from %s, %s: its resolvers are answered by own measurements", s.conf.Node, node, from, why)
}

// deputies returns how the deputies stand, best first.
func (s *sharing) deputies() []DeputyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []DeputyState{}
	for _, node := range s.conf.deputies {
		if n := s.notifiers[node]; n != nil {
			out = append(out, *n.state.Load())
		}
	}
	return out
}

// freePlace returns the lowest place that no view has.
func (s *sharing) freePlace() int {
	taken := make(map[int]bool)
	for p := range maps.Values(s.pulls) {
		taken[p.place] = true
	}
	place := here + 1
	for taken[place] {
		place++
	}
	return place
}

// findings are what a node has to share.
type findings struct {
	targets  []latencyprobe.Target
	known    []latencyprobe.Status                         // by target, what they are ranked by
	status   func(latencyprobe.Target) latencyprobe.Status // of this moment
	pools    []*pool
	switched bool // a pool answers other servers than in the view before
}

// publish makes a view of the findings if they tell something new, and reports
// whether it did.
func (s *sharing) publish(now time.Time, f findings) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	old := s.published.Load()
	if old != nil && now.Sub(old.made) < publishPause {
		return false
	}
	if old != nil && now.Sub(old.made) < publishEvery && old.near == s.near && slices.Equal(old.deputies, s.conf.deputies) && !f.switched && !old.differs(f.targets, f.known) {
		return false
	}
	v := &view{
		node: s.conf.Node, made: now, near: s.near, deputies: s.conf.deputies,
		serial:  uint32(now.Unix()), // #nosec G115 -- serial arithmetic (RFC 1982)
		targets: make(map[viewTarget]seenThere, len(f.targets)),
		ranked:  make(map[viewService]rankedThere, len(f.pools)),
	}
	if old != nil && int32(v.serial-old.serial) <= 0 { // #nosec G115 -- serial arithmetic (RFC 1982)
		v.serial = old.serial + 1
	}
	for _, t := range f.targets {
		st := f.status(t)
		v.targets[viewTarget{t.Addr, t.Probe}] = seenThere{t.Name, st.Estimate, st.LastAt, st.State}
	}
	for _, p := range f.pools {
		v.ranked[viewService{p.services[0], p.members[0].addr.Is4()}] = p.rankedThere()
	}
	s.published.Store(v)
	for _, n := range s.notifiers {
		wake(n.woken)
	}
	return true
}

// wake tells whoever reads from a channel of capacity 1, once.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// differs reports whether what is known differs enough from the view to tell.
func (v *view) differs(targets []latencyprobe.Target, known []latencyprobe.Status) bool {
	for i, t := range targets {
		old, ok := v.targets[viewTarget{t.Addr, t.Probe}]
		e := known[i].Estimate
		if !ok || old.state != known[i].State || old.estimate.Measured() != e.Measured() ||
			math.Abs(e.Value-old.estimate.Value) > max(material, e.Noise) {
			return true
		}
	}
	return len(v.targets) > len(targets)
}
