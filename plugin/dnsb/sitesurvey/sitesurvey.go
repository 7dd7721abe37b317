// Package sitesurvey holds what nodes measured of resolver sites for one zone, and
// says who measures what next.
//
// A site comes from the resolvers that asked (sites.go). Nodes ask for work and
// report (work.go); after each round package internal/survey decides by the answers
// so far which nodes measure the site next. What results is a Table (table.go),
// which queries read. Nodes measure each other, too (nodes.go), and after some time
// everything again (ageing.go). Not everything is believed (trust.go).
package sitesurvey

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/topsites"
)

var log = clog.NewWithPlugin("dnsb")

const (
	// MaxSites bounds the sites that are known, and so the memory: some 870 bytes
	// each.
	MaxSites = 100_000
	// DefaultBudget is how many packets all nodes together send a second.
	DefaultBudget = 50
	// taskPackets is how many packets a measurement of one address by one node takes
	// at most: one of each method, and two more of that which was answered.
	taskPackets = 5
	// routerPackets is how many it takes to find the last router on the way, and to
	// measure that.
	routerPackets = 10
	// budgetAhead is for how many seconds of the budget work is given at once. Nodes
	// spread the packets over such a time.
	budgetAhead = 10
	// Tick is how often Survey.Tick is to be called.
	Tick = 2 * time.Second
)

// Survey is the survey of one zone. It outlives reloads, and is safe for concurrent
// use. Use New.
type Survey struct {
	sightings *topsites.Counter[netip.Addr] // of resolvers that nobody mapped
	hour      atomic.Uint32                 // since 1970, at the last Tick
	table     atomic.Pointer[Table]

	mu        sync.Mutex // of what follows
	options   surveymsg.Options
	budget    *rate.Limiter
	nodes     []*node // by nodeID
	ids       map[string]nodeID
	beside    [][]string       // names of the nodes beside the servers of services, by service
	latencies survey.Latencies // between nodes, by nodeID: both ways the same, see recordPeer
	groups    [2]*group        // for IPv4 and IPv6
	stale     bool             // groups do not have the nodes and latencies of now
	round     uint32           // grows when more nodes could measure sites
	opinion   uint32           // grows when answers could be judged otherwise
	sites     map[resolver.Site]*site
	list      []*site                // the same, in the order of reviews
	cursor    int                    // in list: the site to review next
	ticked    time.Time              // the last Tick
	started   time.Time              // the first Tick
	dirty     map[*site]bool         // that differ from what is stored
	dirtyOf   map[nodeID]bool        // nodes whose latencies to others do
	removed   map[resolver.Site]bool // sites that are stored and were forgotten

	tallies map[nodeID]tally // of the sites that were reviewed since cursor was 0

	name      string             // of this server, in the store
	hash      uint64             // of the name
	shared    bool               // other servers write to the store
	servers   map[string]*server // that do, by name
	announced time.Time          // when this server said last that it lives
	working   bool               // nodes ask for work

	unread reminder.Keyed
	full   reminder.Failure
	liars  reminder.Keyed
}

// New returns an empty Survey.
func New() *Survey {
	s := &Survey{
		sightings: topsites.New[netip.Addr](), budget: rate.NewLimiter(0, 0),
		ids: make(map[string]nodeID), sites: make(map[resolver.Site]*site), round: 1, opinion: 1, tallies: make(map[nodeID]tally),
		dirty: make(map[*site]bool), dirtyOf: make(map[nodeID]bool), removed: make(map[resolver.Site]bool),
		name: newServerName(), servers: make(map[string]*server),
	}
	s.hash = resolver.Hash(s.name)
	s.table.Store(newTable())
	s.hour.Store(hours(time.Now()))
	return s
}

func hours(t time.Time) uint32 { return uint32(t.Unix() / 3600) } // #nosec G115 -- fits for 490,000 years

// Configure makes options apply. Sites that are to be avoided are forgotten.
func (s *Survey) Configure(options surveymsg.Options) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options = options
	s.budget.SetLimit(rate.Limit(options.Budget))
	s.budget.SetBurst(max(budgetAhead*options.Budget, routerPackets))
	for _, one := range slices.Clone(s.list) {
		if s.avoids(one.id.Prefix()) {
			s.forget(one)
		}
	}
}

// SetBeside tells which nodes stand beside the servers of services, for each service.
// What they measure is exact for these, so they measure sites whose servers could be
// the best. Sites that were measured without them are judged anew.
func (s *Survey) SetBeside(sets [][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.EqualFunc(s.beside, sets, slices.Equal[[]string]) {
		return
	}
	s.beside, s.stale = sets, true
	s.round++
}

// avoids reports whether a site has addresses that are not to be measured. mu is
// locked.
func (s *Survey) avoids(prefix netip.Prefix) bool {
	return slices.ContainsFunc(s.options.Avoid, func(p netip.Prefix) bool { return p.Overlaps(prefix) })
}

// Saw notes that a resolver asked which nobody mapped. It neither waits nor
// allocates.
func (s *Survey) Saw(addr netip.Addr) { s.sightings.Add(resolver.SiteOf(addr), addr) }

// Used notes that the survey decided the referral of a resolver in a site, as fast as
// Saw does. If only a router is known, this resolver may be one that answers.
func (s *Survey) Used(site *Site, addr netip.Addr) {
	if site.Routed {
		s.Saw(addr)
	}
	if hour := s.hour.Load(); site.seen.Load() != hour {
		site.seen.Store(hour)
	}
}

// Table returns the current Table.
func (s *Survey) Table() *Table { return s.table.Load() }

// Tick does what is due: it takes up sites of resolvers that asked, gives up
// measurements that nobody reported, and measures anew what is old.
func (s *Survey) Tick(now time.Time) {
	top := s.sightings.Top()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hour.Store(hours(now))
	s.regroup(now)
	s.working = slices.ContainsFunc(s.nodes, func(n *node) bool { return n.active(now) })
	for _, sighting := range top.Sites {
		if !sighting.At.Before(s.ticked) {
			s.sighted(resolver.SiteOf(sighting.Last), sighting.Last, now)
		}
	}
	s.ticked = now
	if s.started.IsZero() {
		s.started = now
		s.recall()
	}
	s.review(now)
}

// measurable reports whether a resolver may be measured. mu is locked.
func (s *Survey) measurable(addr netip.Addr) bool {
	return dnsmsg.IsHost(addr) && !s.avoids(resolver.SiteOf(addr).Prefix())
}

// answer is what a node measured of a site or of a node.
type answer struct {
	node         nodeID           // that measured
	method       surveymsg.Method // Router: whatever the outcome, it is that of the search for a router
	outcome      surveymsg.Outcome
	contradicted bool          // by what others measured, if it is of the address itself
	implausible  bool          // it does not count, for that or another reason (trust.go)
	stray        bool          // it does not count, as the latency of another router than that of most nodes
	ttl          uint8         // of the packets to the router
	rtt          float32       // milliseconds, if outcome is Measured
	at           uint32        // seconds since 1970
	router       resolver.Site // network of the router, if the latency is that of one
}

// usable reports whether the answer has a latency that counts.
func (a answer) usable() bool {
	return a.outcome == surveymsg.Measured && !a.implausible && !a.stray
}

// measured reports whether the answer has a latency of the address itself.
func (a *answer) measured() bool { return a.outcome == surveymsg.Measured && !a.routed() }

// routed reports whether the answer is about routers on the way.
func (a answer) routed() bool { return a.method == surveymsg.Router }

// hasRouter reports whether the answer has a router on the way, and the latency of that.
func (a answer) hasRouter() bool { return a.outcome == surveymsg.Measured && a.routed() }

// ofSilence reports whether the answer tells that the address is silent: whatever comes of
// it, the search for a router is only for what is.
func (a answer) ofSilence() bool { return a.outcome == surveymsg.Silent || a.routed() }

// age returns how old a time in seconds since 1970 is. One in the future, by a clock
// that was set, is new.
func age(at uint32, now time.Time) time.Duration {
	return max(0, now.Sub(time.Unix(int64(at), 0)))
}

func unix(t time.Time) uint32 { return uint32(max(t.Unix(), 0)) } // #nosec G115 -- until 2106
