package dnsb

import (
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/garbage"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

type (
	nodeID = prefixmap.NodeID
	entry  = prefixmap.Entry
)

// resolverMap is the map of one instance: operator prefixes, registered prefixes
// and geo records. One goroutine at a time changes it.
type resolverMap struct {
	files      *prefixmap.Files // without databases
	prefixes   *prefixmap.Map
	geo        geodb.Table[geoRule]                  // the zero value: there are no databases
	geoRules   [3]int                                // how many there are, in the order of their layers
	registered map[string]*registration.Registration // whose prefixes are in the map, by node
	derived    map[string]derived                    // from these
}

// derived is what follows from the prefixes of a node.
type derived struct {
	negates bool        // some are negated
	parts   []shownPart // nil: they fit one message
}

func derive(r *registration.Registration) derived {
	return derived{
		negates: slices.ContainsFunc(r.Prefixes, func(p registration.Prefix) bool { return p.Negated }),
		parts:   shownParts(r),
	}
}

// newResolverMap returns the map that the operator wrote: the lines of the server
// block, and the files that it names.
func newResolverMap(conf *config, pacer *pacing.Pacer) (*resolverMap, error) {
	files, err := prefixmap.Read(conf.maps, isGeoRule, pacer)
	if err != nil {
		return nil, err
	}
	m, err := makeResolverMap(conf, files, conf.databaseLoader(pacer))
	if err == nil && m.prefixes.Operators() > manyPrefixes {
		debug.FreeOSMemory() // the text was larger than the map: the process would keep its space
	}
	return m, err
}

// manyPrefixes is above how many operator prefixes space counts that work with all of them
// takes.
const manyPrefixes = 50_000

// saveSpace is garbage.Save for work with all prefixes of a snapshot, if they are many.
func (s *snapshot) saveSpace() (end func()) {
	if s.operators <= manyPrefixes {
		return func() {}
	}
	return garbage.Save()
}

// makeResolverMap is newResolverMap for files that were read, and for what
// databases say.
func makeResolverMap(conf *config, files *prefixmap.Files, databases func(geodb.Rules[geoRule]) (geodb.Table[geoRule], error)) (*resolverMap, error) {
	m := &resolverMap{
		files: files, prefixes: prefixmap.New(),
		registered: make(map[string]*registration.Registration), derived: make(map[string]derived),
	}
	rules := newGeoRules()
	for _, fields := range conf.geoRules {
		if err := rules.add(m.prefixes, fields); err != nil {
			return nil, err
		}
	}
	failed := m.prefixes.AddFiles(files, rules.grammar(m.prefixes, conf))
	m.geoRules = [3]int{len(rules.ASNs), len(rules.Countries), len(rules.Continents)}
	var err error
	m.geo, err = databases(rules.Rules)
	if err = corefile.Join(failed, err); err != nil {
		return nil, err
	}
	m.addPrefixes(conf)
	return m, nil
}

// databaseLoader returns a function that returns what the databases say.
func (c *config) databaseLoader(pacer *pacing.Pacer) func(geodb.Rules[geoRule]) (geodb.Table[geoRule], error) {
	return func(rules geodb.Rules[geoRule]) (geodb.Table[geoRule], error) {
		if len(c.databases) == 0 {
			return geodb.Table[geoRule]{}, nil
		}
		t, err := geodb.Load(c.databases, rules, pacer)
		if err != nil {
			return t, fmt.Errorf("mmdb: %w", err)
		}
		return t, nil
	}
}

// addPrefixes adds the prefixes of the server block. They replace those of files.
func (m *resolverMap) addPrefixes(conf *config) {
	for _, op := range conf.prefixes {
		m.prefixes.Add(op.prefix, m.prefixes.OperatorEntry(op.nodes))
	}
}

// register makes the prefixes of r those that its node registered; r is nil if it
// registered none.
func (m *resolverMap) register(node string, r *registration.Registration, pacer *pacing.Pacer) {
	old := m.registered[node]
	if old == r {
		return
	}
	var previous, prefixes []registration.Prefix
	if old != nil {
		previous = old.Prefixes
	}
	if r != nil {
		prefixes = r.Prefixes
		m.registered[node], m.derived[node] = r, derive(r)
	} else {
		delete(m.registered, node)
		delete(m.derived, node)
	}
	m.prefixes.Register(node, previous, prefixes, pacer)
}
