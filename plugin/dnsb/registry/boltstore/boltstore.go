// Package boltstore keeps registrations in a database file. Importing it makes
// 'store db FILE' available.
package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"

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

var errClosed = errors.New("the store is closed")

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
	s := &store{path: string(l), zone: []byte(zone), entries: make(map[string]registry.Entry)}
	err := s.open()
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, nil, fmt.Errorf("store %s is in use: every server and every zone needs a file of its own", s.path)
	}
	if err != nil && !corrupt(err) {
		return nil, nil, fmt.Errorf("open store %s: %w", s.path, err)
	}
	if err != nil {
		aside, renameErr := s.setAside()
		if renameErr != nil {
			return nil, nil, fmt.Errorf("set aside corrupt store: %w", renameErr)
		}
		log.Errorf("Set aside corrupt store %q as %q, starting with an empty map: %v", s.path, aside, err)
		clear(s.entries)
		if err := s.open(); err != nil {
			return nil, nil, fmt.Errorf("open store %s: %w", s.path, err)
		}
	}
	entries := make([]registry.Entry, 0, len(s.entries))
	for _, e := range s.entries {
		entries = append(entries, e)
	}
	return s, entries, nil
}

// corrupt reports whether an error of open says something about the content of
// the file.
func corrupt(err error) bool {
	var (
		file   *fs.PathError
		system syscall.Errno
	)
	return !errors.As(err, &file) && !errors.As(err, &system)
}
