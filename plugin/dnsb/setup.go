package dnsb

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
)

const (
	pluginName = "dnsb"
	known      = "ns, accept, node, cut, ds, prefix, map, mmdb, asn, country, continent, export, default, lease, ttl, store, admin, explain"
)

var log = clog.NewWithPlugin(pluginName)

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	d, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	if d.probe, err = probeOf(c); err != nil {
		return plugin.Error(pluginName, err)
	}

	server := dnsserver.GetConfig(c)
	server.AllowOpcode(dns.OpcodeUpdate)
	server.AddPlugin(func(next plugin.Handler) plugin.Handler {
		d.Next = next
		return d
	})

	run, kept := running.Attach(c), registries.Attach(c)
	setupcheck.Add(c, func() (err error) {
		if d.signer, err = nsec.New(server.Handler("dnssec"), []string{d.conf.zone}); err == nil {
			err = checkSigned(d.signer, d.conf.zone, d.conf.knownCuts())
		}
		if err != nil {
			return plugin.Error(pluginName, at(c.File(), d.conf.blockLine, "%s", err))
		}
		return nil
	})
	c.OnStartup(func() error {
		d.secondaries, _ = server.Handler("transfer").(notifier)
		r := registries.Hold(kept, d.conf.zone, newRegistry)
		if err := r.use(d.conf.store, d.conf.zone, d.conf.leaseMax); err != nil {
			return plugin.Error(pluginName, err)
		}
		if err := d.tables.check(r, d.conf); err != nil {
			return plugin.Error(pluginName, err)
		}
		running.Hold(run, d, func() struct{} { d.start(r); return struct{}{} })
		return nil
	})
	c.OnRestartFailed(d.reassert)
	return nil
}

// parse reads the block. All names in it are checked against its zone.
func parse(c *caddy.Controller) (*DNSB, error) {
	var p *parser
	for c.Next() {
		if p != nil {
			return nil, plugin.ErrOnce
		}
		zone, err := parseZone(c)
		if err != nil {
			return nil, err
		}
		p = &parser{Controller: c, config: newConfig(zone), prefixes: make(map[netip.Prefix]int)}
		p.config.blockLine = c.Line()
		for c.NextBlock() {
			if err := p.line(); err != nil {
				return nil, err
			}
		}
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	t, err := newTables(p.config)
	if err != nil {
		return nil, err
	}
	orders, read, err := readAdmin(p.config)
	if err != nil {
		return nil, err
	}
	return &DNSB{conf: p.config, tables: t, orders: orders, adminRead: read}, nil
}

// parseZone returns the one zone of the server block.
func parseZone(c *caddy.Controller) (string, error) {
	if args := c.RemainingArgs(); len(args) > 0 {
		return "", c.Errf("unexpected '%s': dnsb has no arguments, its zone is that of the server block", args[0])
	}
	zones := plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys)
	slices.Sort(zones)
	zones = slices.Compact(zones)
	if len(zones) != 1 || zones[0] == "." {
		return "", c.Errf("the zones of the server block are %s: dnsb needs exactly one, below the root; write a block for each", strings.Join(zones, " "))
	}
	return zones[0], nil
}

type parser struct {
	*caddy.Controller
	*config

	prefixes map[netip.Prefix]int // line of each
	uses     []use
	once     []string // properties that were there, of those that may not be repeated

	regionLines []int // of regions
}

// use is where a node is named that may be declared further down.
type use struct {
	node string
	file string
	line int
}

func (p *parser) line() error {
	word := p.Val()
	args := p.RemainingArgs()
	switch word {
	case "lease", "ttl", "export", "store", "admin":
		if slices.Contains(p.once, word) {
			return p.Errf("'%s' is there twice; keep one of the lines", word)
		}
		p.once = append(p.once, word)
	}
	switch word {
	case "ns":
		return p.ns(args)
	case "accept":
		return p.accept(args)
	case "node":
		return p.node(args)
	case "cut":
		return p.cut(args)
	case "ds":
		return p.ds(args)
	case "prefix":
		return p.prefix(args)
	case "map":
		if len(args) != 1 {
			return p.Err("write 'map FILE'; the lines of the file are 'PREFIX NODE...'")
		}
		path := p.file(args[0])
		if _, err := os.Stat(path); err != nil {
			return p.Errf("map: %v", err)
		}
		p.maps = append(p.maps, path)
		return nil
	case "mmdb":
		if len(args) != 1 {
			return p.Err("write 'mmdb FILE', a database in the MaxMind DB format")
		}
		path := p.file(args[0])
		if _, err := os.Stat(path); err != nil {
			return p.Errf("mmdb: %v", err)
		}
		p.databases = append(p.databases, path)
		return nil
	case "export":
		if len(args) != 1 {
			return p.Err("write 'export FILE'")
		}
		p.export = p.file(args[0])
		if dir, err := os.Stat(filepath.Dir(p.export)); err != nil || !dir.IsDir() {
			return p.Errf("export '%s': there is no directory %s; make it, writable for this server", args[0], filepath.Dir(p.export))
		}
		return nil
	case "asn", "country", "continent":
		return p.region(append([]string{word}, args...))
	case "default":
		if len(args) == 0 {
			return p.Err("write 'default NODE...'")
		}
		return p.nodes(args, &p.defaults)
	case "lease":
		return p.lease(args)
	case "ttl":
		return p.ttl(args)
	case "store":
		return p.storage(args)
	case "admin":
		if len(args) != 1 {
			return p.Errf("write 'admin FILE'; the lines of the file are %s", adminForm)
		}
		p.admin = p.file(args[0])
		return nil
	case "explain":
		return p.explains(args)
	}
	return p.Errf("unknown property '%s'; known: %s", word, known)
}

func (p *parser) ns(args []string) error {
	if len(args) < 2 {
		return p.Err("write 'ns NAME ADDRESS...'")
	}
	name, err := p.below(args[0])
	if err != nil {
		return err
	}
	if p.isReserved(name) {
		return p.Errf("ns '%s': %s and all names below are those of the nodes; take another name", args[0], p.labelName())
	}
	if slices.ContainsFunc(p.servers, func(s nameserver) bool { return s.name == name }) {
		return p.Errf("ns '%s' is there twice; write all its addresses on one line", args[0])
	}
	addrs, err := p.addresses(args[1:])
	if err != nil {
		return err
	}
	p.servers = append(p.servers, nameserver{name, addrs})
	return nil
}

func (p *parser) accept(args []string) error {
	const form = "write 'accept KEY NODE PREFIX...|any [for CUT...] [ds]'"
	signs := len(args) > 0 && args[len(args)-1] == "ds"
	if signs {
		args = args[:len(args)-1]
	}
	cutsFrom := slices.Index(args, "for")
	scope, cuts := args, []string(nil)
	if cutsFrom >= 0 {
		scope, cuts = args[:cutsFrom], args[cutsFrom+1:]
	}
	if len(scope) < 3 || cutsFrom >= 0 && len(cuts) == 0 {
		return p.Err(form)
	}

	a := acceptance{key: plugin.Name(scope[0]).Normalize(), node: scope[1], ds: signs, file: p.File(), line: p.Line()}
	if _, ok := dns.IsDomainName(a.key); !ok {
		return p.Errf("key '%s' is not a domain name", scope[0])
	}
	if err := p.label(a.node); err != nil {
		return err
	}
	for _, arg := range scope[2:] {
		if arg == "any" {
			a.any = true
			continue
		}
		prefix, err := p.parsePrefix(arg)
		if err != nil {
			return err
		}
		a.prefixes = append(a.prefixes, prefix)
	}
	for _, arg := range cuts {
		cut, err := p.parseCut(arg)
		if err != nil {
			return err
		}
		a.cuts = append(a.cuts, cut)
	}

	secrets := dnsserver.GetConfig(p.Controller).TsigSecret
	if len(secrets) == 0 {
		return p.Errf("'accept' needs tsig in the server block: add 'tsig { secret %s SECRET }'", a.key)
	}
	if _, ok := secrets[a.key]; !ok {
		return p.Errf("tsig has no key '%s': add 'secret %s SECRET' to it", scope[0], a.key)
	}
	p.accepts = append(p.accepts, a)
	return nil
}

func (p *parser) node(args []string) error {
	var deputies []string
	if i := slices.Index(args, "deputy"); i > 1 && i < len(args)-1 {
		args, deputies = args[:i], args[i+1:]
	}
	location := ""
	if i := slices.Index(args, "location"); i > 1 && len(args) == i+3 {
		var err error
		if location, err = registration.ParseLocation(args[i+1], args[i+2]); err != nil {
			return p.Errf("location: %v", err)
		}
		args = args[:i]
	}
	if len(args) < 2 {
		return p.Err("write 'node NAME ADDRESS... [location LAT LON] [deputy NODE...]'")
	}
	if err := p.label(args[0]); err != nil {
		return err
	}
	if _, ok := p.statics[args[0]]; ok {
		return p.Errf("node '%s' is there twice; write all its addresses on one line", args[0])
	}
	addrs, err := p.addresses(args[1:])
	if err != nil {
		return err
	}
	r := &registration.Registration{Zone: p.zone, Node: args[0], Addresses: addrs, Location: location}
	p.statics[args[0]] = r
	return p.nodes(deputies, &r.Deputies)
}

func (p *parser) cut(args []string) error {
	if len(args) < 2 {
		return p.Err("write 'cut NAME NODE...'")
	}
	name, err := p.parseCut(args[0])
	if err != nil {
		return err
	}
	if _, ok := p.cuts[name]; ok {
		return p.Errf("cut '%s' is there twice; write all its nodes on one line", args[0])
	}
	if other := p.nested(name); other != "" {
		return p.Errf("cut '%s' and cut '%s': one is below the other; keep one of them", args[0], other)
	}
	var nodes []string
	err = p.nodes(args[1:], &nodes)
	p.cuts[name] = nodes
	return err
}

func (p *parser) prefix(args []string) error {
	if len(args) < 2 {
		return p.Err("write 'prefix PREFIX NODE...'")
	}
	prefix, err := p.parsePrefix(args[0])
	if err != nil {
		return err
	}
	if line, ok := p.prefixes[prefix]; ok {
		return p.Errf("prefix %s is there already, in line %d; write all its nodes there, best first", prefix, line)
	}
	p.prefixes[prefix] = p.Line()
	op := operatorPrefix{prefix: prefix, at: fmt.Sprintf("%s:%d", p.File(), p.Line())}
	var bare []string
	for _, node := range args[1:] {
		bare = append(bare, strings.TrimPrefix(node, "!"))
	}
	op.nodes = args[1:]
	var checked []string
	err = p.nodes(bare, &checked)
	p.config.prefixes = append(p.config.prefixes, op)
	return err
}

func (p *parser) explains(args []string) error {
	if len(args) == 0 {
		return p.Err("write 'explain PREFIX...', the networks that may ask for explanations, such as 127.0.0.0/8")
	}
	for _, arg := range args {
		prefix, err := p.parsePrefix(arg)
		if err != nil {
			return err
		}
		p.explain = append(p.explain, prefix)
	}
	return nil
}

func (p *parser) region(fields []string) error {
	if err := parseRegion(fields); err != nil {
		return p.Err(err.Error())
	}
	var nodes []string
	if err := p.nodes(fields[2:], &nodes); err != nil {
		return err
	}
	if slices.ContainsFunc(p.regions, func(other []string) bool { return other[0] == fields[0] && other[1] == fields[1] }) {
		return p.Errf("%s %s is there twice; write all its nodes on one line, best first", fields[0], fields[1])
	}
	p.regions = append(p.regions, fields)
	p.regionLines = append(p.regionLines, p.Line())
	return nil
}

func (p *parser) lease(args []string) error {
	if len(args) != 2 {
		return p.Err("write 'lease MIN MAX', such as 'lease 5m 2h'")
	}
	var bounds [2]time.Duration
	for i, arg := range args {
		d, err := time.ParseDuration(arg)
		if err != nil || d < time.Second || d > maxLease {
			return p.Errf("lease '%s' is not a duration between 1s and %s, such as 30m", arg, maxLease)
		}
		bounds[i] = d
	}
	if bounds[0] > bounds[1] {
		return p.Errf("lease %s %s: the smaller one comes first", args[0], args[1])
	}
	p.leaseMin, p.leaseMax = bounds[0], bounds[1]
	return nil
}

func (p *parser) ttl(args []string) error {
	if len(args) != 1 {
		return p.Err("write 'ttl DURATION', such as 'ttl 300s'")
	}
	d, err := time.ParseDuration(args[0])
	if err != nil || d < minTTL || d > maxTTL {
		return p.Errf("ttl '%s' is not a duration between %s and %s, such as 300s", args[0], minTTL, maxTTL)
	}
	p.config.ttl = uint32(d / time.Second) // #nosec G115 -- bounded
	return nil
}

func (p *parser) storage(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "db":
		p.store.db = p.file(args[1])
		if dir, err := os.Stat(filepath.Dir(p.store.db)); err != nil || !dir.IsDir() {
			return p.Errf("store '%s': there is no directory %s; make it, writable for this server", args[1], filepath.Dir(p.store.db))
		}
		return nil
	case len(args) >= 2 && args[0] == "etcd":
		return p.etcd(args[1:])
	}
	return p.Errf("write 'store db FILE' or '%s'", etcdForm)
}

const etcdForm = "store etcd URL... [tls CA | tls CERT KEY CA] [user NAME PASSWORD]"

func (p *parser) etcd(args []string) error {
	urls := args
	if i := slices.IndexFunc(args, func(arg string) bool { return arg == "tls" || arg == "user" }); i >= 0 {
		urls = args[:i]
	}
	at, rest := storage{urls: strings.Join(urls, " ")}, args[len(urls):]
	if i := len(rest) - 3; i >= 0 && rest[i] == "user" {
		at.user, at.password, rest = rest[i+1], rest[i+2], rest[:i]
	}
	switch {
	case len(rest) == 2 && rest[0] == "tls":
		at.ca = p.file(rest[1])
	case len(rest) == 4 && rest[0] == "tls":
		at.cert, at.key, at.ca = p.file(rest[1]), p.file(rest[2]), p.file(rest[3])
	case len(rest) > 0 || len(urls) == 0:
		return p.Errf("write '%s'", etcdForm)
	}

	secure := 0
	for _, arg := range urls {
		u, err := url.Parse(arg)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Path != "" || u.User != nil {
			return p.Errf("'%s' is not the URL of an etcd, such as https://192.0.2.7:2379", arg)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch {
	case secure > 0 && secure < len(urls):
		return p.Err("store: some URLs are https and some are not; make all of them https")
	case secure == 0 && at.ca != "":
		return p.Err("store: 'tls' is for URLs that begin with https://")
	}
	if _, err := at.tls(); err != nil {
		return p.Errf("store: tls: %v", err)
	}
	p.store = at
	return nil
}

// nodes appends the nodes that a line names to list.
func (p *parser) nodes(args []string, list *[]string) error {
	for _, node := range args {
		if err := p.label(node); err != nil {
			return err
		}
		if slices.Contains(*list, node) {
			return p.Errf("node '%s' is there twice", node)
		}
		*list = append(*list, node)
		p.uses = append(p.uses, use{node, p.File(), p.Line()})
	}
	return nil
}

func (p *parser) label(s string) error {
	if !registration.IsLabel(s) {
		return p.Errf("'%s' cannot name a node: write one label of lower-case letters, digits and hyphens, such as par1", s)
	}
	return nil
}

// below returns a name below the zone that is written in full or, if it has
// only one label, relative to the zone.
func (p *parser) below(s string) (string, error) {
	if labels, ok := dns.IsDomainName(s); !ok || labels == 0 || strings.Contains(s, "*") {
		return "", p.Errf("'%s' is not a host name", s)
	}
	name := dns.CanonicalName(s)
	if name == p.zone || !dns.IsSubDomain(p.zone, name) {
		if strings.Contains(s, ".") {
			return "", p.Errf("'%s' is not below the zone %s of the server block", s, p.zone)
		}
		name += p.zone
	}
	return name, nil
}

func (p *parser) parseCut(s string) (string, error) {
	name, err := p.below(s)
	if err != nil {
		return "", err
	}
	if p.isReserved(name) {
		return "", p.Errf("cut '%s': %s and all names below are those of the nodes; take another name", s, p.labelName())
	}
	if isExplained(name) {
		return "", p.Errf("cut '%s': the label %s asks for an explanation; take another name", s, explain.Label)
	}
	return name, nil
}

func (p *parser) addresses(args []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, arg := range args {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.Zone() != "" || addr.Is4In6() || !addr.IsGlobalUnicast() && !addr.IsLoopback() {
			return nil, p.Errf("'%s' is not the address of a host, such as 192.0.2.53 or 2001:db8::53", arg)
		}
		if slices.Contains(addrs, addr) {
			return nil, p.Errf("address %s is there twice", addr)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func (p *parser) parsePrefix(s string) (netip.Prefix, error) {
	prefix, err := parsePrefix(s)
	if err != nil {
		return prefix, p.Err(err.Error())
	}
	return prefix, nil
}

// file returns the path of a file that is named relative to root.
func (p *parser) file(name string) string {
	if root := dnsserver.GetConfig(p.Controller).Root; root != "" && !filepath.IsAbs(name) {
		return filepath.Join(root, name)
	}
	return name
}

// end checks what only the whole block shows.
func (p *parser) end() error {
	if len(p.servers) == 0 {
		return p.Errf("no name server: add 'ns NAME ADDRESS...', the name and addresses under which this server is delegated to")
	}
	for _, a := range p.accepts {
		if _, ok := p.statics[a.node]; ok {
			return at(a.file, a.line, "node '%s' has a 'node' line too: a node either registers or is static; remove one of the lines", a.node)
		}
	}
	for _, a := range p.accepts {
		for _, cut := range a.cuts { // no registration of such a cut would be taken
			if err := p.cutAllowed([]acceptance{a}, cut); err != nil {
				return at(a.file, a.line, "%s: take it out of 'for'", err)
			}
		}
	}
	for _, u := range p.uses {
		if !p.knows(u.node) {
			return at(u.file, u.line, "unknown node '%s': add 'node %s ADDRESS...' or let it register by 'accept KEY %s ...'", u.node, u.node, u.node)
		}
	}
	if slices.Contains(p.maps, p.export) {
		return p.Errf("export '%s': the map is read from this file; write another one", p.export)
	}
	for i, fields := range p.regions {
		if len(p.databases) == 0 && (fields[0] != "asn" || len(p.maps) == 0) {
			return at(p.File(), p.regionLines[i], "'%s' needs a database: add 'mmdb FILE'", fields[0])
		}
	}
	for name, nodes := range p.cuts {
		if server := p.coversServer(name); server != "" {
			return p.Errf("cut '%s' holds the name of the server '%s': take another name for one of them", name, server)
		}
		for _, node := range nodes {
			if r, ok := p.statics[node]; ok {
				r.Cuts = append(r.Cuts, name)
			}
		}
	}
	for _, r := range p.statics {
		slices.Sort(r.Cuts)
	}
	return nil
}

// at returns an error of the form of caddy's, about an earlier line.
func at(file string, line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d - Error during parsing: %s", file, line, fmt.Sprintf(format, args...))
}
