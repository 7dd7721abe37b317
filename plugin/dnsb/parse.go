package dnsb

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// parse reads the block. All names in it are checked against its zone.
func parse(c *caddy.Controller) (*DNSB, error) {
	c.Next()
	zone, err := parseZone(c)
	if err != nil {
		return nil, err
	}
	p := newParser(c, zone)
	failed := p.lines.ReadBlock(&c.Dispenser)
	if c.Next() {
		return nil, corefile.Join(failed, corefile.PositionOf(&c.Dispenser).Errorf("%w", plugin.ErrOnce))
	}
	failed = corefile.Join(failed, p.check(), checkNodeProbe(c, p.conf.block), dnsclient.CheckSecrets(p.conf.block, dnsserver.GetConfig(c).TsigSecret))
	d := &DNSB{
		conf: p.conf, mapFiles: filewatch.New(p.conf.files()...), admin: newAdminFile(p.conf),
		schedule: override.Schedule[nodeAction]{Log: log},
	}
	d.mapFiles.Changed() // before they are read, so that no change is missed
	if err := d.admin.Load(); err != nil {
		// A server that does not start for a temporary override is worse.
		log.Errorf("Failed to load %s, keeping the overrides from before the reload, if any: %v", d.admin, err)
	}
	d.mapStatus.Store(&filewatch.Status{Loaded: time.Now()})
	running := runningZone(p.conf.zone)
	var pacer *pacing.Pacer
	if running != nil { // whose queries are not to wait
		pacer = new(pacing.Pacer)
		defer running.youngest.Load().snapshot.Load().saveSpace()()
	}
	if d.resolvers, err = p.readMap(pacer); failed != nil {
		return nil, corefile.Join(failed, err)
	}
	if err != nil && !d.keepMap(running, err) {
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

	uses     []use
	prefixes map[netip.Prefix]corefile.Position
	cuts     map[string]corefile.Position
	geoRules []corefile.Position // of conf.geoRules
	surveyor corefile.Position   // first 'accept' line with 'survey'; zero: none
	noFile   map[string]error    // by path of a file of the map that does not exist
}

// use is a mention of a node that a later line may declare.
type use struct {
	node string
	at   corefile.Position
}

func newParser(c *caddy.Controller, zone string) *parser {
	p := &parser{
		c: c, conf: newConfig(zone), noFile: make(map[string]error),
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

// check checks what only the whole block shows, also if lines of it have errors.
func (p *parser) check() error {
	var failed []error
	if p.lines.Lacks("ns") {
		failed = append(failed, p.conf.block.Errorf("no name server: add 'ns NAME ADDRESS...' with the name and addresses that the delegation to this server has"))
	}
	for _, a := range p.conf.accepts {
		if _, ok := p.conf.statics[a.node]; ok {
			failed = append(failed, a.at.Errorf("node '%s' has a 'node' line, too: a node either registers or is static, remove one of the lines", a.node))
		}
		for _, cut := range a.cuts { // its registration would be refused
			if err := p.conf.permitsCut([]*acceptRule{a}, cut); err != nil {
				failed = append(failed, a.at.Errorf("%w: remove it from 'for'", err))
			}
		}
	}
	failed = append(failed, p.checkSurvey(), p.checkUses())
	if slices.Contains(p.conf.maps, p.conf.export) {
		at, _ := p.lines.Given("export")
		failed = append(failed, at.Errorf("invalid file '%s' for 'export': the map is read from this file, write another one", p.conf.export))
	}
	for i, fields := range p.conf.geoRules {
		if p.lines.Lacks("mmdb") && (fields[0] != "asn" || p.lines.Lacks("map")) {
			failed = append(failed, p.geoRules[i].Errorf("'%s' needs a database: add 'mmdb FILE'", fields[0]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.conf.cuts)) {
		if server := p.conf.coversServer(name); server != "" {
			failed = append(failed, p.cuts[name].Errorf("cut '%s' holds the name of the server '%s': take another name for one of them", name, server))
		}
		for _, node := range p.conf.cuts[name] {
			p.conf.nodeCuts[node] = append(p.conf.nodeCuts[node], name)
		}
	}
	for node, r := range p.conf.statics {
		r.Cuts = p.conf.nodeCuts[node]
	}
	return corefile.Join(failed...)
}

// checkUses returns an error for each mention of an unknown node.
func (p *parser) checkUses() error {
	var failed []error
	for _, u := range p.uses {
		if _, err := p.conf.nodeName(u.node); err != nil && len(failed) < corefile.MaxErrors {
			failed = append(failed, u.at.Errorf("%w", err))
		}
	}
	return corefile.Join(failed...)
}

// readMap returns the map of the block. If one of its files does not exist, what is
// wrong with the others is told, too.
func (p *parser) readMap(pacer *pacing.Pacer) (*resolverMap, error) {
	if len(p.noFile) == 0 {
		return newResolverMap(p.conf, pacer)
	}
	existing := *p.conf
	var failed []error
	for _, paths := range []*[]string{&existing.maps, &existing.databases} {
		*paths = slices.DeleteFunc(slices.Clone(*paths), func(path string) bool {
			failed = append(failed, p.noFile[path])
			return p.noFile[path] != nil
		})
	}
	files, err := prefixmap.Read(existing.maps, isGeoRule, pacer)
	if err == nil {
		_, err = makeResolverMap(p.conf, files, existing.databaseLoader(pacer))
	}
	return nil, corefile.Join(append(failed, err)...)
}
