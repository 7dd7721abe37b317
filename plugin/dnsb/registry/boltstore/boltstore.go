// Package boltstore keeps registrations in a database file. Importing it makes
// 'store db FILE' available.
package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// The buckets of a database, inside one that is named by the zone. Both are
// keyed by node: the last serial in 8 bytes, and the registration as
// registry.Encode returns it.
var (
	serialsBucket       = []byte("serials")
	registrationsBucket = []byte("registrations")

	// zoneSerialKey is the key, beside them, of the serial of the zone in 4
	// bytes.
	zoneSerialKey = []byte("serial")
)

// lockTime is how long to wait for a process that is about to end.
const lockTime = time.Second

var log = clog.NewWithPlugin("dnsb")

func init() { registry.RegisterDriver("db", parse) }

func parse(c *caddy.Controller, args []string) (registry.Location, error) {
	if len(args) != 1 {
		return nil, corefile.ErrUsage
	}
	path, err := corefile.OutputPath(c, "store", args[0])
	return Location(path), err
}

// Location is the path of a database file.
type Location string

var _ registry.Local = Location("")

// String implements the fmt.Stringer interface.
func (l Location) String() string { return "db " + string(l) }

// Open implements the registry.Local interface. A corrupt file is renamed and
// replaced by an empty one.
func (l Location) Open(zone string) (registry.Store, []registry.Entry, error) {
	path := string(l)
	s := &store{zone: []byte(zone)}
	entries, err := s.open(path)
	if err == nil {
		return s, entries, nil
	}
	var (
		file   *fs.PathError
		system syscall.Errno
	)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, nil, fmt.Errorf("store %s is in use: every server and every zone needs a file of its own", path)
	}
	if errors.As(err, &file) || errors.As(err, &system) { // says nothing about the content
		return nil, nil, fmt.Errorf("open store %s: %w", path, err)
	}

	aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405Z"))
	if err := os.Rename(path, aside); err != nil {
		return nil, nil, fmt.Errorf("set aside corrupt store: %w", err)
	}
	log.Errorf("Set aside corrupt store %q as %q, starting with an empty map: %v", path, aside, err)
	if entries, err = s.open(path); err != nil {
		return nil, nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, entries, nil
}

// store implements the registry.Store interface. What Write acknowledged is on
// the disk.
type store struct {
	zone []byte
	db   *bolt.DB
}

// open opens the database and reads all of it. A file that is cut short faults
// where it is read; what was open then stays so until the process ends, because
// the library's locks may be held.
func (s *store) open(path string) (entries []registry.Entry, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	s.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTime, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(s.zone)
		if err != nil {
			return err
		}
		for _, name := range [][]byte{serialsBucket, registrationsBucket} {
			if _, err := root.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		entries, err = read(root)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return entries, nil
}

// read returns what is stored of each node. Every node has a serial.
func read(root *bolt.Bucket) ([]registry.Entry, error) {
	zoneSerial := uint32(0)
	if b := root.Get(zoneSerialKey); len(b) == 4 {
		zoneSerial = binary.BigEndian.Uint32(b)
	}
	var entries []registry.Entry
	registrations := root.Bucket(registrationsBucket)
	err := root.Bucket(serialsBucket).ForEach(func(node, serial []byte) error {
		if len(serial) != 8 {
			return fmt.Errorf("serial of %d bytes", len(serial))
		}
		e := registry.Entry{Node: string(node), Serial: binary.BigEndian.Uint64(serial), ZoneSerial: zoneSerial}
		if stored := registrations.Get(node); stored != nil {
			var err error
			if e.Registration, err = registry.Decode(stored); err != nil {
				return fmt.Errorf("registration of %s: %w", node, err)
			}
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

// Version implements the registry.Store interface: no other server writes to the
// file.
func (s *store) Version(string) int64 { return 0 }

// Write implements the registry.Store interface. A registration that has not
// changed is not written again.
func (s *store) Write(txn *registry.Txn) error {
	var encoded []byte
	if txn.Altered && txn.Registration != nil {
		var err error
		if encoded, err = registry.Encode(txn.Registration); err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		root := tx.Bucket(s.zone)
		if err := root.Put(zoneSerialKey, binary.BigEndian.AppendUint32(nil, txn.ZoneSerial)); err != nil {
			return err
		}
		if err := root.Bucket(serialsBucket).Put([]byte(txn.Node), binary.BigEndian.AppendUint64(nil, txn.Serial)); err != nil {
			return err
		}
		switch {
		case !txn.Altered:
			return nil
		case txn.Registration == nil:
			return root.Bucket(registrationsBucket).Delete([]byte(txn.Node))
		}
		return root.Bucket(registrationsBucket).Put([]byte(txn.Node), encoded)
	})
}

// Close implements the registry.Store interface.
func (s *store) Close() error { return s.db.Close() }
