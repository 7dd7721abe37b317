package dnsb

import (
	"fmt"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// conflict returns an error if a cut of r is below or above another of them, or
// one that another node serves. All cuts are looked at
// once at most, and only if a cut has names below it.
func (s *snapshot) conflict(r *registration.Registration) error {
	var cuts, tops nameTree
	for _, name := range r.Cuts {
		if other := cuts.nested(name); other != "" {
			return fmt.Errorf("the cuts %s and %s: one is below the other", name, other)
		}
		cuts.add(name)
		for parent := range parents(name) {
			if node := s.otherServing(s.cuts[parent], r.Node); node != "" {
				return servedBy(name, node, parent)
			}
		}
		if s.owners[name] != nil {
			tops.add(name)
		}
	}
	if len(tops.names) == 0 {
		return nil
	}
	for _, c := range s.cuts {
		top := ""
		for parent := range parents(c.name) {
			if tops.names[parent] {
				top = parent
			}
		}
		if top == "" {
			continue
		}
		if node := s.otherServing(c, r.Node); node != "" {
			return servedBy(top, node, c.name)
		}
	}
	return nil
}

func servedBy(name, node, cut string) error {
	return fmt.Errorf("%s cannot be a cut: node %s serves %s", name, node, cut)
}

// otherServing returns a node other than this one that serves a cut, "" if there
// is none.
func (s *snapshot) otherServing(c *cut, node string) string {
	if c == nil {
		return ""
	}
	for _, id := range c.nodes {
		if other := s.nodes[id].Node; other != node {
			return other
		}
	}
	return ""
}
