// Package peerview shares what nodes have measured. A node publishes a view for
// its deputies, and as a deputy of others, its principals, it fetches theirs:
// by these it answers the resolvers of a principal as the principal would.
//
// Views travel as DNS zones, by NOTIFY and AXFR over TCP, signed by the plugin
// tsig. Each deputy and each principal has a goroutine of its own, so that one
// that does not answer delays no other.
package peerview

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// pluginName is that of the plugin whose views these are, for logs and metrics.
const pluginName = "dnslb"

var log = clog.NewWithPlugin(pluginName)

const (
	// Lifetime is how long a deputy follows a view after it was made: longer than
	// referralTTL, since resolvers ask the deputy for that long after its
	// principal has died. What the principal measured some minutes ago is closer
	// to the truth for its resolvers than what the deputy measures now.
	Lifetime = 10 * time.Minute
	// referralTTL is how long resolvers hold a referral, and so may ask a deputy
	// that no new referral names: the default of dnsb.
	referralTTL = 5 * time.Minute
	// maxPrincipals bounds the views that a node follows: each costs a ranking of
	// every pool.
	maxPrincipals = 128
)

// Settings are what a Sharing shares with whom.
type Settings struct {
	Node     string                // name of this node
	Cut      string                // absolute, lower case; views are zones below it
	Port     string                // at which all nodes of the cut listen
	Key      dnsclient.Key         // of the plugin tsig; no name: views are not shared
	Deputies []string              // of this node, best first; none: nothing is published
	Prefixes []registration.Prefix // that this node registers: its resolvers while there is no map
	AllNodes bool                  // views are exchanged with all nodes that the map has
}

// publishes reports whether there is somebody who wants the views of this node.
func (s Settings) publishes() bool { return s.AllNodes || len(s.Deputies) > 0 }

// Lookup asks DNS-B for the addresses of a node, as Registrar.Lookup does.
type Lookup func(ctx context.Context, node string) ([]netip.Addr, error)

// Sharing exchanges views with other nodes until it is closed. It outlives
// reloads. Its methods are safe for concurrent use.
type Sharing struct {
	lookup    Lookup
	measured  func() []latencyprobe.Target
	published atomic.Pointer[View] // of this node; nil: none
	current   atomic.Pointer[Set]  // written with mu held
	rejected  atomic.Pointer[Rejection]
	changed   wakeup.Broadcast // another Set is current

	ctx        context.Context // ends its goroutines
	cancel     context.CancelFunc
	goroutines sync.WaitGroup

	mu          sync.Mutex
	settings    Settings
	ownMap      *nodemap.Table // by settings.Prefixes, before there is a map; nil: there are none
	resolvers   *nodemap.Table // the map of DNS-B; nil: there is none
	former      []formerMap    // oldest first
	formerTimer *time.Timer    // ends their use
	notifiers   map[string]*notifier
	fetchers    map[string]*fetcher
	unfollowed  []string // nodes of the map beyond maxPrincipals, sorted
	rejections  reminder.Failure
	closed      bool
}

// formerMap is a previous map. Resolvers may still hold referrals that follow it.
type formerMap struct {
	*nodemap.Table
	until time.Time
}

// maxFormer bounds the former maps, which may be large.
const maxFormer = 2

// New returns a Sharing that does nothing before it is configured. measured
// returns the targets that this node measures.
func New(lookup Lookup, measured func() []latencyprobe.Target) *Sharing {
	s := &Sharing{lookup: lookup, measured: measured, notifiers: make(map[string]*notifier), fetchers: make(map[string]*fetcher)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.current.Store(new(Set))
	s.formerTimer = time.AfterFunc(referralTTL, s.dropFormer)
	s.formerTimer.Stop()
	return s
}

// Configure makes the settings apply.
func (s *Sharing) Configure(settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.settings, s.ownMap = settings, nil
	if len(settings.Prefixes) > 0 {
		s.ownMap = nodemap.NewTable(settings.Node, settings.Prefixes)
	}
	if !settings.publishes() {
		s.published.Store(nil)
	}
	if settings.Key.Name != "" {
		viewPulls.WithLabelValues(settings.Node, "", "unknown") // from 0, so that the first one is an increase
	} else {
		for _, f := range s.fetchers {
			f.cancel()
		}
		clear(s.fetchers)
	}
	for node, n := range s.notifiers {
		if !slices.Contains(settings.Deputies, node) {
			n.cancel()
			delete(s.notifiers, node)
		}
	}
	for _, node := range settings.Deputies {
		if s.notifiers[node] == nil {
			n := newNotifier(s, node)
			s.notifiers[node] = n
			s.goroutines.Go(n.run)
		}
	}
	s.followMap()
	s.update()
}

// Close ends all goroutines.
func (s *Sharing) Close() {
	s.mu.Lock()
	s.closed = true
	s.formerTimer.Stop()
	s.mu.Unlock()
	s.cancel()
	s.goroutines.Wait()
}

// Current returns the views that this node follows as a deputy.
func (s *Sharing) Current() *Set { return s.current.Load() }

// Subscribe returns a channel that is written to when Current has changed, and
// the function that ends the subscription.
func (s *Sharing) Subscribe() (changed <-chan struct{}, unsubscribe func()) {
	return s.changed.Subscribe()
}

func (s *Sharing) currentSettings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// SetMap makes m the map by which resolvers belong to nodes, nil if there is none.
func (s *Sharing) SetMap(m *nodemap.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.resolvers != nil {
		s.former = append(s.former, formerMap{s.resolvers, time.Now().Add(referralTTL)})
		if len(s.former) > maxFormer {
			s.former = slices.Delete(s.former, 1, 2) // not the oldest, which has what was lost first
		}
		s.formerTimer.Reset(time.Until(s.former[0].until))
	}
	s.resolvers = m
	s.followMap()
	s.update()
}

// dropFormer ends the use of former maps in time.
func (s *Sharing) dropFormer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.former = slices.DeleteFunc(s.former, func(f formerMap) bool { return !now.Before(f.until) })
	if len(s.former) > 0 && !s.closed {
		s.formerTimer.Reset(time.Until(s.former[0].until))
	}
	s.update()
}

// update makes the set of the views that the fetchers have. mu must be held.
func (s *Sharing) update() {
	next := &Set{Views: make([]*View, Own+1)}
	slots := map[string]int{s.settings.Node: Own}
	for node, f := range s.fetchers {
		if f.view == nil {
			continue
		}
		for len(next.Views) <= f.slot {
			next.Views = append(next.Views, nil)
		}
		next.Views[f.slot] = f.view
		slots[node] = f.slot
	}
	slot := func(node string) int {
		if slot, ok := slots[node]; ok {
			return slot
		}
		return Outside
	}
	next.now, next.fetched = NewSlots(cmp.Or(s.resolvers, s.ownMap), slot), s.resolvers != nil
	for _, f := range s.former {
		next.former = append(next.former, NewSlots(f.Table, slot))
	}
	s.current.Store(next)
	s.changed.Set()
}

// notified takes the NOTIFY of a node, and reports whether its view is going to
// be fetched.
func (s *Sharing) notified(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if f, ok := s.fetchers[node]; ok {
		f.woken.Set()
		return true
	}
	if len(s.fetchers) == maxPrincipals {
		return false
	}
	s.startFetcher(node)
	return true
}

// startFetcher begins to fetch the views of a node. mu must be held.
func (s *Sharing) startFetcher(node string) *fetcher {
	f := newFetcher(s, node, s.freeSlot())
	s.fetchers[node] = f
	s.goroutines.Go(f.run)
	return f
}

// followMap begins to fetch the views of all other nodes of the map, if they are
// exchanged with all. A fetcher that the map no longer wants ends by itself. mu must
// be held.
func (s *Sharing) followMap() {
	for _, f := range s.fetchers {
		f.wanted.Store(false)
	}
	was := len(s.unfollowed)
	s.unfollowed = nil
	if s.settings.AllNodes && s.resolvers != nil && !s.closed {
		for _, node := range s.resolvers.Names { // sorted: all nodes leave out the same ones
			f := s.fetchers[node]
			switch {
			case node == s.settings.Node:
				continue
			case f == nil && len(s.fetchers) == maxPrincipals:
				s.unfollowed = append(s.unfollowed, node)
				continue
			case f == nil:
				f = s.startFetcher(node)
			}
			f.wanted.Store(true)
		}
	}
	if n := len(s.unfollowed); n > 0 && n != was {
		log.Warningf("Map of %q has more nodes than the %d whose views node %q follows, leaving out %d, such as %q: client subnets near such a node get the answers of the next node that the map names",
			s.settings.Cut, maxPrincipals, s.settings.Node, n, s.unfollowed[0])
	}
}

// Unfollowed returns the nodes of the map whose views are not fetched, as there are
// too many.
func (s *Sharing) Unfollowed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.unfollowed)
}

// freeSlot returns the lowest slot that no principal has.
func (s *Sharing) freeSlot() int {
	taken := make(map[int]bool)
	for _, f := range s.fetchers {
		taken[f.slot] = true
	}
	slot := Own + 1
	for taken[slot] {
		slot++
	}
	return slot
}
