package dnsb

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// maxStateOverlaps is how many overlaps a State has.
const maxStateOverlaps = 100

// State is the state of the zone of a DNS-B, as a Go value and as JSON.
type State struct {
	Serial       uint32              `json:"serial"` // of the zone
	Cuts         []string            `json:"cuts"`
	Nodes        []NodeStatus        `json:"nodes"`
	Prefixes     int                 `json:"operator_prefixes"` // that the operator has mapped
	OverlapCount int                 `json:"overlap_count"`
	Overlaps     []prefixmap.Overlap `json:"overlaps"` // the first 100
	Unmapped     Unmapped            `json:"unmapped"`
	Overrides    []string            `json:"overrides"` // in force
	Files        []status.File       `json:"files"`
}

// State returns the state of the zone.
func (d *DNSB) State() State {
	snap := d.snapshot.Load()
	s := State{
		Serial: snap.serial, Cuts: snap.cutNames(), Nodes: d.Nodes(), Prefixes: snap.operators, Unmapped: d.Unmapped(),
		Overlaps: []prefixmap.Overlap{}, Overrides: []string{}, Files: status.Files(d.fileStatus()),
	}
	overlaps, count := d.Overlaps()
	s.Overlaps, s.OverlapCount = append(s.Overlaps, overlaps[:min(len(overlaps), maxStateOverlaps)]...), count
	d.mu.Lock()
	for _, o := range d.active {
		s.Overrides = append(s.Overrides, o.Text)
	}
	d.mu.Unlock()
	return s
}

// statusBlock returns what the status of the process has of this zone.
func (d *DNSB) statusBlock() status.Block {
	return status.Block{
		Plugin: pluginName, Zone: d.conf.zone,
		Started: func() bool { return d.snapshot.Load() != nil },
		State:   func() any { return d.State() },
		Explain: func(name string, from netip.Addr) ([]any, error) {
			e, err := d.Explain(name, from)
			if err != nil {
				return nil, err
			}
			return []any{e}, nil
		},
		Names: func(most int) []string {
			names := d.snapshot.Load().cutNames()
			return names[:min(len(names), most)]
		},
		Look: look,
	}
}
