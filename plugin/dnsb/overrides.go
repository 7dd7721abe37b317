package dnsb

import (
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
)

// The verbs of overrides.
const (
	verbDrain  = "drain"  // no referral names the node while another one is live
	verbForget = "forget" // the node is removed when it is dead
	verbPin    = "pin"    // resolvers in a prefix are referred to these nodes
)

// nodeAction is what an override names.
type nodeAction struct {
	prefix netip.Prefix // of a pin
	nodes  []string     // best first; a drain and a forget have one
}

// nodeOverride is one line of the admin file:
//
//	drain|forget NODE      until TIME reason TEXT...
//	pin PREFIX NODE...     until TIME reason TEXT...
type nodeOverride = override.Override[nodeAction]

// OverrideVerbs returns the verbs of the lines of an admin file.
func OverrideVerbs() []string { return overrideGrammar(nil).Words() }

// CheckOverride returns an error if a line cannot be one of the admin file.
func (d *DNSB) CheckOverride(line string) error {
	_, err := overrideGrammar(d.conf).Parse(strings.Fields(line))
	return err
}

// AdminFile returns the path of the admin file, "" if there is none.
func (d *DNSB) AdminFile() string { return d.conf.admin }

// Zone returns the zone that is served.
func (d *DNSB) Zone() string { return d.conf.zone }

// overrideGrammar returns the lines that an admin file may have.
func overrideGrammar(conf *config) override.Grammar[nodeAction] {
	oneNode := func(arguments []string) (nodeAction, error) {
		if len(arguments) != 1 {
			return nodeAction{}, override.ErrUsage
		}
		return nodesAction(conf, netip.Prefix{}, arguments)
	}
	return override.Grammar[nodeAction]{
		{Word: verbDrain, Usage: "drain NODE", Parse: oneNode},
		{Word: verbForget, Usage: "forget NODE", Parse: oneNode},
		{Word: verbPin, Usage: "pin PREFIX NODE...", Parse: func(arguments []string) (nodeAction, error) {
			if len(arguments) < 2 {
				return nodeAction{}, override.ErrUsage
			}
			prefix, err := corefile.Prefix(arguments[0])
			if err != nil {
				return nodeAction{}, err
			}
			return nodesAction(conf, prefix, arguments[1:])
		}},
	}
}

func nodesAction(conf *config, prefix netip.Prefix, nodes []string) (nodeAction, error) {
	names := make([]string, len(nodes))
	for i, node := range nodes {
		var err error
		if names[i], err = conf.nodeName(node); err != nil {
			return nodeAction{}, err
		}
	}
	return nodeAction{prefix, names}, nil
}

// newAdminFile returns the admin file of a block, one without overrides if the
// block names none.
func newAdminFile(conf *config) *filewatch.Loader[[]nodeOverride] {
	if conf.admin == "" {
		return filewatch.NewLoader[[]nodeOverride]("admin file", nil, log, nil)
	}
	parse := func() ([]nodeOverride, error) { return overrideGrammar(conf).ReadFile(conf.admin) }
	return filewatch.NewLoader("admin file", parse, log, nil, conf.admin)
}

// overrides are those in force, for one snapshot.
type overrides struct {
	drained   map[string]nodeOverride // by node
	forgotten map[string]nodeOverride // by node
	pins      *bart.Table[*pin]       // nil: none
	counts    map[string]int          // by verb
}

// pin says to which nodes the resolvers of a prefix are referred, best first.
type pin struct {
	nodes    []nodeID
	override nodeOverride
}

// inForce returns active overrides for a snapshot. Of two for the same prefix or
// node the later one counts.
func inForce(active []nodeOverride, m *resolverMap) overrides {
	out := overrides{
		drained: make(map[string]nodeOverride), forgotten: make(map[string]nodeOverride),
		counts: map[string]int{verbDrain: 0, verbForget: 0, verbPin: 0},
	}
	for _, o := range active {
		out.counts[o.Verb]++
		switch nodes := o.Action.nodes; o.Verb {
		case verbDrain:
			out.drained[nodes[0]] = o
		case verbForget:
			out.forgotten[nodes[0]] = o
		case verbPin:
			ids := make([]nodeID, len(nodes))
			for i, node := range nodes {
				ids[i] = m.prefixes.ID(node)
			}
			if out.pins == nil {
				out.pins = new(bart.Table[*pin])
			}
			out.pins.Insert(o.Action.prefix, &pin{ids, o})
		}
	}
	return out
}

// resumeOverrides takes over the overrides of the previous instance if the admin
// file has an error, and finds out which ones are active.
func (d *DNSB) resumeOverrides(previous *DNSB) {
	if previous != nil && d.admin.Failed() && d.conf.admin == previous.conf.admin {
		previous.mu.Lock()
		d.schedule.Resume(previous.active)
		d.admin.Resume(previous.active, previous.admin.Status().Loaded)
		previous.mu.Unlock()
	}
	d.schedule.Update(d.admin.Value(), true)
	d.active = d.schedule.Active()
}

// pollOverrides loads the admin file if it has changed, and reports whether
// other overrides are active now. An error leaves the previous ones.
func (d *DNSB) pollOverrides() bool {
	loaded := d.admin.Poll()
	all := d.admin.Value()
	if loaded {
		log.Infof("Reloaded %s: %d overrides", d.admin, len(all))
	}
	if !d.schedule.Update(all, loaded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active = d.schedule.Active()
	return true
}
