package dnsb

// report brings the metrics up to date and logs the nodes that died or came
// back since the snapshot before.
func (s *snapshot) report(old *snapshot) {
	zone := s.conf.zone
	counts := make(map[nodeState]int)
	registered := 0
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
	for _, n := range old.nodes {
		if n != nil && n.record != nil && s.named(n.fqdn) == nil {
			leaseEnd.DeleteLabelValues(zone, n.Node)
		}
	}
}

// named returns the node with a name.
func (s *snapshot) named(fqdn string) *node {
	if s == nil || s.owners[fqdn] == nil {
		return nil
	}
	return s.owners[fqdn].node
}
