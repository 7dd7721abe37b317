package dnsb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
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
	Survey       *sitesurvey.Status  `json:"survey,omitempty"`
	Overrides    []string            `json:"overrides"` // in force
	Files        []status.File       `json:"files"`

	Referrals Referrals  `json:"referrals"`            // of the last minutes
	Updates   Updates    `json:"updates"`              // of the last hour
	Store     *Store     `json:"store,omitempty"`      // absent: registrations are in memory only
	Servers   *Servers   `json:"servers,omitempty"`    // absent: no other server can use the store
	MapSerial uint32     `json:"map_serial,omitempty"` // of the version of the map for nodes; absent: there is none yet
	ColdUntil *time.Time `json:"cold_until,omitempty"` // until when nodes may be missing because of a restart

	Secondaries *Secondaries `json:"secondaries,omitempty"` // absent: the plugin *transfer* is not in the server block
}

// Referrals are those of the last minutes, by layer.
type Referrals struct {
	Since  time.Time    `json:"since"` // at most 6 minutes ago
	Count  uint64       `json:"count"`
	Layers []LayerState `json:"layers"` // in the order of the search
}

// LayerState is what a layer of the map has, and how many referrals came from it.
type LayerState struct {
	Layer     string   `json:"layer"`
	Entries   int      `json:"entries"` // prefixes, rules, nodes; 0 for "last"
	Sources   []string `json:"sources"` // files, or words of the Corefile
	Referrals uint64   `json:"referrals"`
	Share     float64  `json:"share"` // 0 to 1
}

// Store is where registrations outlive the process.
type Store struct {
	Location string `json:"location"` // the words of its line, without secrets
	Up       bool   `json:"up"`
	Read     bool   `json:"read"` // else a shared store could not be read since the start
}

// Servers are the other servers of the zone that use the same store.
type Servers struct {
	Read   time.Time         `json:"read_at,omitzero"` // zero: the store cannot be read
	Others []registry.Server `json:"others"`
}

// State returns the state of the zone.
func (d *DNSB) State() State {
	snap := d.snapshot.Load()
	recent := d.zone.referrals.since(d.conf.zone)
	s := State{
		Serial: snap.serial, Cuts: snap.cutNames(), Nodes: d.nodesOf(snap, recent), Prefixes: snap.operators, Unmapped: d.Unmapped(), Survey: d.Survey(),
		Overlaps: []prefixmap.Overlap{}, Overrides: []string{}, Files: status.Files(d.fileStatus()),
		Referrals: Referrals{Since: recent.at, Count: recent.total(), Layers: snap.layerStates(recent)}, Updates: d.zone.updates.lastHour(),
	}
	if d.conf.store != nil {
		s.Store = &Store{d.conf.store.String(), registry.StoreWorks(d.conf.zone), !snap.storeUnread}
	}
	if others, read, shared := d.registry.Others(); shared {
		s.Servers = &Servers{read, append([]registry.Server{}, others...)}
	}
	if d.secondaries != nil {
		s.Secondaries = d.zone.copies.status()
	}
	if shared := d.zone.shared.Load(); shared != nil {
		s.MapSerial = shared.serial
	}
	if time.Now().Before(snap.coldUntil) {
		s.ColdUntil = &snap.coldUntil
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

// total returns the number of referrals.
func (r referralCounts) total() (total uint64) {
	for _, counts := range r.nodes {
		for _, n := range counts {
			total += n
		}
	}
	return total
}

// shareOf returns a part of all as 0 to 1.
func shareOf(part, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// layerStates returns what each layer has, and its part of these referrals.
func (s *snapshot) layerStates(referrals referralCounts) []LayerState {
	states, all := make([]LayerState, layers), referrals.total()
	for _, counts := range referrals.nodes {
		for l, n := range counts {
			states[l].Referrals += n
		}
	}
	for l := range states {
		states[l].Layer, states[l].Sources, states[l].Share = layerNames[l], []string{}, shareOf(states[l].Referrals, all)
	}
	has := func(l layer, entries int, sources ...string) {
		states[l].Entries = entries
		if entries > 0 {
			states[l].Sources = append(states[l].Sources, sources...)
		}
	}
	const here = "Corefile"
	registered, located := 0, 0
	for _, n := range s.nodes {
		if n != nil {
			registered += len(n.Prefixes)
		}
		if n != nil && n.at != nil {
			located++
		}
	}
	files := slices.Clone(s.conf.maps)
	if len(s.conf.prefixes)+len(s.conf.geoRules) > 0 {
		files = append(files, here)
	}
	has(layerPin, s.overrides.counts[verbPin], s.conf.admin)
	has(layerOperator, s.operators, files...)
	has(layerRegistration, registered, "registrations")
	if s.sites != nil {
		has(layerSurvey, s.sites.Size(), "measurements of nodes")
	}
	for i, rules := range s.numbers.geoRules {
		has(layerASN+layer(i), rules, files...) // #nosec G115 -- three
	}
	has(layerDefault, len(s.defaults), here)
	if s.geo != nil {
		has(layerLocation, located, s.conf.databases...)
	}
	has(layerHash, len(s.order), "nodes")
	return states
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
