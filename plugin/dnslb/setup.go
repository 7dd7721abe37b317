package dnslb

import (
	"context"
	"net"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/plugin/tsig"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/formerr"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/tcplimit"
	"github.com/coredns-dnslb/coredns-dnslb/internal/tsigfiles"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

var log = clog.NewWithPlugin(pluginName)

func init() {
	plugin.Register(pluginName, setup)
	dnsmsg.KeepHIPPacked()
	formerr.Install()
}

func setup(c *caddy.Controller) error {
	tsigfiles.Watch(c)
	conf, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	if err := tcplimit.Enable(c); err != nil {
		return plugin.Error(pluginName, err)
	}
	d := newDNSLB(conf, latencyprobe.ForServerBlock(c))
	cfg := dnsserver.GetConfig(c)
	holder, running := blocks.Attach(c), instances.Attach(c)

	if !conf.observe {
		cfg.Plugin = slices.Insert(cfg.Plugin, 0, plugin.Plugin(d.subnetGate))
	}
	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		d.Next = next
		return d
	})
	setupcheck.Add(c, func() error {
		if d.observe && d.Next == nil {
			return plugin.Error(pluginName, d.block.Errorf("'observe' leaves the answers to the next plugin of this server block, and there is none"))
		}
		d.sources.setBackends(backendsAfter(cfg))
		if err := d.sources.check(d.block); err != nil {
			return plugin.Error(pluginName, err)
		}
		if t, ok := cfg.Handler("tsig").(*tsig.TSIGServer); ok && d.viewKey.Name != "" && !plugin.Zones(t.Zones).Contains(d.Zones[0]) {
			return plugin.Error(pluginName, d.block.Errorf("'view-key' needs 'tsig' for zone %s: list no zones after 'tsig'", d.Zones[0]))
		}
		if err := d.configureDNSSEC(cfg.Handler("dnssec"), d.block); err != nil {
			return plugin.Error(pluginName, err)
		}
		return nil
	})
	setupcheck.Alone(c)
	status.Add(c, d.statusBlock())
	setupcheck.Rehearse(c, d.rehearse)
	c.OnStartup(func() error {
		if err := d.checkPermissions(); err != nil {
			return err
		}
		// By now CoreDNS has told cfg the name of its view.
		key := blockKey(conf, cfg)
		var err error
		if d.state, err = blocks.Hold(holder, key, d.blockSettings()); err != nil {
			return plugin.Error(pluginName, err)
		}
		d.configureBlock = func() { _ = blocks.Update(holder, key, d.blockSettings()) } // it cannot fail
		d.startCounters(listeners(cfg))
		d.start(context.Background())
		running.OnStop(d.stop)
		return nil
	})
	off := d.fastPathOff
	if d.observe {
		off = "observe"
	}
	formerr.Enable(c)
	fastpath.Enable(c, fastpath.Block{Plugin: pluginName, Answerer: d, Off: off, Gates: []string{subnetGateName}})
	return nil
}

// listeners returns the addresses of a server block in the form of dnsserver.Server.
func listeners(cfg *dnsserver.Config) []string {
	addresses := make([]string, 0, len(cfg.ListenHosts))
	for _, host := range cfg.ListenHosts {
		if addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, cfg.Port)); err == nil {
			addresses = append(addresses, cfg.Transport+"://"+addr.String())
		}
	}
	return addresses
}

// checkPermissions returns an error if this process is not allowed to measure.
func (d *DNSLB) checkPermissions() error {
	for _, probe := range d.sources.probes() {
		if err := d.probe.CheckPermission(probe); err != nil {
			return plugin.Error(pluginName, err)
		}
	}
	return nil
}

// instances stops the goroutines of instances that have ended.
var instances reload.Group

// before names the plugins that come earlier in this block's chain.
func before(c *caddy.Controller, name string) bool {
	for _, p := range dnsserver.GetConfig(c).Plugin {
		if h := p(nil); h != nil && h.Name() == name {
			return true
		}
	}
	return false
}

// checkBlock checks what dnslb needs of the plugins around it.
func checkBlock(c *caddy.Controller, block corefile.Position) error {
	var failed []error
	if latencyprobe.ForServerBlock(c) == nil {
		failed = append(failed, block.Errorf("dnslb needs measurements: add a line 'latencyprobe' to this server block"))
	}
	if before(c, "dnsb") {
		failed = append(failed, block.Errorf("dnsb answers for the whole zone of this server block: give dnslb a block of its own, for a zone below it"))
	}
	if before(c, "loadbalance") {
		failed = append(failed, block.Errorf("loadbalance shuffles what dnslb ranks: remove it from this server block"))
	}
	return corefile.Join(append(failed, dnsclient.CheckSecrets(block, dnsserver.GetConfig(c).TsigSecret))...)
}

func newDNSLB(conf config, probe *latencyprobe.LatencyProbe) *DNSLB {
	d := &DNSLB{config: conf, probe: probe}
	d.sources = newSources(&d.config)
	return d
}
