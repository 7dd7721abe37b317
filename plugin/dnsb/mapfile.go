package dnsb

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
)

// read fills the table from the map files. Their lines are
//
//	PREFIX NODE...
//	PREFIX AS64500
//	asn AS64500 NODE...
//	country FR NODE...
//	continent EU NODE...
//
// in any order; prefixes of an AS without an asn line are left out. A '#'
// begins a comment.
func (t *tables) read(conf *config, rules *geoRules) error {
	contents := make([][]byte, len(conf.maps))
	for i, path := range conf.maps {
		var err error
		if contents[i], err = os.ReadFile(path); err != nil { // #nosec G304 -- the operator names it
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
			return rules.add(t, fields)
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
				return t.put(prefix, rules.ASNs[fields[1]].entry)
			}
			key := strings.Join(fields[1:], " ")
			e, ok := lists[key]
			if !ok {
				if err = checkNodes(conf, fields[1:], true); err != nil {
					return err
				}
				e = t.operator(fields[1:])
				lists[key] = e
			}
			return t.put(prefix, e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// put sets what a file says of a prefix.
func (t *tables) put(prefix netip.Prefix, e *entry) error {
	twice := false
	t.prefixes.Modify(prefix, func(_ *entry, ok bool) (*entry, bool) {
		twice = ok
		return e, false
	})
	if twice {
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
	t, err := newTables(d.conf)
	if err == nil {
		err = t.check(&d.zone.sizes, d.conf)
	}
	if err != nil {
		d.tables.accept(&d.zone.sizes, d.conf)
		reloadCount.WithLabelValues(d.conf.zone, "error").Inc()
		log.Errorf("Failed to reload the map, keeping the previous version: %v", err)
		return false
	}
	reloadCount.WithLabelValues(d.conf.zone, "ok").Inc()

	for _, rec := range d.registry.State().Records { // now, since a snapshot makes registrations wait
		t.register(rec.Node, rec.Registration)
	}
	d.mu.Lock()
	old := *d.tables
	d.mu.Unlock()
	added, removed, altered := t.compare(&old)
	d.mu.Lock()
	d.tables = t // what has been registered since goes into it with the next snapshot
	d.mu.Unlock()
	d.registry.AdvanceSerial()
	log.Infof("Reloaded the map: %d prefixes, %d added, %d removed, %d changed", t.operators, added, removed, altered)
	if len(d.conf.databases) > 0 {
		log.Infof("Reloaded the databases: %d networks, previously %d", t.geo.Networks, old.geo.Networks)
	}
	return true
}

// check returns an error if the map or the databases are less than half of what
// they were.
func (t *tables) check(sizes *mapSizes, conf *config) error {
	if err := sizes.check("map", "prefixes", conf.maps, t.operators); err != nil {
		return err
	}
	return sizes.check("databases", "networks", conf.databases, t.geo.Networks)
}

// accept makes the size of these tables what later ones are compared with.
func (t *tables) accept(sizes *mapSizes, conf *config) {
	sizes.accept(conf.maps, t.operators)
	sizes.accept(conf.databases, t.geo.Networks)
}

// compare counts the differences between what the operator wrote in t and in
// old.
func (t *tables) compare(old *tables) (added, removed, altered int) {
	same := 0
	for prefix, e := range t.prefixes.All() {
		was, _ := old.prefixes.Get(prefix)
		before, now := old.operatorNodes(was), t.operatorNodes(e)
		switch {
		case len(now) == 0:
		case len(before) == 0:
			added++
		case slices.Equal(before, now):
			same++
		default:
			altered++
		}
	}
	return added, old.operators - same - altered, altered
}

func (t *tables) operatorNodes(e *entry) []string {
	if e == nil {
		return nil
	}
	var nodes []string
	for _, c := range e.claims {
		if name := t.names[c.node]; c.operator && c.negated {
			nodes = append(nodes, "!"+name)
		} else if c.operator {
			nodes = append(nodes, name)
		}
	}
	return nodes
}
