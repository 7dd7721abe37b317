package dnsb

// report brings the metrics up to date and logs the nodes that died or came
// back since the snapshot before.
func (s *snapshot) report(old *snapshot, reasons map[string]string) {
	zone := s.conf.zone
	counts := make(map[nodeState]int)
	registered := 0
	for id, n := range s.nodes {
		if n == nil {
			continue
		}
		counts[n.state]++
		registered += len(n.Prefixes)
		if n.record != nil {
			leaseEnd.WithLabelValues(zone, n.Node).Set(float64(n.record.ends.UnixMilli()) / 1000)
		}

		var before *node
		if old != nil && id < len(old.nodes) {
			before = old.nodes[id]
		}
		if before == nil {
			continue
		}
		switch was, is := before.state, n.state; {
		case was != nodeDead && is == nodeDead && !(n.record != nil && n.record.stale && reasons[n.Node] == ""):
			log.Warningf("Node %s does not answer and is left out: %s", n.Node, reasons[n.Node])
		case was == nodeDead && is != nodeDead:
			log.Infof("Node %s is back", n.Node)
		}
	}
	for _, state := range []nodeState{nodeLive, nodeStale, nodeDead} {
		nodeCount.WithLabelValues(zone, string(state)).Set(float64(counts[state]))
	}
	prefixCount.WithLabelValues(zone, "operator").Set(float64(len(s.conf.prefixes)))
	prefixCount.WithLabelValues(zone, "registration").Set(float64(registered))

	if old == nil {
		return
	}
	for id, n := range old.nodes {
		if n != nil && n.record != nil && (id >= len(s.nodes) || s.nodes[id] == nil) {
			leaseEnd.DeleteLabelValues(zone, n.Node)
		}
	}
}
