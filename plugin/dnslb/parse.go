package dnslb

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

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

// parse reads one dnslb block.
func parse(c *caddy.Controller) (config, error) {
	conf := config{
		ttlLow:  defaultTTLLow,
		ttlHigh: defaultTTLHigh,
		loaded:  uint32(time.Now().Unix()), // #nosec G115 -- serial arithmetic (RFC 1982)
		lease:   defaultLease,
	}
	c.Next()
	conf.block = corefile.PositionOf(&c.Dispenser)
	if len(c.RemainingArgs()) > 0 {
		return conf, c.Err("dnslb takes no argument: its zones are those of the server block")
	}
	var err error
	if conf.Zones, err = corefile.Zones(c); err != nil {
		return conf, err
	}
	failed := checkBlock(c, conf.block)
	if probe := latencyprobe.ForServerBlock(c); probe != nil {
		conf.probes = probe.ProbeNames()
	}
	if port := corefile.PlainPort(c, conf.Zones[0]); port != 0 {
		conf.port = strconv.Itoa(int(port))
	}

	p := newParser(c, &conf)
	failed = corefile.Join(failed, p.lines.ReadBlock(&c.Dispenser))
	if c.Next() {
		return conf, corefile.Join(failed, corefile.PositionOf(&c.Dispenser).Errorf("%w", plugin.ErrOnce))
	}
	failed = corefile.Join(failed, p.finish())
	if failed == nil && conf.registrationFiles != nil {
		failed = conf.registrationFiles.Load() // again, but changes are noticed from now on
	}
	return conf, failed
}

// parser makes a config of the lines of a block.
type parser struct {
	c         *caddy.Controller
	conf      *config
	inventory *inventoryParser
	lines     *corefile.Reader
	files     registrationFiles

	servicesPath string // "": there is no services file
	noServices   error  // nil: the services file exists
}

func newParser(c *caddy.Controller, conf *config) *parser {
	p := &parser{c: c, conf: conf, inventory: newInventoryParser(conf.Zones, conf.probes)}
	p.files.path = p.path
	p.lines = corefile.NewReader(append(p.inventory.properties(), []corefile.Property{
		{Name: "services", Usage: "services FILE", Parse: p.services},
		{Name: "ttl", Usage: "ttl LOW HIGH", Example: "ttl 20s 60s", Parse: p.ttl},
		{Name: "all-down", Usage: "all-down open|refuse|ADDRESS...", Parse: p.allDown},
		{Name: "admin", Usage: "admin FILE", Parse: p.admin},
		{Name: "explain", Usage: "explain PREFIX...", Example: "explain 127.0.0.0/8", Parse: p.explain},
		status.Property(p.c),
		{Name: "observe", Usage: "observe", Parse: corefile.NoArguments(func() { conf.observe = true })},
		fastpath.Property(&conf.fastPathOff),
		{Name: "node", Usage: "node NAME ADDRESS...", Parse: p.node},
		{Name: "near", Usage: "near PREFIX...|FILE", Many: true, Needs: []string{"node"}, Parse: p.near},
		{Name: "location", Usage: "location LAT LON", Example: "location 48.86 2.35", Needs: []string{"node"}, Parse: p.location},
		{Name: "register", Usage: "register [tls://]ADDRESS[:PORT][%NAME]...", Many: true, Needs: []string{"node", "key"}, Parse: p.register},
		{Name: "ca", Usage: "ca FILE", Needs: []string{"register"}, Parse: p.ca},
		{Name: "key", Usage: "key FILE|NAME SECRET", Needs: []string{"register"}, Parse: p.key},
		{Name: "lease", Usage: "lease DURATION", Example: "lease 30m", Needs: []string{"register"}, Parse: p.lease},
		{Name: "deputy", Usage: "deputy NODE...", Needs: []string{"register", "view-key"}, Parse: p.deputy},
		{Name: "view-key", Usage: "view-key NAME", Needs: []string{"register"}, Parse: p.viewKey},
		{Name: "client-subnets", Usage: "client-subnets", Needs: []string{"register", "view-key"}, Parse: corefile.NoArguments(func() { conf.clientSubnets = true })},
		{Name: "survey", Usage: surveymsg.NodeUsage, Example: surveymsg.Example, Needs: []string{"register"}, Parse: p.survey},
		{Name: "ds", Usage: "ds", Needs: []string{"register"}, Parse: corefile.NoArguments(func() { conf.sendDS = true })},
	}...))
	return p
}

// finish reads the services file and checks what only the whole block shows, also if lines
// of it have errors.
func (p *parser) finish() error {
	conf := p.conf
	conf.inventory = p.inventory.inventory
	_, registers := p.lines.Given("register")
	var failed []error
	if p.servicesPath == "" {
		failed = append(failed, conf.inventory.check())
	} else {
		conf.file = newServicesFile(p.servicesPath, conf, registers)
		if err := conf.file.Load(); err != nil {
			if p.noServices != nil {
				err = p.noServices
			}
			failed = append(failed, p.keepServices(err))
		}
	}
	failed = append(failed, p.lines.CheckNeeds(), p.inventory.checkBeside(registers))
	if at, ok := p.lines.Given("observe"); ok && conf.Node != "" {
		failed = append(failed, at.Errorf("'observe' leaves the answers to the next plugin, but DNS-B refers resolvers to a node: remove 'observe' or 'node'"))
	}
	if conf.Node != "" && slices.Contains(conf.deputies, conf.Node) {
		at, _ := p.lines.Given("deputy")
		failed = append(failed, at.Errorf("node '%s' cannot be its own deputy, name another node", conf.Node))
	}
	if registers && len(conf.addresses) > 0 {
		at, _ := p.lines.Given("node")
		if !claim(p.c, conf.Node) {
			failed = append(failed, at.Errorf("node '%s' is registered by another server block, too: put both zones into one block", conf.Node))
		}
		if err := conf.checkRegistration(); err != nil {
			failed = append(failed, at.Errorf("%w", err))
		}
		conf.registrationFiles = p.files.loader(*conf)
	}
	return corefile.Join(failed...)
}

// checkRegistration returns an error if DNS-B would refuse the registration of the
// node, as far as that can be known here.
func (c *config) checkRegistration() error {
	if c.viewKey.Name != "" && c.key.Name == c.viewKey.Name && c.key.Secret != c.viewKey.Secret {
		return fmt.Errorf("'view-key': 'key' has another secret for the name %s: give one of them another name", c.viewKey.Name)
	}
	reg := registrationOf(*c)
	reg.Zone, reg.Serial = dnsmsg.Parent(c.Zones[0]), 1
	reg.Cuts = c.Zones[:1]
	if _, err := reg.Messages(); err != nil {
		return fmt.Errorf("DNS-B would refuse the registration of node '%s': %w", c.Node, err)
	}
	return nil
}

// keepServices makes the services file be as the running instance has read it, if
// there is one: a reload that has another reason must not fail. Else it returns
// err.
func (p *parser) keepServices(err error) error {
	for _, b := range blocks.Values() {
		running := b.youngest().instance
		if running == nil || running.file == nil || running.file.path != p.servicesPath || !slices.Equal(running.Zones, p.conf.Zones) {
			continue
		}
		if errPrevious := p.conf.file.resume(running.file); errPrevious != nil {
			return errPrevious
		}
		countReload(p.conf.Zones[0], "services", err)
		log.Errorf("Failed to reload %s, keeping the previous version: %v", p.conf.file, err)
		return nil
	}
	return err
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
