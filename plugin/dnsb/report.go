package dnsb

import "slices"

// report logs what has become of the nodes since the snapshot before.
func (s *snapshot) report(old *snapshot) {
	if old == nil {
		return
	}
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		before := old.named(n.fqdn)
		if before == nil {
			continue
		}
		switch was, is := before.state, n.state; {
		case was != nodeDead && is == nodeDead && !(n.record != nil && n.record.Stale && n.reason == ""):
			log.Warningf("Node %s does not answer and is left out: %s", n.Node, n.reason)
		case was == nodeDead && is != nodeDead:
			log.Infof("Node %s is back", n.Node)
		}
	}
	for name, c := range s.cuts {
		if c.down() && !old.cuts[name].down() {
			log.Errorf("No node of %s answers: resolvers are referred to the last ones known", name)
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
