package fastpath

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"
)

// transparent are the plugins that may come earlier in the chain: they neither change
// nor watch a simple query or its answer. What *prometheus* counts is counted here,
// *tsig* is asked.
var transparent = []string{"metadata", "cancel", "nsid", "prometheus", "errors", "any", "chaos", "tsig", "transfer", "latencyprobe"}

// sites returns the zones that the block may answer for, or what stands against it.
func (b Block) sites(c *caddy.Controller) (sites siteMap, obstacle string) {
	block := dnsserver.GetConfig(c)
	if obstacle := b.obstacle(block); obstacle != "" {
		return nil, obstacle
	}
	all := configs(c)
	sites = make(siteMap)
	for _, cfg := range all[c.ServerBlockIndex] {
		if cfg.Transport != transport.DNS {
			continue
		}
		for _, addr := range addresses(cfg) {
			if sites[addr] == nil {
				sites[addr] = make(zones)
			}
			sites[addr][cfg.Zone] = &zone{answerer: b.Answerer, counts: newCounts(addr, cfg.Zone, block)}
		}
	}
	if len(sites) == 0 {
		return nil, "the server block has no plain DNS over UDP"
	}
	for i, keys := range all {
		if i == c.ServerBlockIndex {
			continue
		}
		for _, cfg := range keys {
			if obstacle := sites.exclude(cfg); obstacle != "" {
				return nil, obstacle
			}
		}
	}
	return sites, ""
}

// exclude excludes the zone of another server block. It returns what in that block
// stands against the fast path.
func (sites siteMap) exclude(cfg *dnsserver.Config) (obstacle string) {
	for _, addr := range addresses(cfg) {
		served := sites[addr]
		switch {
		case served == nil:
			continue
		case shares(cfg) != "":
			return shares(cfg)
		case served[cfg.Zone] != nil:
			return "another server block at " + addr + " has the same zone and a view"
		}
		served[cfg.Zone] = nil
	}
	return ""
}

// obstacle returns what in the server block itself stands against the fast path.
func (b Block) obstacle(cfg *dnsserver.Config) string {
	switch {
	case b.Off != "":
		return "'" + b.Off + "'"
	case runtime.GOOS != "linux":
		return "it needs Linux"
	case len(cfg.FilterFuncs) > 0:
		return "a view has to see all queries"
	case edns.SupportedOption(dns.EDNS0COOKIE):
		return "a plugin answers cookies"
	case edns.SupportedOption(dns.EDNS0SUBNET):
		return "a plugin answers client subnets"
	}
	if obstacle := shares(cfg); obstacle != "" {
		return obstacle
	}
	handlers := cfg.Handlers()
	for _, h := range handlers {
		if h.Name() == b.Plugin {
			break
		}
		if !slices.Contains(transparent, h.Name()) {
			return fmt.Sprintf("plugin %s has to see all queries", h.Name())
		}
	}
	listed := len(handlers)
	for _, gate := range b.Gates {
		if cfg.Handler(gate) != nil {
			listed++
		}
	}
	if listed != len(cfg.Plugin) {
		return "CoreDNS does not list all plugins of the server block"
	}
	if t, ok := cfg.Handler("tsig").(*tsig.TSIGServer); ok && requiresSignature(t, cfg.Zone) {
		return "tsig requires signatures of queries"
	}
	return ""
}

// shares returns what in a server block stands against the fast path of all server
// blocks at the same address.
func shares(cfg *dnsserver.Config) string {
	switch {
	case cfg.ProxyProtoConnPolicy != nil:
		return "proxyproto has to see all datagrams"
	case cfg.NumSockets > 1:
		return "multisocket opens sockets of its own: remove it for one socket on each core"
	case cfg.Handler("shed") != nil:
		return "plugin shed has to see all queries"
	}
	return ""
}

// requiresSignature reports whether *tsig* refuses simple queries of a zone or of one
// below it. It is asked: its settings are not exported.
func requiresSignature(t *tsig.TSIGServer, zone string) bool {
	passed := false
	asked := *t
	asked.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
		passed = true
		return dns.RcodeSuccess, nil
	})
	for _, name := range append([]string{zone}, t.Zones...) {
		for qtype := uint16(1); qtype < maxType && dns.IsSubDomain(zone, name); qtype++ {
			passed = false
			_, _ = asked.ServeDNS(context.Background(), nonwriter.New(nil), new(dns.Msg).SetQuestion(name, qtype))
			if !passed {
				return true
			}
		}
	}
	return false
}

// configs returns those of all keys of all server blocks, once CoreDNS has made the
// servers. No exported function lists them, but each is found by its place.
func configs(c *caddy.Controller) (blocks [][]*dnsserver.Config) {
	for block := 0; ; block++ {
		var keys []*dnsserver.Config
		for key := 0; ; key++ {
			at := *c
			at.ServerBlockIndex, at.ServerBlockKeyIndex = block, key
			cfg := dnsserver.GetConfig(&at)
			if cfg.Port == "" { // no such key: GetConfig has made it
				break
			}
			keys = append(keys, cfg)
		}
		if keys == nil {
			return blocks
		}
		blocks = append(blocks, keys)
	}
}

// addresses returns those of the servers of a config, as CoreDNS names them.
func addresses(cfg *dnsserver.Config) (addrs []string) {
	for _, host := range cfg.ListenHosts {
		if addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, cfg.Port)); err == nil {
			addrs = append(addrs, cfg.Transport+"://"+addr.String())
		}
	}
	return addrs
}

// countedAs returns the zone and the plugin under which *prometheus* counts, and
// whether it is in the server block. It takes the handler after it for the one that
// answers.
func countedAs(cfg *dnsserver.Config, zone string) (counted, by string, ok bool) {
	m, ok := cfg.Handler("prometheus").(*metrics.Metrics)
	if !ok || m.Next == nil {
		return "", "", false
	}
	if counted = plugin.Zones(m.ZoneNames()).Matches(zone); counted == "" {
		counted = "."
	}
	return counted, m.Next.Name(), true
}
