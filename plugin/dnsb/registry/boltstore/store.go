package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// store implements the registry.Store interface. What Write acknowledged is on
// the disk, in the file at path.
//
// The library maps the file into memory and trusts it: a file that another
// process changes makes it panic, fault, or write what cannot be read again. So
// the file is compared with what the last transaction left, before each
// transaction, before it is acknowledged, and every checkInterval. A file that is not the same is set
// aside, and one with all that is registered takes its place.
type store struct {
	path string
	zone []byte

	stop      chan struct{} // ends following
	following sync.WaitGroup

	mu      sync.Mutex
	entries map[string]registry.Entry // all that is stored, by node
	values  map[string][]byte         // of the survey, from open to FollowSurvey
	survey  registry.Survey           // nil: nobody follows

	db     *bolt.DB // nil: the file is to be written anew
	file   *os.File // of db
	left   os.FileInfo
	closed bool

	failure reminder.Failure // of the last write
}

// checkInterval is the time between two looks at the file: so long a copy may be
// missing of what is in memory.
const checkInterval = 10 * time.Second

// follow looks at the file every checkInterval, until Close.
func (s *store) follow() {
	s.stop = make(chan struct{})
	s.following.Go(func() {
		ticker := time.NewTicker(checkInterval)
		defer ticker.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-ticker.C:
				s.check()
			}
		}
	})
}

// check writes all that is registered to a new file if the file is not as the last
// transaction left it, or if that has failed before.
func (s *store) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.db != nil {
		var file *fs.PathError
		reason := s.changed()
		if reason == nil || errors.As(reason, &file) {
			return // a file system that does not tell has not lost the file
		}
		if err := s.replace(reason); err != nil {
			s.wrote(err)
			return
		}
	}
	s.wrote(s.rewrite(nil))
}

// wrote notes how a write has ended.
func (s *store) wrote(err error) {
	up := 0.0
	switch {
	case err == nil:
		up = 1
		if s.failure.Recovered() {
			log.Infof("Recovered: store %q", s.path)
		}
	case s.failure.Failed(err.Error()):
		log.Errorf("Failed to write store %q, refusing registrations: %v", s.path, err)
	}
	registry.StoreUp.WithLabelValues(string(s.zone)).Set(up)
}

// open opens the database and reads all of it into entries.
func (s *store) open() error {
	if err := s.load(inputfile.OpenFile); err != nil {
		s.abandon()
		return err
	}
	return errors.Join(syncDirectory(filepath.Dir(s.path)), s.note())
}

// errNothingNew ends a transaction that has nothing to write.
var errNothingNew = errors.New("nothing new")

// load reads the database, as which openFile opens a file.
func (s *store) load(openFile func(path string, flag int, mode os.FileMode) (*os.File, error)) error {
	var db *bolt.DB
	err := guarded(func() (err error) {
		db, err = bolt.Open(s.path, 0o600, &bolt.Options{
			Timeout: lockTime, FreelistType: bolt.FreelistMapType,
			OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := openFile(path, flag, mode)
				s.file = f
				return f, err
			},
		})
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			root, created, err := s.createBuckets(tx)
			if err != nil {
				return err
			}
			if err := errors.Join(s.read(root), s.readSurvey(root)); err != nil || created {
				return err
			}
			return errNothingNew // a full disk is no reason not to start
		})
		if errors.Is(err, errNothingNew) {
			return nil
		}
		return err
	})
	if err == nil {
		s.db = db
	}
	return err
}

// loadCopy reads a copy of the database.
func (s *store) loadCopy() error {
	content, err := inputfile.Read(s.path)
	if err != nil {
		return err
	}
	clear(s.entries)
	defer s.abandon()
	return s.load(func(string, int, os.FileMode) (*os.File, error) { return inMemory(content) })
}

// syncDirectory makes a file that was created in a directory outlive the loss of
// power.
func syncDirectory(path string) error {
	d, err := os.Open(path) // #nosec G304 -- the path is the operator's
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read takes what is stored of each node. Every node has a serial.
func (s *store) read(root *bolt.Bucket) error {
	zoneSerial := uint32(0)
	if b := root.Get(zoneSerialKey); len(b) == 4 {
		zoneSerial = binary.BigEndian.Uint32(b)
	}
	registrations := root.Bucket(registrationsBucket)
	return root.Bucket(serialsBucket).ForEach(func(node, serial []byte) error {
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
		s.entries[e.Node] = e
		return nil
	})
}

// guarded calls f and makes an error of a panic or of a fault in a file that is
// cut short.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r}
		}
	}()
	return f()
}

// panicError is the error of a call that panicked: the database is not to be used
// any more, its locks may be held.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprint(e.value) }

// note remembers the file as it is now.
func (s *store) note() (err error) {
	s.left, err = s.file.Stat()
	return err
}

// changed returns an error if the file at the path is not as it was noted.
func (s *store) changed() error {
	now, err := inputfile.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the file was removed")
	case err != nil:
		return err
	case !os.SameFile(now, s.left):
		return errors.New("another file has taken its place")
	case now.Size() != s.left.Size() || !now.ModTime().Equal(s.left.ModTime()):
		return errors.New("another process wrote to the file")
	}
	return nil
}

// Version implements the registry.Store interface: no other server writes to the
// file.
func (s *store) Version(string) int64 { return 0 }

// Write implements the registry.Store interface. A registration that has not
// changed is not written again.
func (s *store) Write(txn *registry.Txn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	err := s.write(txn)
	s.wrote(err)
	return err
}

func (s *store) write(txn *registry.Txn) error {
	next := registry.Entry{Node: txn.Node, Serial: txn.Serial, ZoneSerial: txn.ZoneSerial, Registration: txn.Registration}
	if s.db != nil {
		done, err := s.tryUpdate(next, txn.Altered)
		if done {
			return err
		}
		if err := s.replace(err); err != nil {
			return err
		}
	}
	return s.rewrite(&next)
}

// tryUpdate writes one entry. It reports false, and why, if the file is not to be
// used any more.
func (s *store) tryUpdate(next registry.Entry, altered bool) (done bool, err error) {
	if err := s.changed(); err != nil {
		return false, err
	}
	err = guarded(func() error {
		return s.db.Update(func(tx *bolt.Tx) error { return put(tx.Bucket(s.zone), next, altered) })
	})
	var panicked *panicError
	if lost := s.lost(); lost != nil || errors.As(err, &panicked) {
		return false, errors.Join(lost, err)
	}
	if err != nil { // such as a full disk
		return true, errors.Join(err, s.note())
	}
	s.entries[next.Node] = next
	return true, s.note()
}

// replace sets the file aside, so that a new one can take its place.
func (s *store) replace(reason error) error {
	s.abandon()
	aside, err := s.setAside()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		replacedCount.WithLabelValues(string(s.zone)).Inc()
		log.Errorf("Lost store %q, writing all registrations to a new file: %v", s.path, reason)
	case err != nil:
		return fmt.Errorf("set aside damaged store: %w", err)
	default:
		replacedCount.WithLabelValues(string(s.zone)).Inc()
		log.Errorf("Set aside damaged store %q as %q, writing all registrations to a new file: %v", s.path, aside, reason)
	}
	return nil
}

// lost returns an error if what was just written cannot be at the path.
func (s *store) lost() error {
	now, err := inputfile.Stat(s.path)
	if err != nil {
		return err
	}
	if !os.SameFile(now, s.left) {
		return errors.New("another file has taken its place")
	}
	if now.Size() < s.left.Size() {
		return errors.New("another process cut the file short")
	}
	return nil
}

func put(root *bolt.Bucket, e registry.Entry, altered bool) error {
	if err := root.Put(zoneSerialKey, binary.BigEndian.AppendUint32(nil, e.ZoneSerial)); err != nil {
		return err
	}
	if err := root.Bucket(serialsBucket).Put([]byte(e.Node), binary.BigEndian.AppendUint64(nil, e.Serial)); err != nil {
		return err
	}
	switch {
	case !altered:
		return nil
	case e.Registration == nil:
		return root.Bucket(registrationsBucket).Delete([]byte(e.Node))
	}
	encoded, err := registry.Encode(e.Registration)
	if err != nil {
		return err
	}
	return root.Bucket(registrationsBucket).Put([]byte(e.Node), encoded)
}

// rewrite writes all that is registered to a new file, with one entry changed if
// next is not nil.
func (s *store) rewrite(next *registry.Entry) error {
	_, err := inputfile.Stat(s.path)
	missing := errors.Is(err, fs.ErrNotExist)
	all := s.entries
	s.entries = make(map[string]registry.Entry, len(all)+1)
	err = s.open()
	if err != nil && corrupt(err) { // a file that appeared meanwhile
		if err = s.replace(err); err == nil {
			err = s.open()
		}
	}
	s.entries = all
	if err == nil {
		err = guarded(func() error { return s.db.Update(func(tx *bolt.Tx) error { return s.putAll(tx, next) }) })
	}
	if err == nil {
		err = s.lost()
	}
	if err != nil {
		s.abandon()
		if missing {
			_ = os.Remove(s.path) // half of it may be written
		}
		return fmt.Errorf("write a new file: %w", err)
	}
	if next != nil {
		s.entries[next.Node] = *next
	}
	if s.values = nil; s.survey != nil {
		s.survey.Moved(false)
	}
	return s.note()
}

// putAll makes the database hold all that is registered, and nothing else.
func (s *store) putAll(tx *bolt.Tx, next *registry.Entry) error {
	if err := tx.DeleteBucket(s.zone); err != nil {
		return err
	}
	root, _, err := s.createBuckets(tx)
	if err != nil {
		return err
	}
	for node, e := range s.entries {
		if next != nil && node == next.Node {
			continue
		}
		if err := put(root, e, true); err != nil {
			return err
		}
	}
	if next == nil {
		return nil
	}
	return put(root, *next, true)
}

// createBuckets creates what a file without registrations has, and reports whether
// some of it was not there.
func (s *store) createBuckets(tx *bolt.Tx) (root *bolt.Bucket, created bool, err error) {
	if root = tx.Bucket(s.zone); root == nil {
		if root, err = tx.CreateBucket(s.zone); err != nil {
			return nil, false, err
		}
	}
	if version := root.Get(versionKey); version == nil { // a new file, or one that an earlier version of the program wrote
		created = true
		if err := root.Put(versionKey, []byte{formatVersion}); err != nil {
			return nil, false, err
		}
	} else if len(version) != 1 || version[0] != formatVersion {
		return nil, false, &versionError{version}
	}
	for _, name := range [][]byte{serialsBucket, registrationsBucket} {
		if root.Bucket(name) != nil {
			continue
		}
		created = true
		if _, err := root.CreateBucket(name); err != nil {
			return nil, false, err
		}
	}
	return root, created, nil
}

// versionError is the error of a file that another program has written, of which
// nothing may be changed.
type versionError struct{ version []byte }

func (e *versionError) Error() string {
	return fmt.Sprintf("the file has format version %x, this program reads version %d: start the program that has written it, or name another file and let the nodes register again; "+
		"the file was not changed", e.version, formatVersion)
}

// abandon stops using the database without its locks, which may be held. What it
// has mapped stays so until the process ends.
func (s *store) abandon() {
	s.db = nil
	if s.file != nil {
		_ = s.file.Close() // and with it the lock of the file
	}
}

// setAside renames the file at the path, and returns its new name.
func (s *store) setAside() (string, error) {
	stamp := time.Now().UTC().Format("20060102T150405Z")
	for n := 0; ; n++ {
		aside := fmt.Sprintf("%s.damaged-%s", s.path, stamp)
		if n > 0 {
			aside = fmt.Sprintf("%s-%d", aside, n)
		}
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		return aside, os.Rename(s.path, aside)
	}
}

// Close implements the registry.Store interface. What was acknowledged is written
// once more if the file was damaged since.
func (s *store) Close() error {
	defer s.following.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	close(s.stop)
	s.closed = true
	if s.db != nil {
		if reason := s.changed(); reason != nil {
			if err := s.replace(reason); err != nil {
				return err
			}
		}
	}
	if s.db == nil {
		if err := s.rewrite(nil); err != nil {
			return err
		}
	}
	db := s.db
	s.db = nil
	return guarded(db.Close)
}
