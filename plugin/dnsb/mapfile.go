package dnsb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// readMapFiles adds the prefixes and geo rules of the map files. Their lines are
//
//	PREFIX NODE...
//	PREFIX AS64500
//	asn AS64500 NODE...
//	country FR NODE...
//	continent EU NODE...
//
// in any order; prefixes of an AS without an asn line are left out. A '#'
// begins a comment.
func readMapFiles(m *prefixmap.Map, conf *config, rules *geoRules) error {
	contents := make([][]byte, len(conf.maps))
	for i, path := range conf.maps {
		var err error
		if contents[i], err = inputfile.ReadText(path); err != nil {
			return fmt.Errorf("read map file: %w", err)
		}
		err = corefile.EachLine(path, contents[i], func(_ int, fields []string) error {
			if !isGeoRule(fields[0]) {
				return nil
			}
			if err := checkGeoRule(fields); err != nil {
				return err
			}
			if err := checkNodes(conf, fields[2:], false); err != nil {
				return err
			}
			return rules.add(m, fields)
		})
		if err != nil {
			return err
		}
	}

	lists := make(map[string]*entry) // few lists of nodes on many lines
	for i, path := range conf.maps {
		err := corefile.EachLine(path, contents[i], func(_ int, fields []string) error {
			if isGeoRule(fields[0]) {
				return nil
			}
			prefix, err := corefile.Prefix(fields[0])
			if err != nil {
				return err
			}
			if len(fields) < 2 {
				return fmt.Errorf("no node for %s, expected 'PREFIX NODE...'", prefix)
			}
			if len(fields) == 2 && geodb.IsASN(fields[1]) {
				if rules.ASNs[fields[1]] == nil {
					return nil
				}
				return addPrefix(m, prefix, rules.ASNs[fields[1]].entry)
			}
			key := strings.Join(fields[1:], " ")
			e, ok := lists[key]
			if !ok {
				if err = checkNodes(conf, fields[1:], true); err != nil {
					return err
				}
				e = m.OperatorEntry(fields[1:])
				lists[key] = e
			}
			return addPrefix(m, prefix, e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addPrefix adds a prefix of a map file.
func addPrefix(m *prefixmap.Map, prefix netip.Prefix, e *entry) error {
	if !m.Add(prefix, e) {
		return corefile.Twice("prefix "+prefix.String(), "put all its nodes on one line, best first")
	}
	return nil
}

// checkNodes returns an error unless these can be the nodes of a line, some of
// them barred where that has a meaning.
func checkNodes(conf *config, nodes []string, bars bool) error {
	bare := make([]string, len(nodes))
	for i, node := range nodes {
		if bars {
			node = strings.TrimPrefix(node, "!")
		}
		bare[i] = node
		if !registration.IsLabel(node) || !conf.knows(node) {
			return unknownNode(node)
		}
		if slices.Contains(bare[:i], node) {
			return corefile.Twice("node '"+node+"'", "name it once")
		}
	}
	return nil
}

// reload loads the map files and databases if one has changed, and reports
// whether there is a new map. A map with an error, or of less than half the size,
// changes nothing.
func (d *DNSB) reload() bool {
	if !d.mapFiles.Changed() {
		return false
	}
	m, err := newResolverMap(d.conf)
	if err == nil {
		err = m.check(&d.zone.sizes, d.conf)
	}
	if err != nil {
		d.resolvers.accept(&d.zone.sizes, d.conf)
		reloadCount.WithLabelValues(d.conf.zone, "error").Inc()
		log.Errorf("Failed to reload the map, keeping the previous version: %v", err)
		return false
	}
	reloadCount.WithLabelValues(d.conf.zone, "ok").Inc()

	for _, rec := range d.registry.State().Records { // now, since a snapshot makes registrations wait
		m.register(rec.Node, rec.Registration)
	}
	d.mu.Lock()
	previous, prefixes := d.resolvers, d.resolvers.prefixes.Snapshot()
	d.mu.Unlock()
	added, removed, changed := m.prefixes.Compare(prefixes)
	d.mu.Lock()
	d.resolvers = m // what has been registered since goes into it with the next snapshot
	d.mu.Unlock()
	d.registry.AdvanceSerial()
	log.Infof("Reloaded the map: %d prefixes, %d added, %d removed, %d changed", m.prefixes.Operators(), added, removed, changed)
	if len(d.conf.databases) > 0 {
		log.Infof("Reloaded the databases: %d networks, previously %d", m.geo.Networks, previous.geo.Networks)
	}
	return true
}

// check returns an error if the map or the databases are less than half of what
// they were.
func (m *resolverMap) check(sizes *mapSizes, conf *config) error {
	if err := sizes.check("map", "prefixes", conf.maps, m.prefixes.Operators()); err != nil {
		return err
	}
	return sizes.check("databases", "networks", conf.databases, m.geo.Networks)
}

// accept makes the size of this map what later ones are compared with.
func (m *resolverMap) accept(sizes *mapSizes, conf *config) {
	sizes.accept(conf.maps, m.prefixes.Operators())
	sizes.accept(conf.databases, m.geo.Networks)
}
