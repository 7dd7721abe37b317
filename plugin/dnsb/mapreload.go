package dnsb

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
)

// reload loads the map files and databases if one has changed, and reports
// whether there is a new map. A map with an error, or of less than half the size,
// changes nothing.
func (d *DNSB) reload() bool {
	if !d.mapFiles.Changed() {
		return false
	}
	defer d.snapshot.Load().saveSpace()()
	pacer := new(pacing.Pacer)
	m, err := newResolverMap(d.conf, pacer)
	if err == nil {
		err = m.check(&d.zone.sizes, d.conf)
	}
	if err != nil {
		d.resolvers.accept(&d.zone.sizes, d.conf)
		d.refusedMap(err, d.mapStatus.Load().Loaded)
		return false
	}
	d.mapStatus.Store(&filewatch.Status{Loaded: time.Now()})
	reloadCount.WithLabelValues(d.conf.zone, "ok").Inc()

	for _, rec := range d.registry.State().Records { // now, since a snapshot makes registrations wait
		m.register(rec.Node, rec.Registration, pacer)
	}
	d.mu.Lock()
	previous, prefixes := d.resolvers, d.resolvers.prefixes.Snapshot()
	d.mu.Unlock()
	added, removed, changed := m.prefixes.Compare(prefixes, pacer)
	d.mu.Lock()
	d.resolvers = m // what has been registered since goes into it with the next snapshot
	d.mu.Unlock()
	d.registry.AdvanceSerial()
	log.Infof("Reloaded the map: %s, %d added, %d removed, %d changed", plural.Of(m.prefixes.Operators(), "prefix"), added, removed, changed)
	if len(d.conf.databases) > 0 {
		log.Infof("Reloaded the databases: %s, previously %d", plural.Of(m.geo.Networks, "network"), previous.geo.Networks)
	}
	return true
}

// keepMap makes the map of the lines of the server block and of the files as the
// running instances have them, since one has an error now, and reports whether they
// have them: a reload that has another reason must not fail. Databases without an
// error are loaded, as the geo rules may be new. z is nil if nothing runs.
func (d *DNSB) keepMap(z *zone, err error) bool {
	if z == nil {
		return false
	}
	maps := z.runningWith(func(other *config) bool { return slices.Equal(other.maps, d.conf.maps) })
	databases := z.runningWith(func(other *config) bool { return slices.Equal(other.databases, d.conf.databases) })
	if maps == nil || databases == nil {
		return false
	}
	files := maps.currentMap().files
	m, failure := makeResolverMap(d.conf, files, d.conf.databaseLoader(new(pacing.Pacer)))
	if failure == nil {
		failure = m.check(&z.sizes, d.conf)
	}
	if failure != nil {
		geo := databases.currentMap().geo
		m, failure = makeResolverMap(d.conf, files, func(rules geodb.Rules[geoRule]) (geodb.Table[geoRule], error) {
			return geo.WithRules(rules, func(r *geoRule) string { return r.name }), nil
		})
	}
	if failure != nil { // the lines of the server block contradict the files
		return false
	}
	d.resolvers = m
	d.refusedMap(err, maps.mapStatus.Load().Loaded)
	return true
}

// currentMap returns the map that is in force.
func (d *DNSB) currentMap() *resolverMap {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resolvers
}

// refusedMap notes that the map that was loaded at a time stays.
func (d *DNSB) refusedMap(err error, loaded time.Time) {
	d.mapStatus.Store(&filewatch.Status{Loaded: loaded, Failed: true})
	reloadCount.WithLabelValues(d.conf.zone, "error").Inc()
	log.Errorf("Failed to reload the map, keeping the previous version: %v", err)
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

// mapSizes remembers how large the map was, so that a file which is empty or
// half-written is noticed. The zero value is ready.
type mapSizes struct {
	mu    sync.Mutex
	sizes map[string]int // by files
}

// check returns an error if a map of this size is less than half of the last one
// from the same files. Otherwise it is the last one now.
func (m *mapSizes) check(what, unit string, files []string, size int) error {
	if len(files) == 0 {
		return nil
	}
	m.mu.Lock()
	last := m.sizes[strings.Join(files, "\n")]
	m.mu.Unlock()
	if 2*size < last {
		return fmt.Errorf("the %s would shrink from %d to %d %s, by more than half: restart the server if that is right", what, last, size, unit)
	}
	m.accept(files, size)
	return nil
}

// accept makes this the size of the last map.
func (m *mapSizes) accept(files []string, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sizes == nil {
		m.sizes = make(map[string]int)
	}
	m.sizes[strings.Join(files, "\n")] = size
}
