package registry

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	// maxAhead is how far the serial of a registration may be ahead of the
	// clock: as far as TSIG lets clocks differ (RFC 8945, section 10). A larger
	// one could lock its node out for as long as it likes.
	maxAhead = 300 * time.Second

	// attempts is how often a transaction is planned while other servers change
	// the same node: one registers with a few servers, once.
	attempts = 8
)

// Outcome names what became of a registration. It is a label of metrics.
type Outcome string

// The outcomes of Apply.
const (
	Added     Outcome = "new"
	Changed   Outcome = "change"
	Refreshed Outcome = "refresh"
	Withdrawn Outcome = "withdrawal"

	WrongSerial Outcome = "serial" // older than the last one of the node, or ahead of the clock
	StoreFailed Outcome = "store"
)

var errContended = &registration.Error{Rcode: dns.RcodeServerFailure, Text: "the store failed: other servers keep changing this node"}

// Txn is what becomes of a node in one step.
type Txn struct {
	Node       string
	Version    int64  // of the node in the store when the transaction was planned
	Serial     uint64 // last serial of the node from now on
	Resets     uint32 // how often it was reset
	ZoneSerial uint32
	Lease      time.Duration
	// Altered says that Registration is not the one that is stored.
	Altered      bool
	Registration *registration.Registration // nil: the node withdrew
}

// Apply makes reg what is registered of its node or, if it has no addresses,
// withdraws the node. It is idempotent and monotone: a serial that is older than
// the last one of the node changes nothing, and is an error. previous is the last
// serial of the node when it was applied: that of another server, if that was
// faster.
func (r *Registry) Apply(reg *registration.Registration, lease time.Duration) (outcome Outcome, previous uint64, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	for range attempts {
		txn, last, outcome, err := r.plan(reg, lease)
		if err != nil {
			return outcome, last, err
		}
		if err := r.commit(txn); err == nil {
			r.dropOlderParts(reg.Node)
			return outcome, last, nil
		} else if !errors.Is(err, ErrSuperseded) {
			return StoreFailed, last, err
		}
	}
	return StoreFailed, 0, errContended
}

// Forget withdraws a node, unless it has registered again since it had this
// record. It reports whether it did.
func (r *Registry) Forget(rec *Record) (bool, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	for range attempts {
		txn := r.newTxn(rec.Node)
		r.mu.Lock()
		now := r.records[rec.Node]
		txn.Serial, txn.Resets = rec.Serial, r.lastSerials[rec.Node].resets
		txn.ZoneSerial, txn.Altered = r.nextZoneSerial(), true
		r.mu.Unlock()
		if now == nil || now.Serial != rec.Serial {
			return false, nil
		}
		if err := r.commit(txn); !errors.Is(err, ErrSuperseded) {
			return err == nil, err
		}
	}
	return false, errContended
}

// ResetSerial makes the last serial of a node that of now if it is ahead of the
// clock, and reports whether it did. What the node has registered stays.
func (r *Registry) ResetSerial(node string) (bool, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	for range attempts {
		txn := r.newTxn(node)
		now := uint64(time.Now().UnixMilli()) // #nosec G115 -- positive since 1970
		r.mu.Lock()
		last, rec := r.lastSerials[node], r.records[node]
		txn.Serial, txn.Resets, txn.ZoneSerial = now, last.resets+1, r.nextZoneSerial()
		r.mu.Unlock()
		if last.serial <= now {
			return false, nil
		}
		if rec != nil {
			txn.Registration = rec.Registration
			if !rec.Stale {
				txn.Lease = max(time.Until(rec.LeaseEnd), time.Second)
			}
		}
		if err := r.commit(txn); !errors.Is(err, ErrSuperseded) {
			return err == nil, err
		}
	}
	return false, errContended
}

// plan returns the transaction that makes reg the state of its node, and the last
// serial of the node so far.
func (r *Registry) plan(reg *registration.Registration, lease time.Duration) (*Txn, uint64, Outcome, error) {
	txn := r.newTxn(reg.Node)
	r.mu.Lock()
	defer r.mu.Unlock()
	old, last := r.records[reg.Node], r.lastSerials[reg.Node]

	serial := reg.Serial
	if serial == 0 {
		serial = max(uint64(time.Now().UnixMilli()), last.serial+1) // #nosec G115 -- positive since 1970
	} else if err := checkSerial(serial, last.serial); err != nil {
		return nil, last.serial, WrongSerial, err
	}
	if serial == last.serial && !repeats(old, reg) {
		return nil, last.serial, WrongSerial, otherContent(serial)
	}

	txn.Serial, txn.Resets, txn.ZoneSerial = serial, last.resets, r.nextZoneSerial()
	if len(reg.Addresses) == 0 {
		txn.Altered = old != nil
		return txn, last.serial, Withdrawn, nil
	}
	txn.Registration, txn.Lease, txn.Altered = content(reg), lease, true
	switch {
	case old == nil:
		return txn, last.serial, Added, nil
	case !SameContent(old.Registration, txn.Registration):
		return txn, last.serial, Changed, nil
	}
	txn.Registration, txn.Altered = old.Registration, false
	return txn, last.serial, Refreshed, nil
}

// newTxn returns a transaction that is based on what is read from now on.
func (r *Registry) newTxn(node string) *Txn {
	txn := &Txn{Node: node}
	if r.store != nil {
		txn.Version = r.store.Version(node)
	}
	return txn
}

// commit carries out a transaction, in the store first if there is one. The
// error is ErrSuperseded when the transaction is to be planned again.
func (r *Registry) commit(txn *Txn) error {
	if r.store != nil {
		if err := r.store.Write(txn); errors.Is(err, ErrSuperseded) {
			return err
		} else if err != nil {
			return &registration.Error{Rcode: dns.RcodeServerFailure, Text: "the store failed: " + err.Error()}
		}
	}
	if _, shared := r.location.(Shared); shared {
		return nil // the store has told its Replica
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastSerials[txn.Node] = lastSerial{txn.Resets, txn.Serial}
	switch {
	case txn.Registration != nil:
		r.records[txn.Node] = &Record{
			Registration: txn.Registration, Serial: txn.Serial, LeaseEnd: time.Now().Add(txn.Lease), Stale: txn.Lease <= 0,
		}
	case r.records[txn.Node] != nil:
		delete(r.records, txn.Node)
	default:
		return nil
	}
	r.changed(txn.ZoneSerial)
	return nil
}

// checkSerial returns an error if a serial is older than the last one of its
// node, or ahead of the clock.
func checkSerial(serial, last uint64) error {
	millis := uint64(time.Now().UnixMilli()) // #nosec G115 -- positive since 1970
	switch {
	case serial > millis+uint64(maxAhead.Milliseconds()): // #nosec G115 -- a positive constant
		ahead := (time.Duration(serial-millis) * time.Millisecond).Round(time.Second) // #nosec G115 -- for people
		return fmt.Errorf("serial %d is %s ahead of the clock of this server: compare the clocks", serial, ahead)
	case serial < last:
		err := fmt.Errorf("serial %d is older than %d, the last serial of the node", serial, last)
		if last > millis { // the clock of the node was ahead
			ahead := (time.Duration(last-millis) * time.Millisecond).Round(time.Second) // #nosec G115 -- for people
			err = fmt.Errorf("%w: that is %s ahead of the clock of this server, wait so long or use 'forget' in the admin file", err, ahead)
		}
		return err
	}
	return nil
}

func otherContent(serial uint64) error {
	return fmt.Errorf("serial %d was received earlier with other content", serial)
}

// repeats reports whether reg states what old already holds.
func repeats(old *Record, reg *registration.Registration) bool {
	if old == nil {
		return len(reg.Addresses) == 0
	}
	return SameContent(old.Registration, reg)
}

// content returns reg without what differs from one refresh to the next.
func content(reg *registration.Registration) *registration.Registration {
	c := *reg
	c.Serial, c.Lease, c.FormerCuts = 0, 0, nil
	return &c
}

// SameContent reports whether two registrations state the same, serial and lease
// apart.
func SameContent(a, b *registration.Registration) bool {
	return a.Location == b.Location && a.ClientSubnets == b.ClientSubnets && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Cuts, b.Cuts) &&
		slices.EqualFunc(a.Beside, b.Beside, slices.Equal[[]string]) && slices.Equal(a.Deputies, b.Deputies) && slices.Equal(a.DS, b.DS) && slices.Equal(a.Prefixes, b.Prefixes)
}
