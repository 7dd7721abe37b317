// Package topsites counts events by resolver site in bounded space. It keeps the
// most frequent sites by the Space-Saving algorithm (Metwally, Agrawal, El Abbadi:
// Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005).
package topsites

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

const (
	// shards keep queries on several cores from waiting for each other.
	shards = 16
	// perShard counters are few enough to scan all of them: 8 cache lines, and no
	// hash table to maintain.
	perShard = 64

	// Capacity is how many sites a Counter keeps.
	Capacity = shards * perShard
)

// Counter counts sites, each with the last event of type T. Use New. Its methods
// may be called concurrently.
type Counter[T any] struct {
	since  time.Time
	missed atomic.Uint64
	shards [shards]shard[T]
}

// New returns a Counter that has counted nothing.
func New[T any]() *Counter[T] { return &Counter[T]{since: time.Now()} }

// shard counts the sites of one hash. It has every site with more than 1/perShard
// of its events.
type shard[T any] struct {
	mu     sync.Mutex
	sites  [perShard]resolver.Site // 0: free
	counts [perShard]uint64
	errors [perShard]uint64 // how much of the count may be of other sites
	lasts  [perShard]event[T]
}

type event[T any] struct {
	value T
	at    time.Time
}

// Add counts an event of a site. It neither waits nor allocates: if the shard of
// the site is locked, the event is missed.
func (c *Counter[T]) Add(site resolver.Site, last T) {
	s := c.shardOf(site)
	if !s.mu.TryLock() {
		c.missed.Add(1)
		return
	}
	s.add(site, event[T]{last, time.Now()})
	s.mu.Unlock()
}

func (c *Counter[T]) shardOf(site resolver.Site) *shard[T] { return &c.shards[site.Hash()%shards] }

func (s *shard[T]) add(site resolver.Site, last event[T]) {
	i := slices.Index(s.sites[:], site)
	if i < 0 { // replace the least frequent site, and continue its count
		i = 0
		for j, count := range s.counts {
			if count < s.counts[i] {
				i = j
			}
		}
		s.sites[i], s.errors[i] = site, s.counts[i]
	}
	s.counts[i]++
	s.lasts[i] = last
}

// Top is what a Counter has counted.
type Top[T any] struct {
	Since   time.Time // when the Counter was made
	Counted uint64    // events
	Missed  uint64    // events that found their shard locked
	Sites   []Site[T] // most frequent first, at most Capacity
}

// Site is a site with at most Count events, and at least Count-Error. A site that
// a Top lacks had at most about one in Capacity of all events.
type Site[T any] struct {
	Prefix       netip.Prefix // a /24 or /48
	Count, Error uint64
	Last         T
	At           time.Time // of the last event
}

// Top returns the counts. It locks one shard at a time.
func (c *Counter[T]) Top() Top[T] {
	top := Top[T]{Since: c.since, Missed: c.missed.Load()}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for j, site := range s.sites {
			if site == 0 {
				continue
			}
			top.Counted += s.counts[j]
			top.Sites = append(top.Sites, Site[T]{site.Prefix(), s.counts[j], s.errors[j], s.lasts[j].value, s.lasts[j].at})
		}
		s.mu.Unlock()
	}
	slices.SortFunc(top.Sites, func(a, b Site[T]) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Error, b.Error), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	return top
}
