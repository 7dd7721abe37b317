package registry

import "time"

// replica implements the Replica interface.
type replica struct{ registry *Registry }

var _ Replica = replica{}

// Replace implements the Replica interface.
func (p replica) Replace(all []Entry) {
	r := p.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range all {
		r.zoneSerial = max(r.zoneSerial, e.ZoneSerial)
	}
	if r.awaiting {
		r.awaiting = false
		r.graceUntil = time.Now().Add(r.maxLease)
		r.started = time.Now()
		if len(all) > 0 {
			r.started = time.Time{} // the registry is complete
		}
		r.changed(r.nextZoneSerial())
	}
	r.merge(all)
}

// Merge implements the Replica interface.
func (p replica) Merge(changed []Entry) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.registry.merge(changed)
}

// NewerThan implements the Replica interface.
func (p replica) NewerThan(stored []Entry) []string {
	serials := make(map[string]lastSerial, len(stored))
	for _, e := range stored {
		serials[e.Node] = lastSerial{e.Resets, e.Serial}
	}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	var nodes []string
	for node, last := range p.registry.lastSerials {
		if serials[node].less(last) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// Restate implements the Replica interface.
func (p replica) Restate(node string) *Txn {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return p.registry.restate(node)
}

// merge takes entries that are not older than what is registered. mu is locked.
func (r *Registry) merge(entries []Entry) {
	zoneSerial, changed := uint32(0), false
	for _, e := range entries {
		old := r.records[e.Node]
		next := lastSerial{e.Resets, e.Serial}
		if next.less(r.lastSerials[e.Node]) {
			continue // the store is about to get what is registered
		}
		r.lastSerials[e.Node] = next
		if e.Registration == nil {
			if old != nil {
				delete(r.records, e.Node)
				zoneSerial, changed = max(zoneSerial, e.ZoneSerial), true
			}
			continue
		}

		rec := r.recordOf(e)
		if old != nil && SameContent(old.Registration, rec.Registration) {
			rec.Registration = old.Registration
			if old.Serial == rec.Serial && old.LeaseEnd.Equal(rec.LeaseEnd) && old.storeLease == rec.storeLease && old.Stale == rec.Stale {
				continue
			}
		}
		if rec.Stale && (old == nil || !old.Stale) {
			warnStale(e.Node)
			zoneSerial = max(zoneSerial, r.nextZoneSerial())
		}
		r.records[e.Node] = rec
		zoneSerial, changed = max(zoneSerial, e.ZoneSerial), true
	}
	if changed {
		r.changed(zoneSerial)
	}
}

// recordOf returns the record of a stored registration. After a start no node is
// stale before the grace is over: it may have had no server to register with. mu
// is locked.
func (r *Registry) recordOf(e Entry) *Record {
	rec := &Record{Registration: e.Registration, Serial: e.Serial, LeaseEnd: e.LeaseEnd, storeLease: e.Lease > 0}
	if rec.storeLease {
		return rec
	}
	if rec.LeaseEnd.Before(r.graceUntil) {
		rec.LeaseEnd = r.graceUntil
	}
	rec.Stale = time.Until(rec.LeaseEnd) <= 0
	return rec
}

// awaitStore makes the registry wait for what a shared store holds.
func (r *Registry) awaitStore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.awaiting = true
}

// ownLeases makes the registry end the leases that a shared store would have
// ended, each a longest one from now.
func (r *Registry) ownLeases(lease time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.awaiting = false
	for node, rec := range r.records {
		if rec.storeLease {
			own := *rec
			own.storeLease, own.LeaseEnd = false, time.Now().Add(lease)
			r.records[node] = &own
		}
	}
}
