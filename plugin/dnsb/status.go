package dnsb

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// NodeStatus is the state of a node, as a Go value and as JSON.
type NodeStatus struct {
	Node      string       `json:"node"`
	State     string       `json:"state"`         // live, stale, drained or dead
	Why       string       `json:"why,omitempty"` // the reason, of its probe or of an override
	Static    bool         `json:"static"`        // it is in the Corefile and does not register
	Lease     time.Time    `json:"lease_end,omitzero"`
	Addresses []netip.Addr `json:"addresses"`
	Cuts      []string     `json:"cuts"`
	DeadCuts  []DeadCut    `json:"dead_cuts,omitempty"` // of a node that serves other cuts
	Deputies  []string     `json:"deputies,omitempty"`
	Prefixes  int          `json:"prefixes"` // that it registered

	ClientSubnets bool      `json:"client_subnets"`     // it answers by them (RFC 7871)
	Location      *Location `json:"location,omitempty"` // of its LOC record
	Referrals     uint64    `json:"referrals"`          // that name it first, of the last minutes
	Share         float64   `json:"share"`              // of all referrals of the last minutes, 0 to 1
	Map           *MapFetch `json:"map,omitempty"`      // that it has fetched last; another node with the same key may have

	// Of the overrides of servers that this server has for its nodes.
	Overrides        int       `json:"orders"`                     // how many it has
	OverridesCurrent bool      `json:"orders_current"`             // the node has fetched those in force
	OverridesFetched time.Time `json:"orders_fetched_at,omitzero"` // zero: not since this server was started
}

// Location is where a node is, in degrees.
type Location struct {
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
}

// DeadCut is a cut for which a node does not answer.
type DeadCut struct {
	Cut string `json:"cut"`
	Why string `json:"why"`
}

// Nodes returns all nodes that are registered or static, by name.
func (d *DNSB) Nodes() []NodeStatus {
	s := d.snapshot.Load()
	return d.nodesOf(s, d.zone.referrals.since(d.conf.zone))
}

func (d *DNSB) nodesOf(s *snapshot, referrals referralCounts) []NodeStatus {
	all := referrals.total()
	out := []NodeStatus{}
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		status := NodeStatus{
			Node: n.Node, State: string(n.state), Why: s.why(n, n.state, n.reason), Static: n.record == nil,
			Addresses: slices.Clone(n.Addresses), Cuts: slices.Clone(n.Cuts), Deputies: slices.Clone(n.Deputies), Prefixes: len(n.Prefixes), Overrides: len(s.overrides.servers),
			ClientSubnets: n.ClientSubnets,
		}
		for _, c := range n.cuts {
			if c.state == nodeDead && n.state != nodeDead {
				status.DeadCuts = append(status.DeadCuts, DeadCut{c.name, s.why(n, c.state, c.reason)})
			}
		}
		if n.at != nil {
			lat, lon := n.at.Degrees()
			status.Location = &Location{roundDegrees(lat), roundDegrees(lon)}
		}
		for _, count := range referrals.nodes[n.Node] {
			status.Referrals += count
		}
		status.Share = shareOf(status.Referrals, all)
		if n.record != nil {
			status.Map = d.zone.mapsFetched.of(d.conf.rules[n.Node])
			status.Lease = n.record.LeaseEnd
			status.OverridesFetched, status.OverridesCurrent = d.zone.fetched.of(n.Node).at, d.zone.fetched.has(n.Node, s.overrides.servers)
		}
		out = append(out, status)
	}
	slices.SortFunc(out, func(a, b NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// roundDegrees rounds to what a LOC record tells: a meter.
func roundDegrees(d float64) float64 { return math.Round(d*1e5) / 1e5 }

// Overlaps returns the prefixes that several nodes registered, the first thousand,
// and how many there are. Both are up to half a minute old.
func (d *DNSB) Overlaps() ([]prefixmap.Overlap, int) {
	o := d.overlaps.Load()
	if o == nil {
		return nil, 0
	}
	return slices.Clone(o.list), o.total
}
