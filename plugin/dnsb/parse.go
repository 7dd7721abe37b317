package dnsb

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// parse reads the block. All names in it are checked against its zone.
func parse(c *caddy.Controller) (*DNSB, error) {
	var p *parser
	for c.Next() {
		if p != nil {
			return nil, corefile.PositionOf(&c.Dispenser).Errorf("%w", plugin.ErrOnce)
		}
		zone, err := parseZone(c)
		if err != nil {
			return nil, err
		}
		p = newParser(c, zone)
		if err := p.lines.ReadBlock(&c.Dispenser); err != nil {
			return nil, err
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	d := &DNSB{
		conf: p.conf, mapFiles: filewatch.New(p.conf.files()...), admin: newAdminFile(p.conf),
		schedule: override.Schedule[nodeAction]{Log: log},
	}
	d.mapFiles.Changed() // before they are read, so that no change is missed
	if err := d.admin.Load(); err != nil {
		// A server that does not start for a temporary override is worse.
		log.Errorf("Failed to load %s, keeping those that were in force before a reload: %v", d.admin, err)
	}
	d.mapStatus.Store(&filewatch.Status{Loaded: time.Now()})
	err := p.noFile
	if err == nil {
		d.resolvers, err = newResolverMap(p.conf)
	}
	if err != nil && !d.keepMap(runningZone(p.conf.zone), err) {
		return nil, err
	}
	return d, nil
}

// parseZone returns the one zone of the server block.
func parseZone(c *caddy.Controller) (string, error) {
	if args := c.RemainingArgs(); len(args) > 0 {
		return "", c.Errf("unexpected '%s': dnsb has no arguments, its zone is that of the server block", args[0])
	}
	zones, err := corefile.Zones(c)
	if err != nil {
		return "", err
	}
	if len(zones) != 1 || zones[0] == "." {
		return "", c.Errf("the zones of the server block are %s: dnsb needs exactly one, below the root; write a block for each", strings.Join(zones, " "))
	}
	return zones[0], nil
}

// parser makes a config of the lines of a block.
type parser struct {
	c     *caddy.Controller
	conf  *config
	lines *corefile.Reader

	uses     []use           // the first one of each node
	used     map[string]bool // the nodes of uses
	prefixes map[netip.Prefix]corefile.Position
	cuts     map[string]corefile.Position
	geoRules []corefile.Position // of conf.geoRules
	noFile   error               // nil: all files of the map exist
}

// use is a mention of a node that a later line may declare.
type use struct {
	node string
	at   corefile.Position
}

func newParser(c *caddy.Controller, zone string) *parser {
	p := &parser{
		c: c, conf: newConfig(zone), used: make(map[string]bool),
		prefixes: make(map[netip.Prefix]corefile.Position), cuts: make(map[string]corefile.Position),
	}
	p.conf.block = corefile.PositionOf(&c.Dispenser)
	p.lines = corefile.NewReader([]corefile.Property{
		{Name: "ns", Usage: "ns NAME ADDRESS...", Many: true, Parse: p.ns},
		{Name: "accept", Usage: "accept KEY NODE PREFIX...|any [for CUT...] [survey] [ds]", Many: true, Parse: p.accept},
		{Name: "node", Usage: "node NAME ADDRESS... [location LAT LON] [deputy NODE...] [client-subnets]", Many: true, Parse: p.node},
		{Name: "cut", Usage: "cut NAME NODE...", Many: true, Parse: p.cut},
		{Name: "ds", Usage: "ds CUT FILE|KEYTAG ALGORITHM DIGESTTYPE DIGEST", Many: true, Parse: p.ds},
		{Name: "prefix", Usage: "prefix PREFIX NODE...", Many: true, Parse: p.prefix},
		{Name: "map", Usage: "map FILE", Many: true, Parse: p.inputFile(&p.conf.maps)},
		{Name: "mmdb", Usage: "mmdb FILE", Many: true, Parse: p.inputFile(&p.conf.databases)},
		{Name: "asn", Usage: geoRuleForm("asn"), Many: true, Parse: p.geoRule},
		{Name: "country", Usage: geoRuleForm("country"), Many: true, Parse: p.geoRule},
		{Name: "continent", Usage: geoRuleForm("continent"), Many: true, Parse: p.geoRule},
		{Name: "export", Usage: "export FILE", Parse: p.export},
		{Name: "default", Usage: "default NODE...", Many: true, Parse: p.defaults},
		{Name: "survey", Usage: surveymsg.Usage, Example: surveymsg.Example, Parse: p.survey},
		{Name: "update-from", Usage: "update-from PREFIX...", Example: "update-from 192.0.2.0/24", Many: true, Parse: p.updateFrom},
		{Name: "lease", Usage: "lease MIN MAX", Example: "lease 5m 2h", Parse: p.lease},
		{Name: "ttl", Usage: "ttl DURATION", Example: "ttl 300s", Parse: p.ttl},
		{Name: "store", Usage: "store db FILE | etcd URL... [tls CA | tls CERT KEY CA] [user NAME PASSWORD]", Parse: p.store},
		{Name: "admin", Usage: "admin FILE", Parse: p.admin},
		{Name: "explain", Usage: "explain PREFIX...", Example: "explain 127.0.0.0/8", Many: true, Parse: p.explain},
		fastpath.Property(&p.conf.fastPathOff),
		status.Property(p.c),
	})
	return p
}

// check checks what only the whole block shows.
func (p *parser) check() error {
	if len(p.conf.servers) == 0 {
		return p.conf.block.Errorf("no name server: add 'ns NAME ADDRESS...' with the name and addresses that the delegation to this server has")
	}
	for _, a := range p.conf.accepts {
		if _, ok := p.conf.statics[a.node]; ok {
			return a.at.Errorf("node '%s' has a 'node' line, too: a node either registers or is static, remove one of the lines", a.node)
		}
	}
	for _, a := range p.conf.accepts {
		for _, cut := range a.cuts { // its registration would be refused
			if err := p.conf.permitsCut([]*acceptRule{a}, cut); err != nil {
				return a.at.Errorf("%w: remove it from 'for'", err)
			}
		}
	}
	if err := p.checkSurvey(); err != nil {
		return err
	}
	for _, u := range p.uses {
		if _, err := p.conf.nodeName(u.node); err != nil {
			return u.at.Errorf("%w", err)
		}
	}
	if slices.Contains(p.conf.maps, p.conf.export) {
		at, _ := p.lines.Given("export")
		return at.Errorf("invalid file '%s' for 'export': the map is read from this file, write another one", p.conf.export)
	}
	for i, fields := range p.conf.geoRules {
		if len(p.conf.databases) == 0 && (fields[0] != "asn" || len(p.conf.maps) == 0) {
			return p.geoRules[i].Errorf("'%s' needs a database: add 'mmdb FILE'", fields[0])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.conf.cuts)) {
		if server := p.conf.coversServer(name); server != "" {
			return p.cuts[name].Errorf("cut '%s' holds the name of the server '%s': take another name for one of them", name, server)
		}
		for _, node := range p.conf.cuts[name] {
			p.conf.nodeCuts[node] = append(p.conf.nodeCuts[node], name)
		}
	}
	for node, r := range p.conf.statics {
		r.Cuts = p.conf.nodeCuts[node]
	}
	return nil
}
