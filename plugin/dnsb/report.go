package dnsb

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// report brings the metrics up to date and logs the nodes that died or came
// back since the snapshot before.
func (s *snapshot) report(old *snapshot) {
	zone := s.conf.zone
	counts := make(map[nodeState]int)
	registered := 0
	if old == nil { // a node may have gone with the configuration before this one
		leaseEnd.DeletePartialMatch(prometheus.Labels{"zone": zone})
	}
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		counts[n.state]++
		registered += len(n.Prefixes)
		if n.record != nil {
			leaseEnd.WithLabelValues(zone, n.Node).Set(float64(n.record.ends.UnixMilli()) / 1000)
		}

		before := old.named(n.fqdn)
		if before == nil {
			continue
		}
		switch was, is := before.state, n.state; {
		case was != nodeDead && is == nodeDead && !(n.record != nil && n.record.stale && n.reason == ""):
			log.Warningf("Node %s does not answer and is left out: %s", n.Node, n.reason)
		case was == nodeDead && is != nodeDead:
			log.Infof("Node %s is back", n.Node)
		}
	}
	for _, state := range []nodeState{nodeLive, nodeStale, nodeDead, nodeDrained} {
		nodeCount.WithLabelValues(zone, string(state)).Set(float64(counts[state]))
	}
	for _, verb := range verbs {
		orderCount.WithLabelValues(zone, verb).Set(s.orders.counts[verb])
	}
	prefixCount.WithLabelValues(zone, "operator").Set(float64(s.operators))
	prefixCount.WithLabelValues(zone, "registration").Set(float64(registered))

	if old == nil {
		return
	}
	for name, c := range s.cuts {
		if c.down() && !old.cuts[name].down() {
			log.Errorf("No node of %s answers: resolvers are referred to the last ones known", name)
		}
	}
	for _, n := range old.nodes {
		if n != nil && n.record != nil && s.named(n.fqdn) == nil {
			leaseEnd.DeleteLabelValues(zone, n.Node)
		}
	}
}

// down reports whether all nodes of a cut are dead.
func (c *cut) down() bool {
	return c != nil && len(c.nodes) > 0 && !slices.ContainsFunc(c.nodes, func(id nodeID) bool { return c.serves[id] > servesDead })
}

// named returns the node with a name.
func (s *snapshot) named(fqdn string) *node {
	if s == nil || s.owners[fqdn] == nil {
		return nil
	}
	return s.owners[fqdn].node
}
