package dnslb

import (
	"context"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

var log = clog.NewWithPlugin(pluginName)

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	conf, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	d := newDNSLB(conf, latencyprobe.Of(c))
	cfg := dnsserver.GetConfig(c)
	holder, run := keeper.Attach(c), running.Attach(c)

	if conf.viewKey.Name != "" {
		if cfg.TsigSecret == nil {
			cfg.TsigSecret = make(map[string]string)
		}
		cfg.TsigSecret[conf.viewKey.Name] = conf.viewKey.Secret
	}
	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		d.Next = next
		return d
	})
	setupcheck.Add(c, func() error {
		if d.observe && d.Next == nil {
			return plugin.Error(pluginName, d.block.errf("'observe' leaves the answers to the next plugin of this server block, and there is none"))
		}
		d.sources.behind, d.sources.zonesOnly = transferers(cfg)
		if err := d.sources.check(d.block); err != nil {
			return plugin.Error(pluginName, err)
		}
		if err := d.secure(cfg.Handler("dnssec"), d.block); err != nil {
			return plugin.Error(pluginName, err)
		}
		return nil
	})
	c.OnStartup(func() error {
		for _, probe := range d.sources.probes() {
			if err := d.probe.Usable(probe); err != nil {
				return plugin.Error(pluginName, err)
			}
		}
		// By now CoreDNS has told cfg the name of its view.
		d.kept = keeper.Hold(holder, keptKey(conf, cfg), newKept)
		running.Hold(run, d, func() struct{} { d.start(context.Background()); return struct{}{} })
		return nil
	})
	c.OnRestartFailed(func() error {
		d.reassert()
		return nil
	})
	return nil
}

// running holds the instances that rank, so that one whose start failed in
// another plugin ends as well.
var running = keep.Keeper[*DNSLB, struct{}]{Close: func(d *DNSLB, _ struct{}) { d.stop() }}

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
func checkBlock(c *caddy.Controller) error {
	if latencyprobe.Of(c) == nil {
		return c.Err("dnslb needs measurements: add a line 'latencyprobe' to this server block")
	}
	if before(c, "dnsb") {
		return c.Err("dnsb answers for the whole zone of this server block: give dnslb a block of its own, for a zone below it")
	}
	if before(c, "loadbalance") {
		return c.Err("loadbalance shuffles what dnslb ranks: remove it from this server block")
	}
	return nil
}

func newDNSLB(conf config, probe *latencyprobe.LatencyProbe) *DNSLB {
	d := &DNSLB{config: conf, probe: probe}
	d.sources = newSources(&d.config)
	return d
}
