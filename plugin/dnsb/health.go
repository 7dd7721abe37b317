package dnsb

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// probeResult is what probes say of a node or of one of its addresses.
type probeResult uint8

const (
	notProbed probeResult = iota // or not yet
	answering
	silent // or it gives a wrong answer
	held   // silent so often that an answer does not count yet
)

// prober probes nodes.
type prober interface {
	// replace makes added probed and removed not. One that is in both stays.
	replace(removed, added []probeTarget)
	// result returns the result of an address, and the reason why it is silent.
	result(target probeTarget) (probeResult, string)
	// changed is written to when a result has changed.
	changed() <-chan struct{}
	// changedNodes returns the nodes of which a result has changed since it was called
	// last. A result that is asked for afterwards is as new.
	changedNodes() []string
	close()
}

// probeTarget is an address of a node, which is asked for the SOA of a cut.
type probeTarget struct {
	node string
	addr netip.Addr
	cut  string
}

const (
	// maxTargets bounds the targets of all nodes: with the default interval of
	// latencyprobe they take a quarter of a processor. Each node of the Corefile
	// has an equal share, whatever the others register.
	maxTargets = 20_000
	// maxNodeTargets bounds those of one node, which has up to 1000 cuts.
	maxNodeTargets = 256
)

// health judges nodes by what a prober says of their targets: each cut at each
// address. Of a node with too many cuts only the first ones are probed. It belongs
// to who makes snapshots.
type health struct {
	prober prober // nil: no node is probed
	share  int    // targets of a node at most
	nodes  map[string][]probeTarget
}

func newHealth(p prober, conf *config) *health {
	share := min(maxNodeTargets, maxTargets/max(1, len(conf.statics)+len(conf.rules)))
	return &health{p, share, make(map[string][]probeTarget)}
}

// changes returns the nodes of which a result has changed.
func (h *health) changes() map[string]bool {
	if h.prober == nil {
		return nil
	}
	changed := make(map[string]bool)
	for _, node := range h.prober.changedNodes() {
		changed[node] = true
	}
	return changed
}

// probe makes the targets of a node those that are probed.
func (h *health) probe(n *registration.Registration, cuts []string) {
	if h.prober == nil {
		return
	}
	var targets []probeTarget
	for _, cut := range h.probed(n, cuts) {
		for _, addr := range n.Addresses {
			targets = append(targets, probeTarget{n.Node, addr, cut})
		}
	}
	if previous := h.nodes[n.Node]; !slices.Equal(previous, targets) {
		h.prober.replace(previous, targets)
	}
	h.nodes[n.Node] = targets
}

// forget ends the probing of the nodes that are gone. There are some if there are
// fewer nodes than are probed.
func (h *health) forget(nodes int, gone func(node string) bool) {
	if len(h.nodes) <= nodes {
		return
	}
	for node, targets := range h.nodes {
		if gone(node) {
			h.prober.replace(targets, nil)
			delete(h.nodes, node)
		}
	}
}

// probed returns those cuts of a node that are probed, at least one.
func (h *health) probed(n *registration.Registration, cuts []string) []string {
	return cuts[:min(len(cuts), max(1, h.share/max(1, len(n.Addresses))))]
}

// of returns the results of a node for its cuts, in their order: for each the best
// one of its addresses. A cut that is not probed has the best result of the others.
func (h *health) of(n *registration.Registration, cuts []string) []cutHealth {
	out := make([]cutHealth, len(cuts))
	if h.prober == nil || len(n.Addresses) == 0 {
		return out
	}
	best := cutHealth{result: silent}
	probed := h.probed(n, cuts)
	for i, cut := range probed {
		out[i].result = silent
		for _, addr := range n.Addresses {
			out[i].add(h.prober.result(probeTarget{n.Node, addr, cut}))
		}
		best.add(out[i].result, out[i].reason)
	}
	for i := len(probed); i < len(out); i++ {
		out[i] = best
	}
	return out
}

// cutHealth is what probes say of a node as a server of one cut.
type cutHealth struct {
	result probeResult
	reason string // of being silent
}

// add adds the result of another target. An answer counts more than no result
// yet, that more than an answer that does not count yet, and that more than
// silence. The first reason counts.
func (h *cutHealth) add(result probeResult, reason string) {
	switch {
	case result == answering || h.result == answering:
		*h = cutHealth{result: answering}
	case result == notProbed || h.result == notProbed:
		*h = cutHealth{result: notProbed}
	case result == held && h.result == silent:
		*h = cutHealth{held, reason}
	case h.reason == "":
		h.reason = reason
	}
}
