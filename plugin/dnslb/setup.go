package dnslb

import (
	"context"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

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
	key := keptKey(conf, cfg.ListenHosts, cfg.Port)
	holder := keeper.Attach(c)

	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		d.Next = next
		return d
	})
	c.OnStartup(func() error {
		for _, t := range d.targets {
			if err := d.probe.Usable(t.Probe); err != nil {
				return plugin.Error(pluginName, err)
			}
		}
		d.kept = keeper.Hold(holder, key, newKept)
		d.start(context.Background())
		return nil
	})
	c.OnRestartFailed(func() error {
		d.reassert()
		return nil
	})
	c.OnShutdown(func() error {
		d.stop()
		return nil
	})
	return nil
}

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
	if before(c, "loadbalance") {
		return c.Err("loadbalance shuffles what dnslb ranks: remove it from this server block")
	}
	return nil
}

func newDNSLB(conf config, probe *latencyprobe.LatencyProbe) *DNSLB {
	d := &DNSLB{config: conf, probe: probe}
	d.buildPools()
	return d
}
