// Package peerview shares what nodes have measured. A node publishes a view for
// its deputies, and as a deputy of others, its principals, it fetches theirs:
// by these it answers the resolvers of a principal as the principal would.
//
// Views travel as DNS zones, by NOTIFY and AXFR over TCP, signed by the plugin
// tsig. Each deputy and each principal has a goroutine of its own, so that one
// that does not answer delays no other.
package peerview

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
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
	// maxPrincipals bounds the rankings of a deputy: each principal costs one of
	// every pool.
	maxPrincipals = 32
)

// Settings are what a Sharing shares with whom.
type Settings struct {
	Node     string                // name of this node
	Cut      string                // absolute, lower case; views are zones below it
	Port     string                // at which all nodes of the cut listen
	Key      dnsclient.Key         // of the plugin tsig; no name: views are not shared
	Deputies []string              // of this node, best first; none: nothing is published
	Prefixes []registration.Prefix // that this node registers
}

// Lookup asks DNS-B about a node, as Registrar.Lookup does.
type Lookup func(ctx context.Context, node string) (registrar.Node, error)

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

	mu         sync.Mutex
	settings   Settings
	digest     string // of settings.Prefixes
	notifiers  map[string]*notifier
	fetchers   map[string]*fetcher
	rejections reminder.Failure
	closed     bool
}

// Set is the views that a node follows now as a deputy. It is immutable.
type Set struct {
	Prefixes *Prefixes // nil: no resolver belongs to any node
	Views    []*View   // by slot; nil where there is none
}

// Slot returns the slot of a resolver, or Outside. It needs the address only
// if there are prefixes.
func (s *Set) Slot(resolver func() netip.Addr) int {
	if s.Prefixes == nil {
		return Outside
	}
	return s.Prefixes.Slot(resolver())
}

// New returns a Sharing that does nothing before it is configured. measured
// returns the targets that this node measures.
func New(lookup Lookup, measured func() []latencyprobe.Target) *Sharing {
	s := &Sharing{lookup: lookup, measured: measured, notifiers: make(map[string]*notifier), fetchers: make(map[string]*fetcher)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.current.Store(new(Set))
	return s
}

// Configure makes the settings apply.
func (s *Sharing) Configure(settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.settings, s.digest = settings, digest(settings.Prefixes)
	if len(settings.Deputies) == 0 {
		s.published.Store(nil)
	}
	if settings.Key.Name == "" {
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
	s.update(true)
}

// Close ends all goroutines.
func (s *Sharing) Close() {
	s.mu.Lock()
	s.closed = true
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

// update makes the set of the views that the fetchers have. It merges prefixes
// again only if they have changed, as there may be many. mu must be held.
func (s *Sharing) update(prefixesChanged bool) {
	next := &Set{Prefixes: s.current.Load().Prefixes, Views: make([]*View, Own+1)}
	lists := []PrefixList{{Own, s.settings.Prefixes}}
	var former []PrefixList // a prefix that another node has now is that node's
	for _, f := range slices.SortedFunc(maps.Values(s.fetchers), func(a, b *fetcher) int { return a.slot - b.slot }) {
		if f.view == nil {
			continue
		}
		for len(next.Views) <= f.slot {
			next.Views = append(next.Views, nil)
		}
		next.Views[f.slot] = f.view
		lists = append(lists, PrefixList{f.slot, f.prefixes})
		for _, p := range f.former {
			former = append(former, PrefixList{f.slot, p.prefixes})
		}
	}
	if prefixesChanged && len(lists) == 1 && len(s.settings.Prefixes) == 0 {
		next.Prefixes = nil
	} else if prefixesChanged {
		next.Prefixes = NewPrefixes(append(lists, former...))
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
	f := newFetcher(s, node, s.freeSlot())
	s.fetchers[node] = f
	s.goroutines.Go(f.run)
	return true
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
