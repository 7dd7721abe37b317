package dnsb

import (
	"net/netip"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// lastReferral is the last referral of an unmapped resolver site.
type lastReferral struct {
	node  string
	layer layer
}

// Unmapped says which resolvers no prefix with an eligible node covers, as a Go
// value and as JSON.
type Unmapped struct {
	Since    time.Time        `json:"since"`
	Counted  uint64           `json:"counted"`  // referrals of such resolvers
	Missed   uint64           `json:"missed"`   // referrals not counted, because another one was being counted
	Prefixes []UnmappedPrefix `json:"prefixes"` // most frequent first, at most topsites.Capacity
}

// UnmappedPrefix is one site. It had at most Count referrals, and at least
// Count-Error. A site that is not listed had at most about a thousandth of all.
type UnmappedPrefix struct {
	Prefix netip.Prefix `json:"prefix"` // a /24 or /48
	Count  uint64       `json:"count"`
	Error  uint64       `json:"error"`
	Node   string       `json:"node"`  // of the last referral
	Layer  string       `json:"layer"` // of the last referral
	Last   time.Time    `json:"last"`

	Survey *sitesurvey.SiteSummary `json:"survey,omitempty"` // what nodes have measured; absent: there is no survey, or it does not have the site yet
}

// Unmapped returns the resolvers that no prefix with an eligible node covers.
func (d *DNSB) Unmapped() Unmapped {
	top := d.zone.unmapped.Top()
	out := Unmapped{Since: top.Since, Counted: top.Counted, Missed: top.Missed, Prefixes: make([]UnmappedPrefix, len(top.Sites))}
	for i, s := range top.Sites {
		out.Prefixes[i] = UnmappedPrefix{Prefix: s.Prefix, Count: s.Count, Error: s.Error, Node: s.Last.node, Layer: s.Last.layer.String(), Last: s.At}
	}
	if d.conf.survey != nil {
		sites := make([]netip.Prefix, len(out.Prefixes))
		for i, p := range out.Prefixes {
			sites[i] = p.Prefix
		}
		for i, known := range d.zone.survey.Summaries(sites) {
			out.Prefixes[i].Survey = known
		}
	}
	return out
}
