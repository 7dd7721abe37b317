package dnsb

import (
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/formerr"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/tcplimit"
	"github.com/coredns-dnslb/coredns-dnslb/internal/tsigfiles"
)

const pluginName = "dnsb"

var log = clog.NewWithPlugin(pluginName)

// The functions of miekg/dns are replaced before any server starts, which reads
// them: they refuse more, and accept nothing more.
func init() {
	plugin.Register(pluginName, setup)
	dnsmsg.KeepHIPPacked()
	formerr.Install()
	dns.DefaultMsgAcceptFunc = acceptUpdates(dns.DefaultMsgAcceptFunc)
	dns.DefaultMsgInvalidFunc = countInvalid(dns.DefaultMsgInvalidFunc)
}

func setup(c *caddy.Controller) error {
	tsigfiles.Watch(c)
	d, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	if err := tcplimit.Enable(c); err != nil {
		return plugin.Error(pluginName, err)
	}
	d.probe = nodeProberOf(c, d.conf.zone)

	server := dnsserver.GetConfig(c)
	d.notifyNode = newNodeNotifier(server, resolverPortOf(c, d.conf.zone))
	server.AllowOpcode(dns.OpcodeUpdate)
	server.Plugin = slices.Insert(server.Plugin, 0, plugin.Plugin(func(next plugin.Handler) plugin.Handler {
		return &gate{next, d}
	}))
	server.AddPlugin(func(next plugin.Handler) plugin.Handler {
		d.Next = next
		return d
	})

	instance, holder := instances.Attach(c), zones.Attach(c)
	setupcheck.Add(c, func() (err error) {
		if d.signer, err = nsec.New(server.Handler("dnssec"), []string{d.conf.zone}); err == nil {
			err = checkSigned(d.signer, d.conf.zone, d.conf.knownCuts())
		}
		if err != nil {
			return plugin.Error(pluginName, d.conf.block.Errorf("%w", err))
		}
		return nil
	})
	setupcheck.Alone(c)
	status.Add(c, d.statusBlock())
	setupcheck.Rehearse(c, d.rehearse)
	c.OnStartup(func() error {
		d.secondaries, _ = server.Handler("transfer").(notifier)
		z, err := zones.Hold(holder, d.conf.zone, d)
		if err == nil {
			if err = d.resolvers.check(&z.sizes, d.conf); err != nil && d.keepMap(z, err) {
				d.resolvers.accept(&z.sizes, d.conf)
				err = nil
			}
		}
		if err != nil {
			return plugin.Error(pluginName, err)
		}
		d.start(z)
		limited.Add(1)
		instance.OnStop(func() { d.close(); limited.Add(-1) })
		return nil
	})
	formerr.Enable(c)
	fastpath.Enable(c, fastpath.Block{Plugin: pluginName, Answerer: d, Off: d.conf.fastPathOff, Gates: []string{gateName}})
	return nil
}
