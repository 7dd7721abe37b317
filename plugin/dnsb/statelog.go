package dnsb

// logChanges logs how the states of nodes and cuts differ from those in the previous
// snapshot.
func (s *snapshot) logChanges(previous *snapshot, c changes) {
	if previous == nil {
		return
	}
	for _, change := range c.nodes {
		before, n := change.old, change.now
		if before == nil || n == nil {
			continue
		}
		switch was, is := before.state, n.state; {
		case was != nodeDead && is == nodeDead && (n.record == nil || !n.record.Stale || n.reason != ""):
			log.Warningf("Node %q is down, leaving it out of referrals: %s", n.Node, n.reason)
		case was == nodeDead && is != nodeDead:
			log.Infof("Node %q is up again", n.Node)
		case is != nodeDead:
			n.logCuts(before)
		}
	}
	for _, name := range c.cuts {
		if s.cuts[name].down() && !previous.cuts[name].down() {
			log.Errorf("All nodes of %q are down, referring resolvers to the last known ones", name)
		}
	}
}

// logCuts logs how the cuts of a node that is not dead differ from those before.
func (n *node) logCuts(before *node) {
	for _, c := range n.cuts {
		switch old, known := before.cut(c.name); {
		case known && old.state != nodeDead && c.state == nodeDead && c.reason != "":
			log.Warningf("Node %q does not answer for %q, leaving it out of the referrals: %s", n.Node, c.name, c.reason)
		case known && old.state == nodeDead && c.state != nodeDead:
			log.Infof("Node %q answers for %q again", n.Node, c.name)
		}
	}
}

// down reports whether all nodes of a cut are dead.
func (c *cut) down() bool {
	return c != nil && len(c.nodes) > 0 && c.alive == 0
}

// named returns the node with a name.
func (s *snapshot) named(fqdn string) *node {
	if s == nil || s.owners[fqdn] == nil {
		return nil
	}
	return s.nodeOf(s.owners[fqdn])
}
