package dnsb

import (
	"slices"
	"strconv"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// probeOf returns how nodes are probed by the latencyprobe of the server block,
// nil if there is none.
func probeOf(c *caddy.Controller) (func() prober, error) {
	l := latencyprobe.ForServerBlock(c)
	if l == nil {
		return nil, nil
	}
	if !slices.Contains(l.ProbeNames(), "") {
		return nil, c.Err("nodes are probed by the unnamed latencyprobe of this server block, and there are only named ones: add a line 'latencyprobe'")
	}
	p := nodeProber{measured: l.HasRTT("")}
	if port, err := strconv.ParseUint(dnsserver.GetConfig(c).Port, 10, 16); err == nil {
		p.port = uint16(port)
	}
	return func() prober {
		p.watcher = l.Watch()
		return p
	}, nil
}

// nodeProber asks nodes as resolvers would, on the port of this server, unless
// the operator wrote down how to measure.
type nodeProber struct {
	watcher  *latencyprobe.Watch
	port     uint16
	measured bool
}

var _ prober = nodeProber{}

func (p nodeProber) target(w watched) latencyprobe.Target {
	t := latencyprobe.Target{Name: w.node, Addr: w.addr}
	if !p.measured {
		t.Check = latencyprobe.Check{Port: p.port, Name: w.cut, Type: dns.TypeSOA}
	}
	return t
}

func (p nodeProber) watch(addresses []watched) {
	targets := make([]latencyprobe.Target, len(addresses))
	for i, w := range addresses {
		targets[i] = p.target(w)
	}
	p.watcher.Set(targets)
}

func (p nodeProber) answers(w watched) (answer, string) {
	s := p.watcher.Status(p.target(w))
	switch s.State {
	case latencyprobe.Up:
		return answersYes, ""
	case latencyprobe.Down:
		return answersNo, s.Reason
	}
	return answersMaybe, ""
}

func (p nodeProber) changed() <-chan struct{} { return p.watcher.Changed() }

func (p nodeProber) close() { p.watcher.Close() }
