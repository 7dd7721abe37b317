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

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// The buckets of a database, inside one that is named by the zone. Both are
// keyed by node: the highest serial in 8 bytes, and the registration as the
// UPDATEs that state it.
var (
	marksBucket         = []byte("serials")
	registrationsBucket = []byte("registrations")

	// zoneSerial is the key, beside them, of the serial of the zone in 4 bytes.
	zoneSerial = []byte("serial")
)

// lockTime is how long to wait for a process that is about to end.
const lockTime = time.Second

// dbStore keeps registrations in a file. What put acknowledged is on the disk.
type dbStore struct {
	path string
	zone []byte
	db   *bolt.DB
}

// stored is what a database holds.
type stored struct {
	registrations map[string]*registration.Registration
	marks         map[string]uint64
	serial        uint32 // of the zone
}

// openDB opens the database of a zone and reads it. One that is damaged is
// moved aside and replaced by an empty one.
func openDB(path, zone string) (*dbStore, *stored, error) {
	s := &dbStore{path: path, zone: []byte(zone)}
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
func (s *dbStore) open() (held *stored, err error) {
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
		r, err := decode(message)
		if err != nil {
			return fmt.Errorf("registration of %s: %w", node, err)
		}
		held.registrations[string(node)] = r
		return nil
	})
	return held, err
}

// version implements the store interface: nobody else writes to the file.
func (s *dbStore) version(string) int64 { return 0 }

// put implements the store interface. A registration that has not changed is not
// written again.
func (s *dbStore) put(c *change) error {
	var message []byte
	if c.altered && c.registration != nil {
		var err error
		if message, err = encode(c.registration); err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		root := tx.Bucket(s.zone)
		if err := root.Put(zoneSerial, binary.BigEndian.AppendUint32(nil, c.serial)); err != nil {
			return err
		}
		if err := root.Bucket(marksBucket).Put([]byte(c.node), binary.BigEndian.AppendUint64(nil, c.mark)); err != nil {
			return err
		}
		switch {
		case !c.altered:
			return nil
		case c.registration == nil:
			return root.Bucket(registrationsBucket).Delete([]byte(c.node))
		}
		return root.Bucket(registrationsBucket).Put([]byte(c.node), message)
	})
}

// close implements the store interface.
func (s *dbStore) close() error { return s.db.Close() }
