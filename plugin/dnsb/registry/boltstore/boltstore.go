// Package boltstore keeps registrations in a database file. Importing it makes
// 'store db FILE' available.
package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
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

	// versionKey is the key, beside them, of the version of the format in a byte.
	versionKey = []byte("version")
)

// formatVersion is the version of the format. Files without one are of it, too.
const formatVersion = 1

// lockTime is how long to wait for a process that is about to end.
const lockTime = time.Second

var log = clog.NewWithPlugin("dnsb")

var replacedCount = promauto.NewCounterVec(prometheus.CounterOpts{
	Namespace: plugin.Namespace,
	Subsystem: "dnsb",
	Name:      "store_replaced_total",
	Help:      "Counter of how often the database file was removed, replaced or damaged, and was written anew.",
}, []string{"zone"})

var errClosed = errors.New("the store is closed")

func init() { registry.RegisterDriver("db", parse) }

func parse(c *caddy.Controller, args []string) (registry.Location, error) {
	if len(args) != 1 {
		return nil, corefile.ErrUsage
	}
	path, err := corefile.OutputPath(c, "store", args[0])
	if err != nil {
		return nil, err
	}
	return Location(path), reserve(c, path)
}

// reserve notes the zone of a file, and fails if another zone of this Corefile uses
// the file.
func reserve(c *caddy.Controller, path string) error {
	type key struct{ path string }
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	zones := plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys)
	zone := strings.Join(slices.Compact(zones), " ")
	if other, ok := c.Get(key{path}).(string); ok && other != zone {
		return fmt.Errorf("store '%s' is that of zone %s: every zone needs a file of its own", path, other)
	}
	c.Set(key{path}, zone)
	return nil
}

// Location is the path of a database file.
type Location string

var _ registry.Local = Location("")

// String implements the fmt.Stringer interface.
func (l Location) String() string { return "db " + string(l) }

// Open implements the registry.Local interface. A corrupt file is renamed and
// replaced by an empty one. A file that cannot be written for now, since the file
// system is full or read-only, is read, and registrations are refused.
func (l Location) Open(zone string) (registry.Store, []registry.Entry, error) {
	replacedCount.WithLabelValues(zone) // from 0, so that the first one is an increase
	s := l.store(zone)
	err := s.open()
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, nil, fmt.Errorf("store %s is in use: every server and every zone needs a file of its own", s.path)
	}
	switch {
	case err == nil:
	case unwritable(err) && s.loadCopy() == nil: // later, check writes to the file again
	case !corrupt(err):
		return nil, nil, fmt.Errorf("open store %s: %w", s.path, err)
	default:
		aside, renameErr := s.setAside()
		if renameErr != nil {
			return nil, nil, fmt.Errorf("set aside corrupt store: %w", renameErr)
		}
		log.Errorf("Set aside corrupt store %q as %q, starting with an empty map: %v", s.path, aside, err)
		clear(s.entries)
		if err = s.open(); err != nil {
			return nil, nil, fmt.Errorf("open store %s: %w", s.path, err)
		}
	}
	entries := slices.Collect(maps.Values(s.entries))
	s.wrote(err)
	s.follow()
	return s, entries, nil
}

func (l Location) store(zone string) *store {
	return &store{path: string(l), zone: []byte(zone), entries: make(map[string]registry.Entry)}
}

const (
	// reads is how often Read tries to copy a file that a server writes to, and
	// readPause the pause between two attempts.
	reads     = 5
	readPause = 200 * time.Millisecond
)

// Read implements the registry.Local interface. It opens a copy of the file in
// memory.
func (l Location) Read(zone string) (registry.Contents, error) {
	for range reads {
		before, err := inputfile.Stat(string(l))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = inputfile.CheckOutput(string(l))
		}
		if before == nil || err != nil {
			return registry.Contents{}, err
		}
		s := l.store(zone)
		err = s.loadCopy()
		if file := (*fs.PathError)(nil); errors.As(err, &file) {
			return registry.Contents{}, err
		}
		if err == nil {
			return registry.Contents{Entries: slices.Collect(maps.Values(s.entries)), Survey: s.values}, nil
		}
		after, statErr := inputfile.Stat(string(l))
		if statErr != nil {
			return registry.Contents{}, statErr
		}
		if !corrupt(err) {
			return registry.Contents{}, fmt.Errorf("open store %s: %w", l, err)
		}
		if os.SameFile(before, after) && before.Size() == after.Size() && before.ModTime().Equal(after.ModTime()) {
			return registry.Contents{}, fmt.Errorf("store %s is corrupt, the server would set it aside: %w", l, err)
		}
		time.Sleep(readPause)
	}
	return registry.Contents{}, nil // a server writes to it all the time, so it is sound
}

// unwritable reports whether an error says that the file system takes no writes for
// now.
func unwritable(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// corrupt reports whether an error of open says something about the content of
// the file.
func corrupt(err error) bool {
	var (
		file    *fs.PathError
		system  syscall.Errno
		version *versionError
	)
	return !errors.As(err, &file) && !errors.As(err, &system) && !errors.As(err, &version)
}
