package dnslb

import (
	"errors"
	"math"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
)

// maxStateServices is how many services a State has: each has all of its servers.
const maxStateServices = 200

// State is the state of a server block with its services, as a Go value and as JSON.
type State struct {
	Status
	Rankings []Explanation `json:"rankings"`                 // of 200 services, in the order of their names, for this node's resolvers
	After    string        `json:"rankings_after,omitempty"` // the last one of these; absent: no services follow
}

// Status is the state of a server block, as a Go value and as JSON.
type Status struct {
	Summary
	Files []status.File `json:"files"`

	Overrides []OverrideState `json:"overrides"` // those that have not ended
}

// OverrideState is a line of an admin file that has not ended.
type OverrideState struct {
	override.Stated
	DNSB string `json:"dnsb,omitempty"` // in whose admin file it is; absent: in that of this node
	Idle string `json:"idle,omitempty"` // why it has no effect; absent: it is in force
}

// overrideStates returns the overrides, those in force first.
func (s *snapshot) overrideStates() []OverrideState {
	states := make([]OverrideState, 0, len(s.inForce)+len(s.idle))
	for _, o := range s.inForce {
		states = append(states, OverrideState{o.Stated(), o.Action.DNSB, ""})
	}
	for _, o := range s.idle {
		states = append(states, OverrideState{o.Stated(), o.Action.DNSB, o.why})
	}
	return states
}

// status names up to most services whose servers are all down.
func (d *DNSLB) status(most int) Status {
	return Status{Summary: d.summary(most), Files: status.Files(d.fileStatus()), Overrides: d.snapshot.Load().overrideStates()}
}

// State returns the state of the server block.
func (d *DNSLB) State() State { return d.StateAfter("") }

// StateAfter returns the state of the server block with the services whose names come
// after one, which need not exist.
func (d *DNSLB) StateAfter(service string) State {
	s := State{Status: d.status(math.MaxInt), Rankings: []Explanation{}}
	names := d.servicesAfter(service)
	if len(names) > maxStateServices {
		names = names[:maxStateServices]
		s.After = names[maxStateServices-1]
	}
	for _, name := range names {
		all, _ := d.rankings(name)
		s.Rankings = append(s.Rankings, all...)
	}
	return s
}

// serviceNames returns the names of the first services.
func (d *DNSLB) serviceNames(most int) []string {
	names := d.servicesAfter("")
	return names[:min(len(names), most)]
}

// servicesAfter returns the names of services that come after a name, in their order.
func (d *DNSLB) servicesAfter(name string) []string {
	var names []string
	for owner, n := range d.snapshot.Load().names {
		if n.service != nil && owner > name {
			names = append(names, owner)
		}
	}
	slices.Sort(names)
	return names
}

// explainAll explains a service for a resolver in both address families.
func (d *DNSLB) explainAll(name string, from netip.Addr) ([]Explanation, error) {
	return ofFamilies(func(qtype uint16) (Explanation, error) { return d.Explain(name, qtype, from) })
}

// rankings explains a service for the resolvers of this node in both address families.
func (d *DNSLB) rankings(name string) ([]Explanation, error) {
	return ofFamilies(func(qtype uint16) (Explanation, error) { return d.explainOwn(name, qtype) })
}

// ofFamilies returns the explanations of the address families that a service has, or the
// errors if it has none.
func ofFamilies(explain func(qtype uint16) (Explanation, error)) (all []Explanation, err error) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		e, failed := explain(qtype)
		if failed == nil {
			all = append(all, e)
		} else {
			err = errors.Join(err, failed)
		}
	}
	if len(all) > 0 {
		err = nil
	}
	return all, err
}

// statusBlock returns what the status of the process has of this block.
func (d *DNSLB) statusBlock() status.Block {
	return status.Block{
		Plugin: pluginName, Zone: d.Zones[0], Node: d.Node,
		Started: func() bool { return d.snapshot.Load() != nil },
		State:   func() any { return d.State() }, StateAfter: func(service string) any { return d.StateAfter(dns.CanonicalName(service)) },
		View: d.view,
		Explain: func(name string, from netip.Addr) (all []any, err error) {
			explanations, err := d.explainAll(name, from)
			for _, e := range explanations {
				all = append(all, e)
			}
			return all, err
		},
		Names: d.serviceNames, Look: look,
		History: func(name string) (all []any, err error) {
			histories, err := d.HistoryOf(name)
			for _, h := range histories {
				all = append(all, h)
			}
			return all, err
		},
	}
}
