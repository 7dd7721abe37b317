package dnsb

import "slices"

// logChanges logs how the states of nodes and cuts differ from those in the previous
// snapshot.
func (s *snapshot) logChanges(previous *snapshot) {
	if previous == nil {
		return
	}
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		before := previous.named(n.fqdn)
		if before == nil {
			continue
		}
		switch was, is := before.state, n.state; {
		case was != nodeDead && is == nodeDead && (n.record == nil || !n.record.Stale || n.reason != ""):
			log.Warningf("Node %q is down, leaving it out of referrals: %s", n.Node, n.reason)
		case was == nodeDead && is != nodeDead:
			log.Infof("Node %q is up again", n.Node)
		}
	}
	for name, c := range s.cuts {
		if c.down() && !previous.cuts[name].down() {
			log.Errorf("All nodes of %q are down, referring resolvers to the last known ones", name)
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
