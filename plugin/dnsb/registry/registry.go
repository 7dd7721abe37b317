// Package registry holds what nodes register in one zone: their registrations
// and leases, the serials that keep registrations in order, and the serial of
// the zone. A store lets them outlive the process; stores are drivers, which
// packages register that a program imports.
//
// Locks are taken in this order: Registry.writing, those of the store,
// Registry.mu. So a store may call its Replica, and a Registry never calls its
// store with mu locked.
package registry

import (
	"maps"
	"sync"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

// MaxLease is the longest lease. In seconds it fits any integer type that is in
// use for it.
const MaxLease = 30 * 24 * time.Hour

var log = clog.NewWithPlugin("dnsb")

// Registry holds the registrations of one zone. It is safe for concurrent use.
// Use New.
type Registry struct {
	zone    string
	changes wakeup.Broadcast
	survey  Survey // nil: there is none

	writing  sync.Mutex // one writer of the store at a time
	location Location   // nil: in memory only
	store    Store      // nil: in memory only

	mu          sync.Mutex
	started     time.Time // since when nodes can have registered again; zero: all have
	records     map[string]*Record
	lastSerials map[string]lastSerial // of each node that ever registered
	zoneSerial  uint32
	incomplete  map[sender]*incomplete
	server      Server      // that this is
	servers     ServerStore // nil: no other server uses the store
	leaseTimer  *time.Timer // of the next end of a lease

	// Of a shared store:
	awaiting   bool          // its contents are not known yet
	maxLease   time.Duration // that a node can have got from any server
	graceUntil time.Time     // no lease ends earlier, after a start
}

// Record is what one node has registered. It is immutable.
type Record struct {
	// Registration has no serial and no lease. It is the same pointer as long
	// as nothing in it changes.
	*registration.Registration
	Serial   uint64    // milliseconds since 1970
	LeaseEnd time.Time // as far as this server knows, with a shared store
	Stale    bool      // the lease ended without a withdrawal

	storeLease bool // a shared store says when the lease ends
}

// lastSerial is the last serial of a node, and how often it was reset. It puts
// what was registered of the node in order, at all servers alike and whatever their
// clocks say.
type lastSerial struct {
	resets uint32
	serial uint64
}

// less reports whether what has the serial s is older than what has o.
func (s lastSerial) less(o lastSerial) bool {
	return s.resets < o.resets || s.resets == o.resets && s.serial < o.serial
}

// New returns an empty registry of a zone, in memory. It is to be closed.
func New(zone string) *Registry {
	r := &Registry{
		zone:        zone,
		started:     time.Now(),
		records:     make(map[string]*Record),
		lastSerials: make(map[string]lastSerial),
		incomplete:  make(map[sender]*incomplete),
	}
	r.zoneSerial = r.nextZoneSerial()
	r.leaseTimer = time.AfterFunc(MaxLease, r.endLeases)
	return r
}

// Close closes the store and stops all timers.
func (r *Registry) Close() {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.store != nil {
		if err := r.store.Close(); err != nil {
			log.Errorf("Failed to close store %q: %v", r.location, err)
		}
		StoreUp.DeleteLabelValues(r.zone)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaseTimer.Stop()
	for _, in := range r.incomplete {
		in.timer.Stop()
	}
}

// State is what is registered at one moment.
type State struct {
	Records map[string]*Record // by node
	Serial  uint32             // of the zone; it grows with each change
}

// State returns what is registered now.
func (r *Registry) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return State{maps.Clone(r.records), r.zoneSerial}
}

// Records returns what is registered now, in no particular order, and the serial of
// the zone.
func (r *Registry) Records() ([]*Record, uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	records := make([]*Record, 0, len(r.records))
	for _, rec := range r.records {
		records = append(records, rec)
	}
	return records, r.zoneSerial
}

// Serial returns the serial of the zone. A State with this serial is current.
func (r *Registry) Serial() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.zoneSerial
}

// Cuts returns the cuts that a node has registered.
func (r *Registry) Cuts(node string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.records[node]; rec != nil {
		return rec.Cuts
	}
	return nil
}

// LastSerial returns the highest serial with which a node has registered or
// withdrawn, 0 if it never has.
func (r *Registry) LastSerial(node string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastSerials[node].serial
}

// ColdUntil returns until when nodes can be missing only because the process has
// started: within the longest lease each of them registers again.
func (r *Registry) ColdUntil(maxLease time.Duration) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.awaiting {
		return time.Now().AddDate(100, 0, 0)
	}
	return r.started.Add(maxLease)
}

// Awaiting reports whether a shared store has not been read yet.
func (r *Registry) Awaiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.awaiting
}

// Subscribe returns a channel that is written to after each change, without
// waiting, and the function that ends the subscription.
func (r *Registry) Subscribe() (changed <-chan struct{}, unsubscribe func()) {
	return r.changes.Subscribe()
}

// AdvanceSerial makes the serial of the zone larger, for a change of the zone
// outside the registry.
func (r *Registry) AdvanceSerial() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.zoneSerial = r.nextZoneSerial()
}

// nextZoneSerial returns a serial of the zone that is larger than all that this
// process and, by the clock, earlier ones gave out. mu is locked.
func (r *Registry) nextZoneSerial() uint32 {
	return max(r.zoneSerial+1, uint32(time.Now().Unix())) // #nosec G115 -- until 2106
}

// changed is to be called, with mu locked, when records have changed and made
// that the serial of the zone.
func (r *Registry) changed(zoneSerial uint32) {
	r.zoneSerial = max(r.zoneSerial+1, zoneSerial)
	r.scheduleLeaseEnd()
	r.changes.Set()
}

// scheduleLeaseEnd sets the timer to the next end of a lease. mu is locked.
func (r *Registry) scheduleLeaseEnd() {
	next := time.Now().Add(MaxLease)
	for _, rec := range r.records {
		if !rec.Stale && !rec.storeLease && rec.LeaseEnd.Before(next) {
			next = rec.LeaseEnd
		}
	}
	r.leaseTimer.Reset(max(time.Until(next), 0))
}

// endLeases makes the nodes stale whose lease has ended.
func (r *Registry) endLeases() {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := false
	for node, rec := range r.records {
		if rec.Stale || rec.storeLease || time.Until(rec.LeaseEnd) > 0 {
			continue
		}
		stale := *rec
		stale.Stale = true
		r.records[node] = &stale
		ended = true
		warnStale(node)
	}
	if ended {
		r.changed(r.nextZoneSerial())
		return
	}
	r.scheduleLeaseEnd()
}

func warnStale(node string) {
	log.Warningf("Lease of node %q ended without a renewal, referring to it only while it answers probes", node)
}
