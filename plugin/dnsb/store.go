package dnsb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/miekg/dns"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// The buckets of a database, inside one that is named by the zone. Both are
// keyed by node: the highest serial in 8 bytes, and the registration as the
// UPDATE that states it.
var (
	marksBucket         = []byte("serials")
	registrationsBucket = []byte("registrations")

	// zoneSerial is the key, beside them, of the serial of the zone in 4 bytes.
	zoneSerial = []byte("serial")
)

// lockTime is how long to wait for a process that is about to end.
const lockTime = time.Second

// store keeps registrations in a file. What put acknowledged is on the disk.
type store struct {
	path string
	zone []byte
	db   *bolt.DB
}

// stored is what a store holds.
type stored struct {
	registrations map[string]*registration.Registration
	marks         map[string]uint64
	serial        uint32 // of the zone
}

// openStore opens the database of a zone and reads it. One that is damaged is
// moved aside and replaced by an empty one.
func openStore(path, zone string) (*store, *stored, error) {
	s := &store{path: path, zone: []byte(zone)}
	held, err := s.open()
	if err == nil {
		return s, held, nil
	}
	var (
		file   *fs.PathError
		system syscall.Errno
	)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, nil, fmt.Errorf("store %s is in use: every server and every zone needs a file of its own", path)
	}
	if errors.As(err, &file) || errors.As(err, &system) { // no word on what is in it
		return nil, nil, fmt.Errorf("store %s: %w", path, err)
	}

	aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405Z"))
	if err := os.Rename(path, aside); err != nil {
		return nil, nil, fmt.Errorf("store: %w", err)
	}
	log.Errorf("Store %s is damaged (%s): it is set aside as %s, and the map starts empty", path, err, aside)
	if held, err = s.open(); err != nil {
		return nil, nil, fmt.Errorf("store: %w", err)
	}
	return s, held, nil
}

// open opens the database and reads all of it. A file that is cut short faults
// where it is read; what was open then stays so until the process ends, because
// the library's locks may be held.
func (s *store) open() (held *stored, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	s.db, err = bolt.Open(s.path, 0o600, &bolt.Options{Timeout: lockTime, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(s.zone)
		if err != nil {
			return err
		}
		for _, name := range [][]byte{marksBucket, registrationsBucket} {
			if _, err := root.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		held, err = read(root)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return held, nil
}

func read(root *bolt.Bucket) (*stored, error) {
	held := &stored{registrations: make(map[string]*registration.Registration), marks: make(map[string]uint64)}
	if serial := root.Get(zoneSerial); len(serial) == 4 {
		held.serial = binary.BigEndian.Uint32(serial)
	}
	err := root.Bucket(marksBucket).ForEach(func(node, mark []byte) error {
		if len(mark) != 8 {
			return fmt.Errorf("serial of %d bytes", len(mark))
		}
		held.marks[string(node)] = binary.BigEndian.Uint64(mark)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = root.Bucket(registrationsBucket).ForEach(func(node, message []byte) error {
		m := new(dns.Msg)
		if err := m.Unpack(message); err != nil {
			return fmt.Errorf("registration of %s: %w", node, err)
		}
		r, err := registration.Parse(m)
		if err != nil {
			return fmt.Errorf("registration of %s: %w", node, err)
		}
		held.registrations[string(node)] = content(r)
		return nil
	})
	return held, err
}

// put stores the highest serial of a node, the serial of the zone, and what the
// node registered if that has changed: nil when it withdrew. It returns when that
// is on the disk.
func (s *store) put(node string, mark uint64, serial uint32, altered bool, r *registration.Registration) error {
	var message []byte
	if altered && r != nil {
		m, err := r.Message()
		if err != nil {
			return err
		}
		if message, err = m.Pack(); err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		root := tx.Bucket(s.zone)
		if err := root.Put(zoneSerial, binary.BigEndian.AppendUint32(nil, serial)); err != nil {
			return err
		}
		if err := root.Bucket(marksBucket).Put([]byte(node), binary.BigEndian.AppendUint64(nil, mark)); err != nil {
			return err
		}
		switch {
		case !altered:
			return nil
		case r == nil:
			return root.Bucket(registrationsBucket).Delete([]byte(node))
		}
		return root.Bucket(registrationsBucket).Put([]byte(node), message)
	})
}

func (s *store) close() error { return s.db.Close() }

// use makes the file at path the store of the registry; "" keeps it in memory
// only. What the registry already holds goes into the store; an empty registry
// takes what is in there. After a restart all nodes get a lease, so that each
// has the time to renew it.
func (g *registry) use(path, zone string, lease time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.store
	switch {
	case old == nil && path == "", old != nil && old.path == path:
		return nil
	case path == "":
		g.store = nil
	default:
		s, held, err := openStore(path, zone)
		if err != nil {
			return err
		}
		for node, mark := range g.marks {
			var r *registration.Registration
			if rec := g.records[node]; rec != nil {
				r = rec.Registration
			}
			if err := s.put(node, mark, g.serial, true, r); err != nil {
				return errors.Join(fmt.Errorf("store: %w", err), s.close())
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
			log.Infof("Store %s holds %d nodes", path, len(g.records))
		}
		g.store, g.serial = s, max(g.serial, held.serial)
	}
	g.changed()
	if old != nil {
		return old.close()
	}
	return nil
}
