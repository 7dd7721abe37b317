package dnsb

import (
	"slices"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// checkNodeProbe returns an error if the server block has a latencyprobe, and none for
// nodes.
func checkNodeProbe(c *caddy.Controller, block corefile.Position) error {
	if l := latencyprobe.ForServerBlock(c); l != nil && !slices.Contains(l.ProbeNames(), "") {
		return block.Errorf("nodes are probed by the unnamed latencyprobe of this server block, and all are named: add a line 'latencyprobe'")
	}
	return nil
}

// nodeProberOf returns the maker of the prober that probes nodes by the latencyprobe
// of the server block, nil if there is none.
func nodeProberOf(c *caddy.Controller, zone string) func() prober {
	port := resolverPortOf(c, zone)
	l := latencyprobe.ForServerBlock(c)
	if l == nil {
		return nil
	}
	return func() prober { // by now all server blocks are known
		return nodeProber{l.Watch(), port.get(), l.HasRTT("")}
	}
}

// resolverPort is the port at which resolvers ask the nodes of a zone: that of the
// server blocks of the zone which serve plain DNS. All blocks of a zone share one,
// and with it one judgement of nodes. Zero: there is no such block.
type resolverPort uint16

// resolverPortOf returns the port of a zone, after it has heeded this server block.
// Of several ports, the one of DNS counts, or else the first.
func resolverPortOf(c *caddy.Controller, zone string) *resolverPort {
	type key struct{ zone string }
	p, ok := c.Get(key{zone}).(*resolverPort)
	if !ok {
		p = new(resolverPort)
		c.Set(key{zone}, p)
	}
	if port := corefile.PlainPort(c, zone); port != 0 && (*p == 0 || port == corefile.Port) {
		*p = resolverPort(port)
	}
	return p
}

func (p *resolverPort) get() uint16 {
	if *p == 0 {
		return corefile.Port
	}
	return uint16(*p)
}

// nodeProber asks nodes as resolvers do, unless the operator configured a method
// ('rtt').
type nodeProber struct {
	status     *latencyprobe.Watch
	port       uint16
	configured bool
}

var _ prober = nodeProber{}

func (p nodeProber) target(w probeTarget) latencyprobe.Target {
	t := latencyprobe.Target{Name: w.node, Addr: w.addr}
	if !p.configured {
		t.Check = latencyprobe.Check{Port: p.port, Name: w.cut, Type: dns.TypeSOA}
	}
	return t
}

func (p nodeProber) targets(of []probeTarget) []latencyprobe.Target {
	targets := make([]latencyprobe.Target, len(of))
	for i, t := range of {
		targets[i] = p.target(t)
	}
	return targets
}

func (p nodeProber) replace(removed, added []probeTarget) {
	p.status.Replace(p.targets(removed), p.targets(added))
}

func (p nodeProber) result(target probeTarget) (probeResult, string) {
	s := p.status.Status(p.target(target))
	switch {
	case s.State == latencyprobe.Up:
		return answering, ""
	case s.Held:
		return held, s.Reason
	case s.State == latencyprobe.Down:
		return silent, s.Reason
	}
	return notProbed, ""
}

func (p nodeProber) changed() <-chan struct{} { return p.status.Changed() }

func (p nodeProber) changedNodes() (nodes []string) {
	for _, t := range p.status.Changes() {
		nodes = append(nodes, t.Name)
	}
	return nodes
}

func (p nodeProber) close() { p.status.Close() }
