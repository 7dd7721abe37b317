package dnsb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// maxAhead is how far the serial of a registration may be ahead of the clock:
// as far as TSIG lets clocks differ (RFC 8945, section 10). A larger one could
// lock its node out for as long as it likes.
const maxAhead = 300 * time.Second

// registries holds what is registered in each zone, over reloads.
var registries = keep.Keeper[string, *registry]{
	Close: func(_ string, r *registry) { r.close() },
}

// registry holds the registrations of one zone and ends their leases.
type registry struct {
	writing sync.Mutex // of who changes what is stored; held before mu
	store   store      // nil: memory only
	storage storage

	unmapped *unmapped
	youngest atomic.Pointer[DNSB] // of the instances that have started

	mu         sync.Mutex
	started    time.Time // since when nodes can have come back; zero: all have
	records    map[string]*record
	marks      map[string]uint64 // highest serial of each node that ever registered
	serial     uint32            // of the zone
	maps       map[string]int    // prefixes that the operator last wrote, by files
	told       map[string]refusal
	unfinished map[string]*unfinished // by node
	timer      *time.Timer            // of the next end of a lease

	// Of a store that is shared:
	unread  bool          // nothing is known yet of what it holds
	longest time.Duration // lease
	grace   time.Time     // until when no lease ends, after a start
	waiting map[chan struct{}]struct{}
}

// record is one registration. It is immutable.
type record struct {
	*registration.Registration           // without serial and lease; the same as long as nothing in it changes
	serial                     uint64    // milliseconds since 1970
	ends                       time.Time // of the lease
	stale                      bool      // the lease ended without a withdrawal
	elsewhere                  bool      // a shared store says when the lease ends
}

// refusal is what was last logged about a node.
type refusal struct {
	kind string
	at   time.Time
}

func newRegistry() *registry {
	r := &registry{
		started:    time.Now(),
		records:    make(map[string]*record),
		marks:      make(map[string]uint64),
		told:       make(map[string]refusal),
		unfinished: make(map[string]*unfinished),
		maps:       make(map[string]int),
		waiting:    make(map[chan struct{}]struct{}),

		unmapped: &unmapped{since: time.Now()},
	}
	r.serial = r.next()
	r.timer = time.AfterFunc(maxLease, r.expire)
	return r
}

// close ends the use of the store, and the goroutine that ends leases.
func (g *registry) close() {
	g.writing.Lock()
	defer g.writing.Unlock()
	if g.store != nil {
		if err := g.store.close(); err != nil {
			log.Errorf("Closing the store: %s", err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer.Stop()
	for _, u := range g.unfinished {
		u.timer.Stop()
	}
}

// outcome names what a registration did; it is a label of metrics.
type outcome string

const (
	added     outcome = "new"
	changed   outcome = "change"
	refreshed outcome = "refresh"
	partial   outcome = "part" // kept until the others are there
	withdrawn outcome = "withdrawal"

	unsigned  outcome = "unsigned"
	malformed outcome = "malformed"
	unmet     outcome = "prerequisite"
	outside   outcome = "scope" // not what the key, or anybody, may register
	failed    outcome = "store"
	late      outcome = "serial" // older than what was here, or ahead of the clock
)

// apply makes r what is registered of its node, or withdraws the node. It is
// idempotent and monotone: a serial that is older than one seen before changes
// nothing, and is an error.
func (g *registry) apply(r *registration.Registration, lease time.Duration) (outcome, error) {
	g.writing.Lock()
	defer g.writing.Unlock()
	for range attempts {
		c, result, err := g.plan(r, lease)
		if err != nil {
			return result, err
		}
		if err := g.commit(c); err == nil {
			g.mu.Lock()
			g.supersede(r.Node)
			g.mu.Unlock()
			return result, nil
		} else if !errors.Is(err, errSuperseded) {
			return failed, err
		}
	}
	return failed, errContended
}

// plan returns the change that r means.
func (g *registry) plan(r *registration.Registration, lease time.Duration) (*change, outcome, error) {
	c := g.newChange(r.Node)
	g.mu.Lock()
	defer g.mu.Unlock()
	old, mark := g.records[r.Node], g.marks[r.Node]

	serial := r.Serial
	if serial == 0 {
		serial = max(uint64(time.Now().UnixMilli()), mark+1) // #nosec G115 -- positive since 1970
	} else if err := checkSerial(serial, mark); err != nil {
		return nil, late, err
	}
	if serial == mark && !repeats(old, r) {
		return nil, late, otherContent(serial)
	}

	c.mark, c.serial = serial, g.next()
	if len(r.Addresses) == 0 {
		c.altered = old != nil
		return c, withdrawn, nil
	}
	c.registration, c.lease, c.altered = content(r), lease, true
	switch {
	case old == nil:
		return c, added, nil
	case !same(old.Registration, c.registration):
		return c, changed, nil
	}
	c.registration, c.altered = old.Registration, false
	return c, refreshed, nil
}

// newChange returns a change of a node that is based on what is looked at from
// now on.
func (g *registry) newChange(node string) *change {
	c := &change{node: node}
	if g.store != nil {
		c.version = g.store.version(node)
	}
	return c
}

// commit makes a change, in the store first if there is one. The error is
// errSuperseded when the change is to be planned again.
func (g *registry) commit(c *change) error {
	if g.store != nil {
		if err := g.store.put(c); errors.Is(err, errSuperseded) {
			return err
		} else if err != nil {
			return &registration.Error{Rcode: dns.RcodeServerFailure, Text: "the store failed: " + err.Error()}
		}
	}
	if g.storage.isShared() {
		return nil // put has made it be taken
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marks[c.node] = c.mark
	switch {
	case c.registration != nil:
		g.records[c.node] = &record{Registration: c.registration, serial: c.mark, ends: time.Now().Add(c.lease)}
	case g.records[c.node] != nil:
		delete(g.records, c.node)
	default:
		return nil
	}
	g.changed(c.serial)
	return nil
}

// repeats reports whether r states what old already holds.
func repeats(old *record, r *registration.Registration) bool {
	if old == nil {
		return len(r.Addresses) == 0
	}
	return same(old.Registration, content(r))
}

// content returns r without what differs from one refresh to the next.
func content(r *registration.Registration) *registration.Registration {
	c := *r
	c.Serial, c.Lease, c.FormerCuts = 0, 0, nil
	return &c
}

func same(a, b *registration.Registration) bool {
	return a.Location == b.Location && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Cuts, b.Cuts) &&
		slices.Equal(a.Deputies, b.Deputies) && slices.Equal(a.DS, b.DS) && slices.Equal(a.Prefixes, b.Prefixes)
}

// changed is to be called, locked, when records changed and made that the serial
// of the zone.
func (g *registry) changed(serial uint32) {
	g.serial = max(g.serial+1, serial)
	g.schedule()
	for ch := range g.waiting {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// next returns a serial of the zone that is larger than all that this and, by the
// clock, earlier processes gave out.
func (g *registry) next() uint32 {
	return max(g.serial+1, uint32(time.Now().Unix())) // #nosec G115 -- until 2106
}

// touch makes the zone's serial larger.
func (g *registry) touch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serial = g.next()
}

// schedule sets the timer to the next end of a lease.
func (g *registry) schedule() {
	next := maxLease
	for _, rec := range g.records {
		if !rec.stale && !rec.elsewhere {
			next = min(next, time.Until(rec.ends))
		}
	}
	g.timer.Reset(max(next, 0))
}

// expire makes the nodes stale whose lease has ended.
func (g *registry) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	ended := false
	for node, rec := range g.records {
		if rec.stale || rec.elsewhere || time.Until(rec.ends) > 0 {
			continue
		}
		stale := *rec
		stale.stale = true
		g.records[node] = &stale
		ended = true
		warnStale(node)
	}
	if ended {
		g.changed(g.next())
		return
	}
	g.schedule()
}

func warnStale(node string) {
	log.Warningf("Node %s did not renew its lease: it is stale, and is used only while it answers probes", node)
}

// state is what is registered at one moment.
type state struct {
	records map[string]*record
	marks   int // nodes that ever registered
	serial  uint32
}

func (g *registry) state() state {
	g.mu.Lock()
	defer g.mu.Unlock()
	return state{maps.Clone(g.records), len(g.marks), g.serial}
}

// held returns the cuts that a node has registered.
func (g *registry) held(node string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if rec := g.records[node]; rec != nil {
		return rec.Cuts
	}
	return nil
}

// forget drops what a node registered, as if it had withdrawn.
func (g *registry) forget(node string) error {
	g.writing.Lock()
	defer g.writing.Unlock()
	for range attempts {
		c := g.newChange(node)
		g.mu.Lock()
		known := g.records[node] != nil
		c.mark, c.serial, c.altered = g.marks[node], g.next(), true
		g.mu.Unlock()
		if !known {
			return nil
		}
		if err := g.commit(c); !errors.Is(err, errSuperseded) {
			return err
		}
	}
	return errContended
}

// coldUntil returns until when a node that has not registered may yet come back.
func (g *registry) coldUntil(lease time.Duration) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unread {
		return time.Now().AddDate(100, 0, 0)
	}
	return g.started.Add(lease)
}

// registered reports whether a node has ever registered.
func (g *registry) registered(node string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.marks[node] != 0
}

// checkMap returns an error if a map of so many prefixes is less than half of
// the one before from the same files: one was emptied, or is being written.
// Otherwise it becomes the one before.
func (g *registry) checkMap(what, unit string, files []string, size int) error {
	if len(files) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	key := strings.Join(files, "\n")
	if before := g.maps[key]; 2*size < before {
		return fmt.Errorf("the %s would shrink from %d to %d %s, by more than half: restart the server if that is right", what, before, size, unit)
	}
	g.maps[key] = size
	return nil
}

// acceptMap makes this the size of a map, whatever it was.
func (g *registry) acceptMap(files []string, size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.maps[strings.Join(files, "\n")] = size
}

// subscribe returns a channel that is written to, without waiting, when
// something changed, and the function that ends it.
func (g *registry) subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting[ch] = struct{}{}
	return ch, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.waiting, ch)
	}
}

// remindAfter is how often the same refusal of the same node is logged.
const remindAfter = 10 * time.Minute

// maxTold bounds what is remembered of refusals: a key that is valid may send any
// names.
const maxTold = 1024

// news reports whether a refusal is to be logged: it is of another kind than the
// last one of the same sender, or was not logged for a while.
func (g *registry) news(sender, kind string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if last := g.told[sender]; last.kind == kind && now.Sub(last.at) < remindAfter {
		return false
	}
	if len(g.told) >= maxTold {
		clear(g.told)
	}
	g.told[sender] = refusal{kind, now}
	return true
}
