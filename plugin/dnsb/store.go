package dnsb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// storage says where registrations are kept; the zero value: in memory only.
type storage struct {
	db string // file

	urls           string // of etcd, with blanks between them
	cert, key, ca  string // files
	user, password string
}

// isShared reports whether other servers write there, too.
func (at storage) isShared() bool { return at.urls != "" }

// String returns it as in the configuration, without what is secret.
func (at storage) String() string {
	if at.isShared() {
		return "etcd " + at.urls
	}
	return "db " + at.db
}

// store keeps what is registered in a zone where it outlives the process. It
// belongs to a registry.
type store interface {
	// version returns what a change of a node is to be based on.
	version(node string) int64

	// put stores a change and returns when it is certain to outlive the process. A
	// store that is shared has then made the registry take it. The error is
	// errSuperseded when others changed the node since the version of the change.
	put(*change) error

	close() error
}

// errSuperseded is the error of a change that is based on what is not any more.
var errSuperseded = errors.New("others changed it meanwhile")

// attempts is how often a change is planned while other servers change the same
// node: one registers with a few servers, once.
const attempts = 8

var errContended = &registration.Error{Rcode: dns.RcodeServerFailure, Text: "the store failed: other servers change this node all the time"}

// change is what becomes of a node.
type change struct {
	node         string
	version      int64  // from before all that the change is based on was looked at
	mark         uint64 // highest serial of the node
	serial       uint32 // of the zone
	lease        time.Duration
	altered      bool                       // registration is not the one that is stored
	registration *registration.Registration // nil: the node withdrew
}

// encode returns a registration as the UPDATEs that state it, each behind its
// length, as over TCP (RFC 1035, section 4.2.2).
func encode(r *registration.Registration) ([]byte, error) {
	numbered := *r
	numbered.Serial = 1 // parts need one
	messages, err := numbered.Messages()
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, m := range messages {
		message, err := m.Pack()
		if err != nil {
			return nil, err
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(message))), message...) // #nosec G115 -- a message
	}
	return all, nil
}

// decode returns the registration that stored UPDATEs state.
func decode(all []byte) (*registration.Registration, error) {
	var parts []*registration.Registration
	for len(all) > 0 {
		if len(all) < 2 || len(all)-2 < int(binary.BigEndian.Uint16(all)) {
			return nil, errors.New("cut short")
		}
		end := 2 + int(binary.BigEndian.Uint16(all))
		m := new(dns.Msg)
		if err := m.Unpack(all[2:end]); err != nil {
			return nil, err
		}
		part, err := registration.Parse(m)
		if err != nil {
			return nil, err
		}
		if part.Part != len(parts) {
			return nil, fmt.Errorf("part %d in the place of %d", part.Part, len(parts))
		}
		parts, all = append(parts, part), all[end:]
	}
	if len(parts) == 0 || max(parts[0].Parts, 1) != len(parts) {
		return nil, fmt.Errorf("%d parts", len(parts))
	}
	r, err := registration.Join(parts)
	if err != nil {
		return nil, err
	}
	return content(r), nil
}

// use makes this the storage of the registry. What the registry already holds
// goes there; an empty registry takes what is there. After a restart all nodes
// get a lease, so that each has the time to renew it. After an error nothing has
// changed.
func (g *registry) use(at storage, zone string, lease time.Duration) error {
	g.writing.Lock()
	defer g.writing.Unlock()
	if at == g.storage {
		return nil
	}
	old := g.store
	var s store
	if at.db != "" {
		db, held, err := openDB(at.db, zone)
		if err != nil {
			return err
		}
		if err := g.moveTo(db, held, lease); err != nil {
			return errors.Join(fmt.Errorf("store: %w", err), db.close())
		}
		s = db
	}
	var err error
	if old != nil {
		err = old.close()
	}
	g.unshare(lease)
	if at.isShared() {
		g.share(lease)
		etcd := newEtcd(at, zone, g)
		etcd.start()
		s = etcd
	}

	g.store, g.storage = s, at
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed(g.next())
	return err
}

// moveTo stores all that is registered in db, and takes what it holds of other
// nodes.
func (g *registry) moveTo(db *dbStore, held *stored, lease time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for node, mark := range g.marks {
		c := &change{node: node, mark: mark, serial: g.serial, altered: true}
		if rec := g.records[node]; rec != nil {
			c.registration = rec.Registration
		}
		if err := db.put(c); err != nil {
			return err
		}
	}
	for node, mark := range held.marks {
		if g.marks[node] != 0 {
			continue
		}
		g.marks[node] = mark
		if r := held.registrations[node]; r != nil {
			g.records[node] = &record{Registration: r, serial: mark, ends: time.Now().Add(lease)}
		}
	}
	if len(held.marks) > 0 {
		g.started = time.Time{} // nobody has to be waited for
		log.Infof("Store %s holds %d nodes", db.path, len(g.records))
	}
	g.serial = max(g.serial, held.serial)
	return nil
}
