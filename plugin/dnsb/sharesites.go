package dnsb

import (
	"iter"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

const (
	// maxSurveyed is how many of the nodes that measured a site the map names for it: enough
	// that one of them lives. The site has the latencies of the others.
	maxSurveyed = 3
	// sitesRest is how long the map may go without what nodes measured again, if that is
	// much like before: each version is transferred as a whole.
	sitesRest = time.Hour
)

// sharedSites returns what nodes measured of sites, as it travels.
func (s *snapshot) sharedSites() iter.Seq[nodemap.Site] {
	return func(yield func(nodemap.Site) bool) {
		if s.sites == nil {
			return
		}
		for prefix, site := range s.sites.All() {
			out := nodemap.Site{Prefix: prefix, Measured: make([]nodemap.Measurement, len(site.Measured)), Routed: site.Routed}
			for i, m := range site.Measured {
				out.Measured[i] = nodemap.Measurement{Node: s.sites.Names[m.Node], RTT: m.RTT, At: m.At}
			}
			if !yield(out) {
				return
			}
		}
	}
}

// has reports whether a version of the map has a table of sites, or one that is much
// the same and not old.
func (m *sharedMap) has(sites *sitesurvey.Table, now time.Time) bool {
	return m != nil && (m.sites == sites || now.Sub(m.made) < sitesRest && sitesLike(m.sites, sites))
}

// sitesLike reports whether two tables, which may be nil, are so much alike that
// nodes would rank no site otherwise: the same nodes measured the same sites, and no
// latency is clearly another one.
func sitesLike(a, b *sitesurvey.Table) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	if a.Size() != b.Size() {
		return false
	}
	for prefix, x := range a.All() {
		y := b.Get(prefix)
		if x == y {
			continue
		}
		if y == nil || len(x.Measured) != len(y.Measured) || x.Routed != y.Routed {
			return false
		}
		for _, m := range x.Measured {
			if !measuredAlike(m, a.Names[m.Node], y, b.Names) {
				return false
			}
		}
	}
	return true
}

func measuredAlike(m sitesurvey.Measurement, name string, other *sitesurvey.Site, names []string) bool {
	for _, o := range other.Measured {
		if names[o.Node] == name {
			x, y := m.Milliseconds(), o.Milliseconds()
			return !survey.Better(x, y) && !survey.Better(y, x)
		}
	}
	return false
}
