package dnsb

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
	// shards keep queries on several cores out of each other's way.
	shards = 16
	// perShard counters are few enough to look through all of them: 8 cache
	// lines, without a hash table that would have to be kept in order.
	perShard = 64
)

// unmapped counts the resolvers that no prefix of the map led anywhere, by site,
// in a bounded space: the most frequent ones, by the Space-Saving algorithm
// (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k
// Elements in Data Streams, 2005). A query never waits and never allocates: one
// that finds its shard in use is not counted, but missed.
type unmapped struct {
	since  time.Time
	missed atomic.Uint64
	shards [shards]shard
}

// shard counts the sites of one hash. Every site that made more than 1/perShard
// of its referrals is in it.
type shard struct {
	mu     sync.Mutex
	sites  [perShard]resolver.Site // 0: free
	counts [perShard]uint64
	errors [perShard]uint64 // how much of the count may be that of other sites
	lasts  [perShard]given
}

// given is what a site was given last.
type given struct {
	node  string
	layer layer
	at    time.Time
}

// add counts a referral.
func (u *unmapped) add(from netip.Addr, node string, l layer) {
	site := resolver.SiteOf(from)
	s := u.shardOf(site)
	if !s.mu.TryLock() {
		u.missed.Add(1)
		return
	}
	s.add(site, given{node, l, time.Now()})
	s.mu.Unlock()
}

func (u *unmapped) shardOf(site resolver.Site) *shard { return &u.shards[site.Hash()%shards] }

func (s *shard) add(site resolver.Site, last given) {
	i := slices.Index(s.sites[:], site)
	if i < 0 { // take the place of the least frequent one, with its count
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

// Unmapped is what is known of the resolvers that no prefix with a usable node
// covers, as a Go value and as JSON.
type Unmapped struct {
	Since    time.Time        `json:"since"`
	Counted  uint64           `json:"counted"`  // referrals of such resolvers
	Missed   uint64           `json:"missed"`   // those that were not counted, since another was at that moment
	Prefixes []UnmappedPrefix `json:"prefixes"` // most frequent first, 1,024 at most
}

// UnmappedPrefix is one site. Its referrals were Count at most, and Count-Error
// at least. A site that is not listed had no more than about a thousandth of all.
type UnmappedPrefix struct {
	Prefix netip.Prefix `json:"prefix"` // a /24 or /48
	Count  uint64       `json:"count"`
	Error  uint64       `json:"error"`
	Node   string       `json:"node"`  // that it was given last
	Layer  string       `json:"layer"` // by which
	Last   time.Time    `json:"last"`
}

// Unmapped returns the resolvers that no prefix with a usable node covers.
func (d *DNSB) Unmapped() Unmapped { return d.zone.unmapped.list() }

func (u *unmapped) list() Unmapped {
	out := Unmapped{Since: u.since, Missed: u.missed.Load(), Prefixes: []UnmappedPrefix{}}
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		for j, site := range s.sites {
			if site == 0 {
				continue
			}
			out.Counted += s.counts[j]
			last := s.lasts[j]
			out.Prefixes = append(out.Prefixes, UnmappedPrefix{site.Prefix(), s.counts[j], s.errors[j], last.node, last.layer.String(), last.at})
		}
		s.mu.Unlock()
	}
	slices.SortFunc(out.Prefixes, func(a, b UnmappedPrefix) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Error, b.Error), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	return out
}
