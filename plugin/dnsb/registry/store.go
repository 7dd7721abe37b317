package registry

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Store keeps the registrations of one zone where they outlive the process. It
// belongs to one Registry, which calls Write from one goroutine at a time.
type Store interface {
	// Version returns the version of a node, which changes with each write by
	// whatever server.
	Version(node string) int64

	// Write carries out a transaction, and returns when it is certain to
	// outlive the process. A shared store has then told its Replica of it. The
	// error is ErrSuperseded when the node is not of the Version of the
	// transaction any more.
	Write(*Txn) error

	Close() error
}

// StoreUp is for stores to set.
var StoreUp = promauto.NewGaugeVec(prometheus.GaugeOpts{
	Namespace: plugin.Namespace,
	Subsystem: "dnsb",
	Name:      "store_up",
	Help:      "Gauge of whether the store works: etcd answers, the file can be written.",
}, []string{"zone"})

// StoreWorks reports whether StoreUp of a zone is 1.
func StoreWorks(zone string) bool {
	var m dto.Metric
	return StoreUp.WithLabelValues(zone).Write(&m) == nil && m.GetGauge().GetValue() == 1
}

// ErrSuperseded is the error of a transaction that is based on an earlier
// version of its node than the one stored.
var ErrSuperseded = errors.New("another server changed the node meanwhile")

// Location is what a 'store' line names: a Local or a Shared. Its String is that
// line without secrets. Locations are compared by ==.
type Location interface {
	fmt.Stringer

	// Read returns what the store holds, and the error that a server would
	// report. It neither locks nor changes the store: servers may use it.
	Read(zone string) (Contents, error)
}

// Contents are what a store holds of a zone.
type Contents struct {
	Entries []Entry
	Survey  map[string][]byte // by key, see SurveyStore
}

// Local is a location that no other server writes to.
type Local interface {
	Location

	// Open opens the store of a zone and returns what it holds.
	Open(zone string) (Store, []Entry, error)
}

// Shared is a location that other servers write to, too. Leases end where it is.
type Shared interface {
	Location

	// Follow returns the store of a zone, which tells the replica all that it
	// holds, and then what changes, until it is closed. It returns even if the
	// location cannot be reached.
	Follow(zone string, replica Replica) Store
}

// Replica is a Registry as its shared store sees it: what is stored comes from
// the store, and what the store lacks goes there. It may be called with the
// locks of the store held.
type Replica interface {
	// Replace takes all that the store holds.
	Replace([]Entry)

	// Merge takes what has changed in the store.
	Merge([]Entry)

	// NewerThan returns the nodes of which the registry has something newer than
	// a store that holds these entries.
	NewerThan(stored []Entry) []string

	// Restate returns the transaction that writes what is registered of a node.
	// Its lease is the longest, as after a restart.
	Restate(node string) *Txn
}

// Entry is what a store holds of a node.
type Entry struct {
	Node         string
	Serial       uint64                     // last serial of the node
	Resets       uint32                     // of a shared store: how often the serial was reset
	ZoneSerial   uint32                     // of the server that wrote it
	Registration *registration.Registration // nil: withdrawn
	Lease        time.Duration              // of a shared store; 0: ended
	LeaseEnd     time.Time                  // of a shared store: at the latest
}

// Driver returns the location that the words after its name in a 'store' line
// state. The error is corefile.ErrUsage if they do not have the form that it
// expects.
type Driver func(c *caddy.Controller, args []string) (Location, error)

// known are the packages with the drivers of this repository.
var known = map[string]string{
	"db":   "github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/boltstore",
	"etcd": "github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore",
}

var (
	driversMu sync.Mutex
	drivers   = make(map[string]Driver)
)

// RegisterDriver makes a driver available under the word that follows 'store' in
// the Corefile. It is to be called in an init function, and panics when the name
// is taken.
func RegisterDriver(name string, d Driver) {
	driversMu.Lock()
	defer driversMu.Unlock()
	if _, taken := drivers[name]; taken {
		panic("registry: driver registered twice: " + name)
	}
	drivers[name] = d
}

// ParseLocation returns the location that the words after 'store' state.
func ParseLocation(c *caddy.Controller, args []string) (Location, error) {
	if len(args) == 0 {
		return nil, corefile.ErrUsage
	}
	driversMu.Lock()
	defer driversMu.Unlock()
	name := args[0]
	if parse, ok := drivers[name]; ok {
		return parse(c, args[1:])
	}
	if pkg, ok := known[name]; ok {
		return nil, fmt.Errorf("store '%s' is not compiled in: add the line 'dnsb_%s:%s' to plugin.cfg, or import that package in main", name, path.Base(pkg), pkg)
	}
	names := slices.Concat(slices.Collect(maps.Keys(drivers)), slices.Collect(maps.Keys(known)))
	slices.Sort(names)
	return nil, corefile.Unknown("store", name, slices.Compact(names))
}

// SetStore stores registrations at a location from now on, or only in memory if
// it is nil. The store gets what the registry holds, and the registry what the
// store holds of other nodes. With a Local those have a lease of maxLease, so
// that each has the time to renew it. If the location cannot be opened, nothing
// changes.
func (r *Registry) SetStore(at Location, maxLease time.Duration) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	r.maxLease = maxLease
	r.mu.Unlock()
	if at == r.location {
		r.announce(r.store)
		return nil
	}
	var next Store
	if local, ok := at.(Local); ok {
		var err error
		if next, err = r.move(local, maxLease); err != nil {
			return err
		}
	}
	var err error
	if r.store != nil {
		err = r.store.Close()
	}
	r.ownLeases(maxLease)
	if shared, ok := at.(Shared); ok {
		r.awaitStore()
		next = shared.Follow(r.zone, replica{r})
	}

	r.store, r.location = next, at
	r.followSurvey(next)
	r.announce(next)
	if next == nil {
		StoreUp.DeleteLabelValues(r.zone)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed(r.nextZoneSerial())
	return err
}

// Preview makes the registry hold what SetStore would make it hold at the start,
// and leaves the location as it is. A Shared is not contacted.
func (r *Registry) Preview(at Location, maxLease time.Duration) error {
	switch at := at.(type) {
	case Local:
		held, err := at.Read(r.zone)
		if err != nil {
			return err
		}
		r.take(held.Entries, maxLease)
	case Shared:
		r.awaitStore()
	}
	return nil
}

// move opens a local store, writes all that is registered to it, and takes what
// it holds of other nodes.
func (r *Registry) move(to Local, lease time.Duration) (Store, error) {
	store, entries, err := to.Open(r.zone)
	if err != nil {
		return nil, err
	}
	for _, txn := range r.all() {
		if err := store.Write(txn); err != nil {
			return nil, errors.Join(fmt.Errorf("write to store: %w", err), store.Close())
		}
	}
	if n := r.take(entries, lease); len(entries) > 0 {
		log.Infof("Opened store %q: %s", to, plural.Of(n, "node"))
	}
	return store, nil
}

// take takes what a local store holds of other nodes, and returns how many nodes
// are registered now.
func (r *Registry) take(entries []Entry, lease time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.zoneSerial = max(r.zoneSerial, e.ZoneSerial)
		if _, known := r.lastSerials[e.Node]; known {
			continue
		}
		r.lastSerials[e.Node] = lastSerial{e.Resets, e.Serial}
		if e.Registration != nil {
			r.records[e.Node] = &Record{Registration: e.Registration, Serial: e.Serial, LeaseEnd: time.Now().Add(lease)}
		}
	}
	if len(entries) > 0 {
		r.started = time.Time{} // the registry is complete
	}
	return len(r.records)
}

// all returns the transactions that write all that is registered.
func (r *Registry) all() []*Txn {
	r.mu.Lock()
	defer r.mu.Unlock()
	txns := make([]*Txn, 0, len(r.lastSerials))
	for node := range r.lastSerials {
		txns = append(txns, r.restate(node))
	}
	return txns
}

// restate returns the transaction that writes what is registered of a node, with
// the longest lease, as after a restart. mu is locked.
func (r *Registry) restate(node string) *Txn {
	last := r.lastSerials[node]
	txn := &Txn{Node: node, Serial: last.serial, Resets: last.resets, ZoneSerial: r.zoneSerial, Altered: true}
	if rec := r.records[node]; rec != nil {
		txn.Registration = rec.Registration
		if !rec.Stale {
			txn.Lease = r.maxLease
		}
	}
	return txn
}
