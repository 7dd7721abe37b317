package dnslb

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// config is a parsed dnslb block.
type config struct {
	Zones []string // of the server block, absolute, lower case
	block position

	inventory                // of the Corefile alone
	probes          []string // names of the latencyprobes of the server block
	file            servicesFile
	admin           *adminFile     // nil: none
	explainTo       []netip.Prefix // who may ask why; none: nobody
	allDown         allDown
	observe         bool
	ttlLow, ttlHigh uint32 // seconds: while the first server is being confirmed down, and else
	loaded          uint32 // serial of the zone: when it was read, in seconds since 1970

	Node      string // "" if DNS-B does not refer here
	addresses []netip.Addr
	near      []registration.Prefix
	location  string // as in a LOC record; "": not told
	dnsbs     []dnsclient.Endpoint
	ca        *x509.CertPool // that signs the certificates of DNS-Bs; nil: those of the system
	key       dnsclient.Key
	lease     time.Duration
	deputies  []string          // nodes
	viewKey   dnsclient.Key     // with which nodes share views; no name: they do not
	port      string            // of this server block, at which other nodes listen too
	states    bool              // the keys of the zones, to DNS-B
	ds        []registration.DS // these keys, once they are known
}

// allDown is what to answer when no server is up: the last ranking, unless one
// of these is set.
type allDown struct {
	refuse bool
	addrs  []netip.Addr
}

// describe tells what is answered to questions for some types of records.
func (a allDown) describe(qtypes []uint16) string {
	switch {
	case a.refuse:
		return "REFUSED"
	case a.addrs == nil:
		return "the last ranking"
	}
	var answers []string
	for _, qtype := range qtypes {
		for _, addr := range a.of(qtype) {
			answers = append(answers, addr.String())
		}
		if a.of(qtype) == nil {
			answers = append(answers, "no "+dns.Type(qtype).String()+" record")
		}
	}
	return strings.Join(answers, ", ")
}

// of returns the addresses for a type of record.
func (a allDown) of(qtype uint16) []netip.Addr {
	var addrs []netip.Addr
	for _, addr := range a.addrs {
		if addr.Is4() == (qtype == dns.TypeA) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

const (
	defaultTTLLow  = 20
	defaultTTLHigh = 60
	defaultLease   = 30 * time.Minute
	// A shorter lease is refreshed more than twice a minute for nothing: DNS-B
	// finds a dead node by probing, not by its lease.
	minLease = 30 * time.Second
	maxLease = 24 * time.Hour
	// RFC 2181, section 8, allows 68 years; a ranking is stale in minutes.
	maxTTL = 86400
)

var properties = []string{"server", "service", "services", "ttl", "all-down", "admin", "explain", "observe", "node", "near", "location", "register", "ca", "key", "lease", "deputy", "view-key", "ds"}

// parse reads one dnslb block.
func parse(c *caddy.Controller) (config, error) {
	conf := config{
		ttlLow:  defaultTTLLow,
		ttlHigh: defaultTTLHigh,
		loaded:  uint32(time.Now().Unix()), // #nosec G115 -- serial arithmetic (RFC 1982)
		lease:   defaultLease,
	}
	c.Next()
	conf.block = position{c.File(), c.Line()}
	if len(c.RemainingArgs()) > 0 {
		return conf, c.Err("dnslb takes no argument: its zones are those of the server block")
	}
	conf.Zones = plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys)
	if err := checkBlock(c); err != nil {
		return conf, err
	}

	conf.probes = latencyprobe.Of(c).Probes()
	conf.port = dnsserver.GetConfig(c).Port

	p := &parser{Controller: c, lines: newLines(&c.Dispenser, conf.Zones, conf.probes), conf: &conf, seen: make(map[string]bool)}
	for c.NextBlock() {
		if err := p.line(c.Val(), c.RemainingArgs()); err != nil {
			return conf, err
		}
	}
	if c.Next() {
		return conf, plugin.ErrOnce
	}
	err := p.finish()
	return conf, err
}

type parser struct {
	*caddy.Controller
	lines *lines
	conf  *config
	seen  map[string]bool
	later []func() error // checks that need the whole block, with the line that they are about
}

func (p *parser) line(property string, args []string) error {
	if once := property != "server" && property != "service" && property != "near" && property != "register"; once && p.seen[property] {
		return p.Errf("'%s' is given twice", property)
	}
	p.seen[property] = true
	switch property {
	case "server":
		return p.lines.server(args)
	case "service":
		return p.lines.service(args)
	case "services":
		return p.services(args)
	case "ttl":
		return p.ttl(args)
	case "all-down":
		return p.allDown(args)
	case "admin":
		return p.admin(args)
	case "explain":
		return p.explain(args)
	case "observe":
		return p.observe(args)
	case "node":
		return p.node(args)
	case "near":
		return p.near(args)
	case "location":
		return p.location(args)
	case "register":
		return p.register(args)
	case "ca":
		return p.authority(args)
	case "key":
		return p.key(args)
	case "lease":
		return p.lease(args)
	case "deputy":
		return p.deputy(args)
	case "view-key":
		return p.viewKey(args)
	case "ds":
		if len(args) > 0 {
			return p.Err("'ds' takes no argument: it tells DNS-B the keys that dnssec signs with")
		}
		p.needs("ds", "register")
		p.conf.states = true
		return nil
	}
	return p.Errf("unknown property '%s'; known: %s", property, strings.Join(properties, ", "))
}

func (p *parser) services(args []string) error {
	if len(args) != 1 {
		return p.Err("expected 'services FILE'; its lines are 'server' and 'service' lines")
	}
	p.conf.file.path = p.path(args[0])
	if _, err := os.Stat(p.conf.file.path); err != nil {
		return p.Errf("services: %v", err)
	}
	return nil
}

func (p *parser) admin(args []string) error {
	if len(args) != 1 {
		return p.Errf("expected 'admin FILE'; its lines are %s", overrideGrammar)
	}
	p.conf.admin = newAdminFile(p.path(args[0]), p.conf.Zones[0])
	if err := p.conf.admin.Load(); err != nil {
		// A server that does not start for a temporary override is worse.
		log.Errorf("Failed to load %s, keeping the overrides of before a reload: %v", p.conf.admin, err)
	}
	return nil
}

func (p *parser) explain(args []string) error {
	if len(args) == 0 {
		return p.Errf("expected 'explain PREFIX...': who may ask for TXT records of %s.SERVICE", explain.Label)
	}
	for _, arg := range args {
		prefix, err := netip.ParsePrefix(arg)
		if err != nil {
			return p.Errf("'explain %s': expected an address prefix such as 192.0.2.0/24 or 2001:db8::1/128", arg)
		}
		if prefix != prefix.Masked() {
			return p.Errf("'explain %s': host bits are set; meant is %s", arg, prefix.Masked())
		}
		p.conf.explainTo = append(p.conf.explainTo, prefix)
	}
	return nil
}

func (p *parser) allDown(args []string) error {
	switch {
	case len(args) == 0:
		return p.Err("expected 'all-down open', 'all-down refuse' or 'all-down ADDRESS...'")
	case len(args) == 1 && args[0] == "open":
		return nil
	case len(args) == 1 && args[0] == "refuse":
		p.conf.allDown.refuse = true
		return nil
	}
	var err error
	p.conf.allDown.addrs, err = p.lines.addresses(args)
	return err
}

func (p *parser) observe(args []string) error {
	if len(args) > 0 {
		return p.Err("'observe' takes no argument")
	}
	p.conf.observe = true
	err := p.Err("'observe' leaves the answers to the next plugin, and DNS-B would send resolvers here: remove 'observe' or 'node'")
	p.check(func() error {
		if p.seen["node"] {
			return err
		}
		return nil
	})
	return nil
}

func (p *parser) ttl(args []string) error {
	if len(args) != 2 {
		return p.Err("expected 'ttl LOW HIGH', for example 'ttl 20s 60s'")
	}
	var ttl [2]uint32
	for i, arg := range args {
		d, err := time.ParseDuration(arg)
		if err != nil || d < time.Second || d > maxTTL*time.Second || d%time.Second != 0 {
			return p.Errf("'ttl %s': expected whole seconds from 1s to %s", arg, maxTTL*time.Second)
		}
		ttl[i] = uint32(d / time.Second) // #nosec G115 -- bounded above
	}
	p.conf.ttlLow, p.conf.ttlHigh = ttl[0], ttl[1]
	if ttl[0] > ttl[1] {
		return p.Errf("'ttl %s %s': the lower end comes first", args[0], args[1])
	}
	return nil
}

func (p *parser) node(args []string) error {
	if len(args) < 2 {
		return p.Err("expected 'node NAME ADDRESS...': the name at DNS-B, and the addresses that resolvers reach")
	}
	p.conf.Node = strings.ToLower(args[0])
	if !registration.IsLabel(p.conf.Node) {
		return p.Errf("'%s' is no node name: one label of letters, digits and '-'", args[0])
	}
	var err error
	p.conf.addresses, err = p.lines.addresses(args[1:])
	return err
}

func (p *parser) near(args []string) error {
	if len(args) == 0 {
		return p.Err("expected 'near PREFIX...' or 'near FILE'")
	}
	p.needs("near", "node")
	for _, arg := range args {
		prefix, err := parsePrefix(arg)
		if err == nil {
			p.conf.near = append(p.conf.near, prefix)
			continue
		}
		// Whatever looks like a prefix is a wrong prefix and not a file.
		if len(args) > 1 || arg == "" || strings.ContainsAny(arg, ":!") || strings.IndexAny(arg, "0123456789") == 0 {
			return p.Errf("'near %s': %v", arg, err)
		}
		prefixes, err := readPrefixes(p.path(arg))
		if err != nil {
			return p.Errf("'near %s': %v", arg, err)
		}
		p.conf.near = append(p.conf.near, prefixes...)
	}
	seen := make(map[netip.Prefix]bool)
	for _, prefix := range p.conf.near {
		if seen[prefix.Prefix] {
			return p.Errf("'near': prefix %s is given twice", prefix.Prefix)
		}
		seen[prefix.Prefix] = true
	}
	return nil
}

func (p *parser) register(args []string) error {
	if len(args) == 0 {
		return p.Err("expected 'register ADDRESS[:PORT]...' or 'register tls://ADDRESS[:PORT][#NAME]...'")
	}
	p.needs("register", "node")
	p.needs("register", "key")
	for _, arg := range args {
		dnsb, err := dnsclient.ParseEndpoint(arg)
		if err != nil {
			return p.Errf("'register': %v", err)
		}
		if slices.Contains(p.conf.dnsbs, dnsb) {
			return p.Errf("'register %s' is given twice", arg)
		}
		p.conf.dnsbs = append(p.conf.dnsbs, dnsb)
	}
	return nil
}

func (p *parser) authority(args []string) error {
	if len(args) != 1 {
		return p.Err("expected 'ca FILE': certificates of authorities, in PEM form")
	}
	p.needs("ca", "register")
	var err error
	if p.conf.ca, err = dnsclient.ReadCA(p.path(args[0])); err != nil {
		return p.Errf("'ca %s': %v", args[0], err)
	}
	return nil
}

func (p *parser) location(args []string) error {
	if len(args) != 2 {
		return p.Err("expected 'location LAT LON' in degrees, for example 'location 48.86 2.35'")
	}
	p.needs("location", "node")
	var err error
	if p.conf.location, err = registration.ParseLocation(args[0], args[1]); err != nil {
		return p.Errf("'location': %v", err)
	}
	return nil
}

func (p *parser) key(args []string) error {
	p.needs("key", "register")
	var err error
	p.conf.key, err = p.keyOf("key", args)
	return err
}

func (p *parser) lease(args []string) error {
	if len(args) != 1 {
		return p.Err("expected 'lease DURATION', for example 'lease 30m'")
	}
	p.needs("lease", "register")
	d, err := time.ParseDuration(args[0])
	if err != nil || d < minLease || d > maxLease {
		return p.Errf("'lease %s': expected a duration from %s to %s", args[0], minLease, maxLease)
	}
	p.conf.lease = d
	return nil
}

func (p *parser) deputy(args []string) error {
	if len(args) == 0 {
		return p.Err("expected 'deputy NODE...': the nodes that stand in for this one, best first")
	}
	p.needs("deputy", "register")
	p.needs("deputy", "view-key")
	for _, arg := range args {
		node := strings.ToLower(arg)
		if !registration.IsLabel(node) {
			return p.Errf("'%s' is no node name: one label of letters, digits and '-'", arg)
		}
		if slices.Contains(p.conf.deputies, node) {
			return p.Errf("deputy '%s' is given twice", arg)
		}
		p.conf.deputies = append(p.conf.deputies, node)
	}
	for i, node := range p.conf.deputies {
		self := p.Errf("'deputy %s': node %s cannot be its own deputy, name another one", args[i], node)
		p.check(func() error {
			if node == p.conf.Node {
				return self
			}
			return nil
		})
	}
	return nil
}

func (p *parser) viewKey(args []string) error {
	p.needs("view-key", "register") // DNS-B tells where the other nodes are
	var err error
	if p.conf.viewKey, err = p.keyOf("view-key", args); err != nil {
		return err
	}
	cfg := dnsserver.GetConfig(p.Controller)
	if cfg.Transport != transport.DNS {
		return p.Errf("'view-key': views are shared over plain TCP, and this server block listens for %s: add a block without a scheme", cfg.Transport)
	}
	if secret, ok := cfg.TsigSecret[p.conf.viewKey.Name]; ok && secret != p.conf.viewKey.Secret {
		return p.Errf("'view-key': the tsig of this server block has another secret for the key %s", p.conf.viewKey.Name)
	}
	twoSecrets := p.Errf("'view-key': 'key' has another secret for the name %s: give one of them another name", p.conf.viewKey.Name)
	p.check(func() error {
		if p.conf.key.Name == p.conf.viewKey.Name && p.conf.key.Secret != p.conf.viewKey.Secret {
			return twoSecrets
		}
		return nil
	})
	return nil
}

// keyOf reads FILE or NAME SECRET.
func (p *parser) keyOf(property string, args []string) (key dnsclient.Key, err error) {
	switch len(args) {
	case 1:
		key, err = dnsclient.ReadKey(p.path(args[0]))
	case 2:
		key, err = dnsclient.NewKey(args[0], "", args[1])
	default:
		return key, p.Errf("expected '%s FILE' or '%s NAME SECRET'", property, property)
	}
	if err != nil {
		return key, p.Errf("'%s %s': %v", property, args[0], err)
	}
	return key, nil
}

// needs notes that a property makes no sense without another one.
func (p *parser) needs(property, other string) {
	err := p.Errf("'%s' needs a line '%s' in this block", property, other)
	p.check(func() error {
		if !p.seen[other] {
			return err
		}
		return nil
	})
}

func (p *parser) check(f func() error) { p.later = append(p.later, f) }

func (p *parser) finish() error {
	p.conf.inventory = p.lines.inventory
	if err := p.conf.inventory.check(); err != nil && p.conf.file.path == "" {
		return err
	}
	if _, err := p.conf.file.read(p.conf); err != nil {
		return err
	}
	for _, f := range p.later {
		if err := f(); err != nil {
			return err
		}
	}
	if len(p.conf.dnsbs) > 0 && !claim(p.Controller, p.conf.Node) {
		return p.Errf("node '%s' is registered by another server block already: one block with both zones can do that", p.conf.Node)
	}
	if len(p.conf.dnsbs) > 0 {
		// As far as it can be known without DNS-B, it must be one that it takes.
		reg := registrationOf(*p.conf)
		reg.Zone, reg.Serial = dnsmsg.Parent(p.conf.Zones[0]), 1
		reg.Cuts = p.conf.Zones[:1]
		if _, err := reg.Messages(); err != nil {
			return p.Errf("DNS-B would refuse the registration of node '%s': %v", p.conf.Node, err)
		}
	}
	return nil
}

// claim notes that a block of this Corefile registers a node and reports
// whether it is the only one: each would take back what the other registers.
func claim(c *caddy.Controller, node string) bool {
	type key struct{ node string }
	if c.Get(key{node}) != nil {
		return false
	}
	c.Set(key{node}, true)
	return true
}

// path makes a relative path relative to the root of the server block.
func (p *parser) path(name string) string {
	if root := dnsserver.GetConfig(p.Controller).Root; root != "" && !filepath.IsAbs(name) {
		return filepath.Join(root, name)
	}
	return name
}

// parsePrefix reads PREFIX or !PREFIX.
func parsePrefix(s string) (registration.Prefix, error) {
	text, negated := strings.CutPrefix(s, "!")
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return registration.Prefix{}, fmt.Errorf("'%s' is no address prefix such as 192.0.2.0/24 or !192.0.2.128/25", s)
	}
	if prefix != prefix.Masked() {
		return registration.Prefix{}, fmt.Errorf("'%s' has host bits set; meant is %s", s, prefix.Masked())
	}
	return registration.Prefix{Prefix: prefix, Negated: negated}, nil
}

// readPrefixes reads a file with any number of prefixes a line; '#' starts a
// comment. Errors name the line.
func readPrefixes(name string) ([]registration.Prefix, error) {
	content, err := os.ReadFile(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	var prefixes []registration.Prefix
	err = corefile.EachLine(name, content, func(_ int, fields []string) error {
		for _, field := range fields {
			prefix, err := parsePrefix(field)
			if err != nil {
				return err
			}
			prefixes = append(prefixes, prefix)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(prefixes) == 0 {
		return nil, fmt.Errorf("%s holds no prefix", name)
	}
	return prefixes, nil
}
