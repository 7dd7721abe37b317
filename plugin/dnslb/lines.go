package dnslb

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// inventory is which servers and services there are.
type inventory struct {
	servers  map[string]serverConfig // by name
	services []serviceConfig
}

// serverConfig is a machine.
type serverConfig struct {
	addrs []netip.Addr
	settings
}

// settings are what the operator wants of a server. It is comparable.
type settings struct {
	weight int
	bias   time.Duration
	tier   int
	drain  bool
}

// plain are the settings of a server without options.
var plain = settings{weight: 1, tier: 1}

// serviceConfig is a load-balanced host name.
type serviceConfig struct {
	name    string
	servers []string // none: those whose addresses the zone behind has at the name
	options
	from position
}

// shown is the name as people write it.
func (s serviceConfig) shown() string { return strings.TrimSuffix(s.name, ".") }

// options are those of a service. It is comparable.
type options struct {
	probe   string
	answers int           // how many addresses an answer holds
	within  time.Duration // of the first: counts as equally fast
}

// position is where a line is.
type position struct {
	file string
	line int
}

// errf returns an error of the form of caddy's, about an earlier line.
func (p position) errf(format string, args ...any) error {
	return fmt.Errorf("%s:%d - Error during parsing: %s", p.file, p.line, fmt.Sprintf(format, args...))
}

const (
	maxWeight  = 1000
	maxAnswers = 16 // beyond, an answer over UDP is truncated
	maxLatency = 10 * time.Second
)

// lines reads 'server' and 'service' lines, which a Corefile and a services file
// have alike.
type lines struct {
	*caddyfile.Dispenser
	inventory

	zones  []string
	probes []string
	known  map[string]bool // services, by name
	labels map[string]string
}

func newLines(d *caddyfile.Dispenser, zones, probes []string) *lines {
	return &lines{
		Dispenser: d, zones: zones, probes: probes,
		inventory: inventory{servers: make(map[string]serverConfig)}, known: make(map[string]bool), labels: make(map[string]string),
	}
}

// with returns what i and other hold together.
func (i inventory) with(other inventory) inventory {
	all := inventory{
		servers:  make(map[string]serverConfig, len(i.servers)+len(other.servers)),
		services: slices.Concat(i.services, other.services),
	}
	for _, part := range []inventory{i, other} {
		for name, s := range part.servers {
			all.servers[name] = s
		}
	}
	return all
}

// check returns an error for what only the whole shows.
func (i inventory) check() error {
	seen := make(map[netip.Addr]bool)
	for _, svc := range i.services {
		clear(seen)
		for _, name := range svc.servers {
			server, ok := i.servers[name]
			if !ok {
				return svc.from.errf("service '%s': there is no line 'server %s ADDRESS...'", svc.shown(), name)
			}
			for _, addr := range server.addrs {
				if seen[addr] {
					return svc.from.errf("service '%s': two of its servers have the same address", svc.shown())
				}
				seen[addr] = true
			}
		}
	}
	return nil
}

func (l *lines) server(args []string) error {
	if len(args) < 2 {
		return l.Err("expected 'server NAME ADDRESS...'")
	}
	name := strings.ToLower(args[0])
	if !registration.IsLabel(name) {
		return l.Errf("'%s' is no server name: one label of letters, digits and '-'", args[0])
	}
	if _, ok := l.servers[name]; ok {
		return l.Errf("server '%s' is given twice: put all its addresses on one line", name)
	}
	server, addrs := serverConfig{settings: plain}, args[1:]
	if i := slices.IndexFunc(addrs, isServerOption); i >= 0 {
		if err := l.serverOptions(&server.settings, addrs[i:]); err != nil {
			return err
		}
		addrs = addrs[:i]
	}
	var err error
	if server.addrs, err = l.addresses(addrs); err == nil && len(addrs) == 0 {
		err = l.Errf("server '%s' has no address", args[0])
	}
	l.servers[name] = server
	return err
}

func isServerOption(word string) bool {
	return word == "weight" || word == "bias" || word == "tier" || word == "drain"
}

func (l *lines) serverOptions(s *settings, args []string) error {
	for i := 0; i < len(args); i++ {
		option := args[i]
		if option == "drain" {
			s.drain = true
			continue
		}
		if !isServerOption(option) {
			return l.Errf("unknown option '%s' of a server; known: weight, bias, tier, drain, behind its addresses", option)
		}
		if i++; i == len(args) {
			return l.Errf("'%s' needs a value", option)
		}
		var err error
		switch value := args[i]; option {
		case "weight":
			s.weight, err = l.number(option, value, maxWeight)
		case "tier":
			s.tier, err = l.number(option, value, maxWeight)
		case "bias":
			s.bias, err = l.latency(option, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lines) number(option, value string, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > most {
		return 0, l.Errf("'%s %s': expected a number from 1 to %d", option, value, most)
	}
	return n, nil
}

// latency reads a duration that is compared with latencies.
func (l *lines) latency(option, value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 || d > maxLatency {
		return 0, l.Errf("'%s %s': expected a duration up to %s, for example 10ms", option, value, maxLatency)
	}
	return d, nil
}

func (l *lines) service(args []string) error {
	if len(args) == 0 {
		return l.Err("expected 'service NAME [SERVER...] [probe NAME] [answers N] [within DURATION]'")
	}
	svc := serviceConfig{name: strings.ToLower(dns.Fqdn(args[0])), options: options{answers: 1}, from: position{l.File(), l.Line()}}
	if _, ok := dns.IsDomainName(svc.name); !ok {
		return l.Errf("'%s' is no host name", args[0])
	}
	if plugin.Zones(l.zones).Matches(svc.name) == "" {
		return l.Errf("service '%s' is outside of the zone of this server block (%s): services are full names", args[0], strings.Join(l.zones, ", "))
	}
	if l.known[svc.name] {
		return l.Errf("service '%s' is given twice", args[0])
	}
	if reservedName(svc.name) {
		return l.Errf("service '%s': names with a label '%s' or '%s' are reserved", args[0], explain.Label, viewLabel)
	}
	l.known[svc.name] = true

	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "probe", "answers", "within":
			if i+1 == len(args) {
				return l.Errf("'%s' needs a value", args[i])
			}
			if err := l.serviceOption(&svc.options, args[i], args[i+1]); err != nil {
				return err
			}
			i++
		default:
			name := strings.ToLower(args[i])
			if slices.Contains(svc.servers, name) {
				return l.Errf("server '%s' is named twice in service '%s'", name, args[0])
			}
			svc.servers = append(svc.servers, l.label(name))
		}
	}
	if svc.probe == "" && !slices.Contains(l.probes, "") {
		return l.Errf("this server block has no unnamed latencyprobe: add one, or 'probe NAME' to service '%s'", args[0])
	}
	l.services = append(l.services, svc)
	return nil
}

// label returns the one copy of a server's name: many services name it.
func (l *lines) label(name string) string {
	if one, ok := l.labels[name]; ok {
		return one
	}
	l.labels[name] = name
	return name
}

func (l *lines) serviceOption(o *options, option, value string) error {
	var err error
	switch option {
	case "probe":
		if o.probe = strings.ToLower(value); !slices.Contains(l.probes, o.probe) {
			return l.Errf("unknown probe '%s'; this server block has: %s", value, quoted(l.probes))
		}
	case "answers":
		o.answers, err = l.number(option, value, maxAnswers)
	case "within":
		o.within, err = l.latency(option, value)
	}
	return err
}

func (l *lines) addresses(args []string) ([]netip.Addr, error) {
	addrs := make([]netip.Addr, 0, len(args))
	for _, arg := range args {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.Zone() != "" || !isHost(addr) {
			return nil, l.Errf("'%s' is no IP address of a host", arg)
		}
		addr = addr.Unmap()
		if slices.Contains(addrs, addr) {
			return nil, l.Errf("address %s is given twice", addr)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = "'" + name + "'"
		if name == "" {
			out[i] = "the unnamed one"
		}
	}
	return strings.Join(out, ", ")
}

// viewLabel is, as that of explanations, a label that services cannot have: what is
// below it is not from the zone.
const viewLabel = "_view"

func reservedName(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == explain.Label || label == viewLabel {
			return true
		}
	}
	return false
}
