package dnsb

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/gaissmai/bart"
	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// The verbs of overrides.
const (
	verbDrain  = "drain"  // no referral names the node while another one is live
	verbForget = "forget" // the node is removed when it is dead
	verbPin    = "pin"    // resolvers in a prefix are referred to these nodes
	verbDown   = "down"   // servers count as down at all nodes
	verbUp     = "up"     // servers count as up at all nodes
)

// serverWord follows a verb that is about a server and not about a node.
const serverWord = "server"

// nodeAction is what an override names.
type nodeAction struct {
	prefix netip.Prefix // of a pin
	nodes  []string     // best first; a drain and a forget have one

	server *serveroverride.Action // at all nodes; nil: the override is about nodes
}

// nodeOverride is one line of the admin file:
//
//	drain|forget NODE      until TIME reason TEXT...
//	pin PREFIX NODE...     until TIME reason TEXT...
//	down|up|drain server SERVER [for SERVICE] until TIME reason TEXT...
type nodeOverride = override.Override[nodeAction]

// OverrideVerbs returns the verbs of the lines of an admin file.
func OverrideVerbs() []string { return overrideGrammar(nil).Words() }

// CheckOverride returns an error if a line cannot be one of the admin file.
// It is an error, too, if it would have no effect where it is added.
func (d *DNSB) CheckOverride(line string) error {
	o, err := overrideGrammar(d.conf).Parse(strings.Fields(line))
	if err != nil {
		return err
	}
	all, err := readAdminFile(d.conf)
	if err != nil {
		return fmt.Errorf("the admin file has an error, so that no new line counts: correct it first: %w", err)
	}
	if o.Action.server == nil {
		return nil
	}
	var servers []override.Override[serveroverride.Action]
	for _, other := range all {
		if other.Action.server != nil {
			servers = append(servers, serveroverride.Override{Text: other.Text, Until: other.Until, Action: *other.Action.server})
		}
	}
	if len(servers) >= serveroverride.Max {
		return errTooMany
	}
	return serveroverride.CheckAdded(servers, *o.Action.server)
}

var errTooMany = fmt.Errorf("more than %d overrides of servers: remove those that have ended, or name several servers by a pattern such as fra-*", serveroverride.Max)

// AdminFile returns the path of the admin file, "" if there is none.
func (d *DNSB) AdminFile() string { return d.conf.admin }

// Store returns where registrations are stored, nil if only in memory, and the
// longest lease.
func (d *DNSB) Store() (at registry.Location, longestLease time.Duration) {
	return d.conf.store, d.conf.leaseMax
}

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
		{Word: verbDrain, Usage: "drain NODE", Parse: func(arguments []string) (nodeAction, error) {
			if len(arguments) > 1 && arguments[0] == serverWord {
				return servers(conf, serveroverride.Drain, arguments)
			}
			a, err := oneNode(arguments)
			if err != nil && !errors.Is(err, override.ErrUsage) {
				err = fmt.Errorf("%w, or write 'drain server %s' for a server", err, arguments[0])
			}
			return a, err
		}},
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
		{Word: verbDown, Usage: verbDown + serverUsage, Parse: func(arguments []string) (nodeAction, error) {
			return servers(conf, serveroverride.Down, arguments)
		}},
		{Word: verbUp, Usage: verbUp + serverUsage, Parse: func(arguments []string) (nodeAction, error) {
			return servers(conf, serveroverride.Up, arguments)
		}},
	}
}

const serverUsage = " " + serverWord + " " + serveroverride.Usage

// servers returns the action of a verb that is about servers.
func servers(conf *config, v serveroverride.Verb, arguments []string) (nodeAction, error) {
	if len(arguments) == 0 || arguments[0] != serverWord {
		return nodeAction{}, override.ErrUsage
	}
	a, err := serveroverride.Parse(v, arguments[1:])
	switch name := a.ServiceName(); {
	case errors.Is(err, override.ErrUsage): // the usage of drain does not have it
		return nodeAction{}, fmt.Errorf("expected '%s%s until TIME reason TEXT...'", v, serverUsage)
	case err != nil:
		return nodeAction{}, err
	case name != "" && !dns.IsSubDomain(conf.zone, name):
		return nodeAction{}, fmt.Errorf("service '%s' is not in the zone %s: write its full name", name, conf.zone)
	}
	return nodeAction{server: &a}, nil
}

func nodesAction(conf *config, prefix netip.Prefix, nodes []string) (nodeAction, error) {
	names := make([]string, len(nodes))
	for i, node := range nodes {
		var err error
		if names[i], err = conf.nodeName(node); err != nil {
			return nodeAction{}, err
		}
	}
	return nodeAction{prefix: prefix, nodes: names}, nil
}

// newAdminFile returns the admin file of a block, one without overrides if the
// block names none.
func newAdminFile(conf *config) *filewatch.Loader[[]nodeOverride] {
	if conf.admin == "" {
		return filewatch.NewLoader[[]nodeOverride]("admin file", nil, log, nil)
	}
	parse := func() ([]nodeOverride, error) { return readAdminFile(conf) }
	return filewatch.NewLoader("admin file", parse, log, nil, conf.admin)
}

// readAdminFile reads the admin file of a block, which need not exist.
func readAdminFile(conf *config) ([]nodeOverride, error) {
	all, err := overrideGrammar(conf).ReadFile(conf.admin)
	n := 0
	for _, o := range all {
		if o.Action.server == nil {
			continue
		}
		if n++; n > serveroverride.Max {
			return nil, fmt.Errorf("%s - %w", o.Position(), errTooMany)
		}
	}
	return all, err
}

// overrides are those in force, for one snapshot.
type overrides struct {
	drained   map[string]nodeOverride // by node
	forgotten map[string]nodeOverride // by node
	pins      *bart.Table[*pin]       // nil: none
	servers   []string                // lines for nodes
	counts    map[string]int          // by verb, and "server" if it is about servers
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
		counts: map[string]int{verbDrain: 0, verbForget: 0, verbPin: 0, verbDrain + " server": 0, verbDown + " server": 0, verbUp + " server": 0},
	}
	for _, o := range active {
		if o.Action.server != nil {
			out.counts[o.Verb+" server"]++
			out.servers = append(out.servers, lineForNodes(o))
			continue
		}
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
		log.Infof("Reloaded %s: %s", d.admin, plural.Of(len(all), "override"))
	}
	if !d.schedule.Update(all, loaded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active = d.schedule.Active()
	return true
}
