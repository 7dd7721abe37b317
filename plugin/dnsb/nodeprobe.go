package dnsb

import (
	"slices"
	"strconv"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// nodeProberOf returns the maker of the prober that probes nodes by the latencyprobe
// of the server block, nil if there is none.
func nodeProberOf(c *caddy.Controller) (func() prober, error) {
	l := latencyprobe.ForServerBlock(c)
	if l == nil {
		return nil, nil
	}
	if !slices.Contains(l.ProbeNames(), "") {
		return nil, c.Err("nodes are probed by the unnamed latencyprobe of this server block, and all are named: add a line 'latencyprobe'")
	}
	p := nodeProber{configured: l.HasRTT("")}
	if port, err := strconv.ParseUint(dnsserver.GetConfig(c).Port, 10, 16); err == nil {
		p.port = uint16(port)
	}
	return func() prober {
		p.status = l.Watch()
		return p
	}, nil
}

// nodeProber asks nodes as resolvers do, at the port of this server, unless the
// operator configured a method ('rtt').
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

func (p nodeProber) watch(targets []probeTarget) {
	set := make([]latencyprobe.Target, len(targets))
	for i, t := range targets {
		set[i] = p.target(t)
	}
	p.status.Set(set)
}

func (p nodeProber) result(target probeTarget) (probeResult, string) {
	s := p.status.Status(p.target(target))
	switch s.State {
	case latencyprobe.Up:
		return answering, ""
	case latencyprobe.Down:
		return silent, s.Reason
	}
	return notProbed, ""
}

func (p nodeProber) changed() <-chan struct{} { return p.status.Changed() }

func (p nodeProber) close() { p.status.Close() }
