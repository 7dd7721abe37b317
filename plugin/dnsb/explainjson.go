package dnsb

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
)

// explainValues explains a name as JSON. The zone itself stands for all cuts.
func (d *DNSB) explainValues(name string, from netip.Addr) []explain.Value {
	s := d.snapshot.Load()
	names := []string{name}
	if name == s.conf.zone && len(s.cuts) > 0 {
		names = s.cutNames()
	}
	values := make([]explain.Value, len(names))
	for i, name := range names {
		e, err := s.explain(name, from)
		if values[i] = (explain.Value{Kind: "referral", Value: e}); err != nil {
			values[i] = explain.Value{Kind: explain.KindError, Value: err.Error()}
		}
	}
	return values
}

func (d *DNSB) nodeValues() []explain.Value {
	nodes := d.Nodes()
	values := make([]explain.Value, len(nodes))
	for i, n := range nodes {
		values[i] = explain.Value{Kind: "node", Value: n}
	}
	return values
}

func (d *DNSB) overlapValues() []explain.Value {
	list, _ := d.Overlaps()
	values := make([]explain.Value, len(list))
	for i, o := range list {
		values[i] = explain.Value{Kind: "overlap", Value: o}
	}
	return values
}

func (d *DNSB) unmappedValues() []explain.Value {
	all := d.Unmapped()
	values := make([]explain.Value, len(all.Prefixes))
	for i, p := range all.Prefixes {
		values[i] = explain.Value{Kind: "unmapped", Value: p}
	}
	return values
}

func (d *DNSB) surveyValues() []explain.Value {
	s := d.Survey()
	if s == nil {
		return nil
	}
	return []explain.Value{{Kind: "survey", Value: s}}
}

// Status is the state of the zone of a DNS-B without its lists, as a Go value and as
// JSON.
type Status struct {
	Zone         string            `json:"zone"`
	Serial       uint32            `json:"serial"` // of the zone
	Cuts         int               `json:"cuts"`
	Nodes        map[nodeState]int `json:"nodes"` // how many are in each state
	Prefixes     int               `json:"operator_prefixes"`
	OverlapCount int               `json:"overlap_count"`
	Unmapped     uint64            `json:"unmapped"` // referrals of resolvers that no prefix covers
	Overrides    []override.Stated `json:"overrides"`
	Files        []status.File     `json:"files"`
}

// Status returns the state of the zone.
func (d *DNSB) Status() Status {
	s := d.snapshot.Load()
	_, overlaps := d.Overlaps()
	out := Status{
		Zone: s.conf.zone, Serial: s.serial, Cuts: len(s.cuts), Nodes: make(map[nodeState]int), Prefixes: s.operators, OverlapCount: overlaps,
		Unmapped: d.Unmapped().Counted, Overrides: []override.Stated{}, Files: status.Files(d.fileStatus()),
	}
	for _, state := range nodeStates {
		out.Nodes[state] = 0
	}
	for _, n := range s.nodes {
		if n != nil {
			out.Nodes[n.state]++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.active {
		out.Overrides = append(out.Overrides, o.Stated())
	}
	return out
}

func (d *DNSB) statusValues() []explain.Value {
	return []explain.Value{{Kind: "status", Value: d.Status()}}
}

// NodeCounts returns how many nodes are in each state as text.
func (s Status) NodeCounts() string {
	counts := make([]string, len(nodeStates))
	for i, state := range nodeStates {
		counts[i] = fmt.Sprintf("%d %s", s.Nodes[state], state)
	}
	return strings.Join(counts, ", ")
}

func (d *DNSB) statusLines() []string { return d.Status().Lines() }

// Lines returns the state as text.
func (s Status) Lines() []string {
	lines := []string{fmt.Sprintf("%s serial %d, %s, %s of the operator, %s, %s of unmapped resolvers",
		s.Zone, s.Serial, plural.Of(s.Cuts, "cut"), plural.Of(s.Prefixes, "prefix"), plural.Of(s.OverlapCount, "overlap"), plural.Of(s.Unmapped, "referral"))}
	lines = append(lines, "nodes: "+s.NodeCounts())
	for _, o := range s.Overrides {
		lines = append(lines, "override: "+o.Text)
	}
	for _, f := range s.Files {
		if !f.InForce {
			lines = append(lines, fmt.Sprintf("%s: the files have an error, in force is the version of %s", f.Source, explain.Time(f.Loaded)))
		}
	}
	return lines
}
