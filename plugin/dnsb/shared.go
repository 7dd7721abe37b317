package dnsb

import (
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// kept is what a store that other servers share holds of a node.
type kept struct {
	node         string
	mark         uint64                     // highest serial
	serial       uint32                     // of the zone, as the server that wrote it had it
	registration *registration.Registration // nil: withdrawn
	lease        time.Duration              // 0: ended
	ends         time.Time                  // of the lease, at the latest
}

// takeAll takes all that a shared store holds.
func (g *registry) takeAll(all []*kept) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range all {
		g.serial = max(g.serial, k.serial)
	}
	if g.unread {
		g.unread = false
		g.grace = time.Now().Add(g.longest)
		g.started = time.Now()
		if len(all) > 0 {
			g.started = time.Time{} // nobody has to be waited for
		}
		g.changed(g.next())
	}
	g.takeLocked(all)
}

// take takes what has changed in a shared store.
func (g *registry) take(news []*kept) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takeLocked(news)
}

func (g *registry) takeLocked(news []*kept) {
	serial, differs := uint32(0), false
	for _, k := range news {
		old := g.records[k.node]
		if k.mark < g.marks[k.node] {
			continue // what is here will be written there
		}
		g.marks[k.node] = k.mark
		if k.registration == nil {
			if old != nil {
				delete(g.records, k.node)
				serial, differs = max(serial, k.serial), true
			}
			continue
		}

		rec := &record{Registration: k.registration, serial: k.mark, ends: k.ends, elsewhere: true}
		if k.lease == 0 {
			rec.elsewhere = false
			if rec.ends.Before(g.grace) {
				rec.ends = g.grace
			}
			rec.stale = time.Until(rec.ends) <= 0
		}
		if old != nil && same(old.Registration, rec.Registration) {
			rec.Registration = old.Registration
			if old.serial == rec.serial && old.ends.Equal(rec.ends) && old.elsewhere == rec.elsewhere && old.stale == rec.stale {
				continue
			}
		}
		if rec.stale && (old == nil || !old.stale) {
			warnStale(k.node)
			serial = max(serial, g.next())
		}
		g.records[k.node] = rec
		serial, differs = max(serial, k.serial), true
	}
	if differs {
		g.changed(serial)
	}
}

// ahead returns the nodes of which a newer state is here than in a shared store
// with these marks.
func (g *registry) ahead(stored map[string]uint64) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var nodes []string
	for node, mark := range g.marks {
		if mark > stored[node] {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// restate returns the change that writes what is here of a node. Its lease is the
// longest, as after a restart.
func (g *registry) restate(node string) *change {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &change{node: node, mark: g.marks[node], serial: g.serial, altered: true}
	if rec := g.records[node]; rec != nil {
		c.registration = rec.Registration
		if !rec.stale {
			c.lease = g.longest
		}
	}
	return c
}

// share makes the registry take what is in a shared store, whose leases end there.
func (g *registry) share(longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.longest, g.unread = longest, true
}

// unshare makes all leases end here, each a longest one from now.
func (g *registry) unshare(lease time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unread = false
	for node, rec := range g.records {
		if rec.elsewhere {
			own := *rec
			own.elsewhere, own.ends = false, time.Now().Add(lease)
			g.records[node] = &own
		}
	}
}
