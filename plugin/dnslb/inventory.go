package dnslb

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// inventory is the configured servers and services.
type inventory struct {
	servers  map[string]serverConfig // by name
	services []serviceConfig
}

// serverConfig is a server: a machine with addresses.
type serverConfig struct {
	addrs []netip.Addr
	settings
}

// settings are the options of a server. It is comparable.
type settings struct {
	weight int
	bias   time.Duration
	tier   int
	drain  bool
	beside string // node that stands where the server does; "": none, or none that is known
}

// plain are the settings of a server without options.
var plain = settings{weight: 1, tier: 1}

// serviceConfig is a load-balanced host name.
type serviceConfig struct {
	name    string
	servers labels // none: the addresses that the backend zone has at the name are the servers
	options
	from corefile.Position
}

// labels are names of servers. Many services mention the same ones, which have their
// text once.
type labels []unique.Handle[string]

func labelsOf(names ...string) (l labels) {
	for _, name := range names {
		l = append(l, unique.Make(name))
	}
	return l
}

// shown returns the name without the final dot.
func (s serviceConfig) shown() string { return strings.TrimSuffix(s.name, ".") }

// options are the options of a service. It is comparable.
type options struct {
	probe   string
	answers int           // number of addresses in an answer
	within  time.Duration // of the latency of the first server: servers are tied
}

const (
	maxWeight  = 1000
	maxAnswers = 16 // more addresses do not fit into an answer over UDP
	maxLatency = 10 * time.Second
)

// inventoryParser reads the 'server' and 'service' lines of a Corefile or a
// services file.
type inventoryParser struct {
	inventory inventory

	zones    []string
	probes   []string                // none: the server block has no latencyprobe, which is an error of its own
	corefile map[string]serverConfig // servers of the Corefile by name, if this is a services file
	known    map[string]bool         // names of services
	beside   corefile.Position       // of the first server beside a node; zero: there is none
}

func newInventoryParser(zones, probes []string) *inventoryParser {
	return &inventoryParser{
		zones: zones, probes: probes,
		inventory: inventory{servers: make(map[string]serverConfig)}, known: make(map[string]bool),
	}
}

func (p *inventoryParser) properties() []corefile.Property {
	return []corefile.Property{
		{Name: "server", Usage: "server NAME ADDRESS... [weight N] [bias DURATION] [tier N] [drain] [beside NODE]", Many: true, Parse: p.server},
		{Name: "service", Usage: "service NAME [SERVER...] [probe NAME] [answers N] [within DURATION]", Many: true, Parse: p.service},
	}
}

// with returns what i and other hold together.
func (i inventory) with(other inventory) inventory {
	all := inventory{
		servers:  make(map[string]serverConfig, len(i.servers)+len(other.servers)),
		services: slices.Concat(i.services, other.services),
	}
	for _, part := range []inventory{i, other} {
		maps.Copy(all.servers, part.servers)
	}
	return all
}

// check returns an error for each service that has an unknown server, an address twice,
// or too many, and for no more than corefile.MaxErrors.
func (i inventory) check() error {
	var failed []error
	seen := make(map[netip.Addr]bool)
	for _, svc := range i.services {
		clear(seen)
		if err := i.checkService(svc, seen); err != nil {
			if failed = append(failed, svc.from.Errorf("%w", err)); len(failed) == corefile.MaxErrors {
				break
			}
		}
	}
	return corefile.Join(failed...)
}

// checkService is check for one service. seen is empty.
func (i inventory) checkService(svc serviceConfig, seen map[netip.Addr]bool) error {
	for _, label := range svc.servers {
		server, ok := i.servers[label.Value()]
		if !ok {
			return fmt.Errorf("service '%s': there is no line 'server %s ADDRESS...'", svc.shown(), label.Value())
		}
		for _, addr := range server.addrs {
			if seen[addr] {
				return fmt.Errorf("service '%s': two of its servers have the same address, %s", svc.shown(), addr)
			}
			seen[addr] = true
		}
	}
	if len(seen) > ranking.MaxServers {
		return fmt.Errorf("service '%s' has %d addresses: at most %d can be ranked", svc.shown(), len(seen), ranking.MaxServers)
	}
	return nil
}

func (p *inventoryParser) server(l corefile.Line) error {
	if len(l.Args) < 2 {
		return corefile.ErrUsage
	}
	name, err := corefile.Label("server", l.Args[0])
	if err != nil {
		return err
	}
	if _, ok := p.corefile[name]; ok {
		return fmt.Errorf("server '%s' is in the Corefile, too: remove one of the lines", name)
	}
	if _, ok := p.inventory.servers[name]; ok {
		return corefile.Twice("server '"+name+"'", "put all its addresses on one line")
	}
	server, addrs := serverConfig{settings: plain}, l.Args[1:]
	p.inventory.servers[name] = server // so that services may name it, even if the line has an error
	if i := slices.IndexFunc(addrs, isServerOption); i >= 0 {
		if err := server.settings.parse(addrs[i:]); err != nil {
			return err
		}
		addrs = addrs[:i]
	}
	if server.beside != "" && p.beside == (corefile.Position{}) {
		p.beside = l.At
	}
	if len(addrs) == 0 {
		return fmt.Errorf("server '%s' has no address", name)
	}
	server.addrs, err = corefile.Addresses(addrs, dnsmsg.IsHost)
	p.inventory.servers[name] = server
	return err
}

var serverOptions = []string{"weight", "bias", "tier", "drain", "beside"}

func isServerOption(word string) bool { return slices.Contains(serverOptions, word) }

// parse reads the options of a server.
func (s *settings) parse(args []string) error {
	for i := 0; i < len(args); i++ {
		option := args[i]
		if option == "drain" {
			s.drain = true
			continue
		}
		if !isServerOption(option) {
			return corefile.Unknown("option", option, serverOptions)
		}
		if i++; i == len(args) {
			return needsValue(option)
		}
		var err error
		switch value := args[i]; option {
		case "weight":
			s.weight, err = corefile.Number(option, value, maxWeight)
		case "tier":
			s.tier, err = corefile.Number(option, value, maxWeight)
		case "bias":
			s.bias, err = latencies.Parse(option, value)
		case "beside":
			if s.beside != "" {
				return corefile.Twice("'beside'", "name one node")
			}
			s.beside, err = corefile.Label("node", value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkBeside returns an error if servers stand beside nodes and this is no node that
// could know what these measure.
func (p *inventoryParser) checkBeside(registers bool) error {
	if registers || p.beside == (corefile.Position{}) {
		return nil
	}
	return p.beside.Errorf("'beside' needs 'register': what nodes measure comes with the map of DNS-B, add 'register ADDRESS' to the dnslb block or remove 'beside'")
}

func needsValue(option string) error { return fmt.Errorf("'%s' needs a value", option) }

// latencies are the durations that are compared with latencies.
var latencies = corefile.Durations{Min: 1, Max: maxLatency, Example: "10ms"}

func (p *inventoryParser) service(l corefile.Line) error {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	shown := l.Args[0]
	name, err := corefile.Name(shown)
	if err != nil {
		return err
	}
	svc := serviceConfig{name: name, options: options{answers: 1}, from: l.At}
	if plugin.Zones(p.zones).Matches(svc.name) == "" {
		return fmt.Errorf("service '%s' is outside of the zone of this server block (%s): services are full names", shown, strings.Join(p.zones, ", "))
	}
	if p.known[svc.name] {
		return corefile.Twice("service '"+shown+"'", "keep one line")
	}
	if reservedName(svc.name) {
		return fmt.Errorf("service '%s': names with a label '%s' or '%s' are reserved", shown, explain.Label, peerview.Label)
	}
	p.known[svc.name] = true

	for i := 1; i < len(l.Args); i++ {
		switch word := l.Args[i]; word {
		case "probe", "answers", "within":
			if i++; i == len(l.Args) {
				return needsValue(word)
			}
			if err := p.serviceOption(&svc.options, word, l.Args[i]); err != nil {
				return err
			}
		default:
			server := unique.Make(strings.ToLower(word))
			if slices.Contains(svc.servers, server) {
				return corefile.Twice("server '"+server.Value()+"'", "name it once")
			}
			svc.servers = append(svc.servers, server)
		}
	}
	if svc.probe == "" && len(p.probes) > 0 && !slices.Contains(p.probes, "") {
		return fmt.Errorf("this server block has no unnamed latencyprobe: add one, or 'probe NAME' to service '%s'", shown)
	}
	p.inventory.services = append(p.inventory.services, svc)
	return nil
}

func (p *inventoryParser) serviceOption(o *options, option, value string) (err error) {
	switch option {
	case "probe":
		if o.probe = strings.ToLower(value); len(p.probes) > 0 && !slices.Contains(p.probes, o.probe) {
			return corefile.Unknown("probe", value, shownProbes(p.probes))
		}
	case "answers":
		o.answers, err = corefile.Number(option, value, maxAnswers)
	case "within":
		o.within, err = latencies.Parse(option, value)
	}
	return err
}

// shownProbes returns the names of probes for an error.
func shownProbes(names []string) []string {
	shown := slices.Clone(names)
	if i := slices.Index(shown, ""); i >= 0 {
		shown[i] = "the unnamed one"
	}
	return shown
}

// reservedName reports whether a name has a label for explanations or views.
func reservedName(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == explain.Label || label == peerview.Label {
			return true
		}
	}
	return false
}
