package dnsb

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// probeResult is what probes say of a node or of one of its addresses.
type probeResult uint8

const (
	notProbed probeResult = iota // or not yet
	answering
	silent // or it gives a wrong answer
)

// prober probes nodes.
type prober interface {
	// watch makes these the addresses that are probed.
	watch(targets []probeTarget)
	// result returns the result of an address, and the reason why it is silent.
	result(target probeTarget) (probeResult, string)
	// changed is written to when a result has changed.
	changed() <-chan struct{}
	close()
}

// probeTarget is an address of a node, which is asked for the SOA of a cut.
type probeTarget struct {
	node string
	addr netip.Addr
	cut  string
}

// probeTargets returns the targets of a node: all its addresses, for one cut.
func probeTargets(n *registration.Registration) []probeTarget {
	if len(n.Cuts) == 0 {
		return nil
	}
	out := make([]probeTarget, len(n.Addresses))
	for i, addr := range n.Addresses {
		out[i] = probeTarget{n.Node, addr, n.Cuts[0]}
	}
	return out
}

// probeNode returns the result of a node: it answers if one of its addresses does,
// and is silent if all of them are.
func probeNode(p prober, n *registration.Registration) (result probeResult, reason string) {
	targets := probeTargets(n)
	if p == nil || len(targets) == 0 {
		return notProbed, ""
	}
	result = silent
	for _, target := range targets {
		switch r, why := p.result(target); {
		case r == answering:
			return answering, ""
		case r == notProbed:
			result = notProbed
		case reason == "":
			reason = why
		}
	}
	return result, reason
}
