package dnsb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// A registered prefix that is shorter than this must be spelled out in the
// 'accept' line: it covers whole continents.
const (
	shortestIPv4 = 8
	shortestIPv6 = 16
)

// acceptRule is an 'accept' line: what the holder of a key may register of a
// node.
type acceptRule struct {
	key, node string
	any       bool // all prefixes that are not too short
	prefixes  bart.Lite
	cuts      []string // sorted; none: all
	ds        bool     // DS records of these cuts, too
	survey    bool     // take part in the survey
	at        corefile.Position
}

// permits returns an error if the holder of key may not register reg. An empty
// key is any of those with a rule for the node. registered are the cuts that the
// node has, which it may always give up.
func (c *config) permits(key string, reg *registration.Registration, registered []string) error {
	var rules []*acceptRule
	for _, rule := range c.rules[reg.Node] {
		if key == "" || rule.key == key {
			rules = append(rules, rule)
		}
	}
	if len(rules) == 0 && key == "" {
		return fmt.Errorf("no 'accept' line lets node %s register", reg.Node)
	}
	if len(rules) == 0 {
		return fmt.Errorf("the key %s may not register node %s", key, reg.Node)
	}

	for _, cut := range reg.Cuts {
		if err := c.permitsCut(rules, cut); err != nil {
			return err
		}
	}
	for _, cut := range reg.FormerCuts {
		if slices.Contains(registered, cut) {
			continue
		}
		if err := c.permitsCut(rules, cut); err != nil {
			return err
		}
	}
	for _, prefix := range reg.Prefixes {
		if !slices.ContainsFunc(rules, func(rule *acceptRule) bool { return rule.permitsPrefix(prefix.Prefix) }) {
			return fmt.Errorf("node %s may not claim the prefix %s", reg.Node, prefix.Prefix)
		}
	}
	for _, ds := range reg.DS {
		if !slices.ContainsFunc(rules, func(rule *acceptRule) bool { return rule.ds && rule.permitsCut(ds.Cut) }) {
			return fmt.Errorf("node %s may not register DS records of %s: its 'accept' line does not end in 'ds'", reg.Node, ds.Cut)
		}
	}
	return nil
}

// permitsCut returns an error if a name cannot be a cut, or none of the rules,
// which are of one node, has it.
func (c *config) permitsCut(rules []*acceptRule, cut string) error {
	if cut == c.zone {
		return fmt.Errorf("%s is the zone itself and cannot be a cut", cut)
	}
	if c.isReserved(cut) {
		return fmt.Errorf("%s cannot be a cut: %s and all names below are those of the nodes", cut, c.labelName())
	}
	if why := reserved(cut); why != "" {
		return fmt.Errorf("%s cannot be a cut: %s", cut, why)
	}
	if server := c.coversServer(cut); server != "" {
		return fmt.Errorf("%s cannot be a cut: %s is the name of a server of the zone", cut, server)
	}
	if strings.Contains(cut, "*") {
		return fmt.Errorf("%s cannot be a cut: it has a wildcard", cut)
	}
	if other := c.cutTree.nested(cut); other != "" {
		return fmt.Errorf("%s cannot be a cut: it is below or above the cut %s", cut, other)
	}
	if !slices.ContainsFunc(rules, func(rule *acceptRule) bool { return rule.permitsCut(cut) }) {
		return fmt.Errorf("node %s may not serve %s", rules[0].node, cut)
	}
	return nil
}

func (a *acceptRule) permitsCut(cut string) bool {
	return len(a.cuts) == 0 || inSorted(a.cuts, cut)
}

func (a *acceptRule) permitsPrefix(prefix netip.Prefix) bool {
	shortest := shortestIPv4
	if prefix.Addr().Is6() {
		shortest = shortestIPv6
	}
	if prefix.Bits() < shortest {
		return a.prefixes.Get(prefix)
	}
	return a.any || a.prefixes.LookupPrefix(prefix)
}

func inSorted(list []string, s string) bool {
	_, found := slices.BinarySearch(list, s)
	return found
}
