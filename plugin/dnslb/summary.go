package dnslb

import (
	"math"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/overridefetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/surveyor"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// Summary is the state of a server block at one moment, as a Go value and as JSON.
type Summary struct {
	At            time.Time               `json:"at"`
	Zones         []string                `json:"zones"`
	Node          string                  `json:"node,omitempty"`
	Ready         bool                    `json:"ready"`
	Missing       []string                `json:"missing"`  // zones that the backend plugin should have
	Observed      bool                    `json:"observed"` // another plugin answers
	Isolated      bool                    `json:"isolated"` // this machine's own network seems gone
	Registrations []registrar.State       `json:"registrations"`
	Map           *mapfetch.State         `json:"map,omitempty"`          // of DNS-B; absent: the node does not register
	Survey        []surveyor.State        `json:"survey,omitempty"`       // by DNS-B
	Deputies      []peerview.DeputyState  `json:"deputies"`               // of this node, best first
	Views         []ViewState             `json:"views"`                  // of other nodes, that this one follows
	Unfollowed    []string                `json:"unfollowed,omitempty"`   // nodes whose views are not fetched, as there are too many
	FailedViews   []peerview.FetchFailure `json:"failed_views,omitempty"` // that cannot be fetched
	Refused       *peerview.Rejection     `json:"refused,omitempty"`      // the last NOTIFY, not long ago
	Services      int                     `json:"services"`
	Up            int                     `json:"up"` // addresses of servers, by state and probe
	Down          int                     `json:"down"`
	Unknown       int                     `json:"unknown"`
	AllDown       []string                `json:"all_down"`    // services, with the type of record
	Overrides     []string                `json:"orders"`      // in force
	IdleOverrides []string                `json:"idle_orders"` // without effect
	FromDNSBs     []overridefetch.State   `json:"dnsb_orders"` // what the node has of each DNS-B

	AllDownCount int `json:"all_down_count"` // how many, also where AllDown names some of them
}

// ViewState is the state of the view of another node.
type ViewState struct {
	Node   string    `json:"node"`
	Made   time.Time `json:"made"`
	Deputy bool      `json:"deputy"` // this node is its deputy
	Known  int       `json:"known"`  // how many of its targets this node measures too
	All    int       `json:"all"`    // how many targets it has
}

// Summary returns the state of the server block.
func (d *DNSLB) Summary() Summary { return d.summary(math.MaxInt) }

// summary names up to most services whose servers are all down.
func (d *DNSLB) summary(most int) Summary {
	t := d.snapshot.Load()
	s := Summary{
		At: time.Now(), Zones: slices.Clone(d.Zones), Node: d.Node, Ready: d.Ready(), Observed: d.observe,
		Isolated:      d.probe != nil && d.probe.Isolated(),
		Registrations: d.state.registrar.States(), Views: []ViewState{}, AllDown: []string{}, Overrides: []string{}, IdleOverrides: []string{}, Services: t.services,
		Missing: append([]string{}, t.missing...),
	}
	s.Unfollowed = d.state.sharing.Unfollowed()
	s.FromDNSBs = d.state.overrides.States()
	s.Deputies, s.Refused, s.FailedViews = d.state.sharing.Deputies(), d.state.sharing.Rejected(), d.state.sharing.FetchFailures()
	if len(d.dnsbs) > 0 {
		state := d.state.maps.State()
		s.Map = &state
	}
	s.Survey = d.state.survey.States()
	for _, v := range d.state.views().Views {
		if v != nil {
			s.Views = append(s.Views, ViewState{Node: v.Node, Made: v.Made, Deputy: v.HasDeputy(d.Node), Known: v.InCommon(t.targets), All: len(v.Targets)})
		}
	}
	d.state.mu.Lock()
	for _, status := range t.observed.status {
		switch status.State {
		case latencyprobe.Up:
			s.Up++
		case latencyprobe.Down:
			s.Down++
		default:
			s.Unknown++
		}
	}
	d.state.mu.Unlock()
	for _, p := range t.pools {
		if !p.answer.Load().allDown {
			continue
		}
		s.AllDownCount += len(p.services)
		for _, name := range p.services[:min(len(p.services), most-len(s.AllDown))] {
			s.AllDown = append(s.AllDown, name+" "+dns.Type(p.qtype()).String())
		}
	}
	slices.Sort(s.AllDown)
	for _, o := range t.inForce {
		s.Overrides = append(s.Overrides, o.Text)
	}
	for _, o := range t.idle {
		s.IdleOverrides = append(s.IdleOverrides, o.why+": "+o.Text)
	}
	return s
}
