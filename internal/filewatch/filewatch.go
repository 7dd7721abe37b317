// Package filewatch reads files again when they have changed.
//
// A file that has changed may be half written: it is read when it has been the
// same for SettleTime. One that cannot be read or parsed leaves the previous
// value, and says so.
package filewatch

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

const (
	// Interval is the time between two looks at a file.
	Interval = 5 * time.Second
	// SettleTime is the time between two looks at a file that has changed.
	SettleTime = time.Second
)

// Set is a set of files that are read together. It is not safe for concurrent
// use. Without paths it never changes.
type Set struct {
	paths []string
	first bool // it was not looked at yet
	seen  []stat
	read  []stat // at the time of the last read
}

// New returns a Set that was not read yet.
func New(paths ...string) *Set {
	return &Set{paths: paths, first: true}
}

// String returns the paths of the files, quoted.
func (s *Set) String() string {
	quoted := make([]string, len(s.paths))
	for i, path := range s.paths {
		quoted[i] = strconv.Quote(path)
	}
	return strings.Join(quoted, ", ")
}

// Paths returns the paths of the files.
func (s *Set) Paths() []string { return s.paths }

// Changed looks at the files and reports whether they are to be read now: the
// first time, and when a file differs from the one that was read last, and did
// not change since the last look. A file that does not exist is like any other.
//
// It looks before the caller reads, so no later change is missed.
func (s *Set) Changed() bool {
	if len(s.paths) == 0 {
		return false
	}
	now := make([]stat, len(s.paths))
	for i, path := range s.paths {
		now[i] = statOf(path)
	}
	settled := s.first || same(now, s.seen)
	s.seen = now
	if !settled || !s.first && same(now, s.read) {
		return false
	}
	s.first, s.read = false, now
	return true
}

// Settling reports whether a file has changed and will be read if it is the
// same at the next look.
func (s *Set) Settling() bool { return !same(s.seen, s.read) }

// Wait returns how long to wait until the next look.
func (s *Set) Wait() time.Duration {
	if s.Settling() {
		return SettleTime
	}
	return Interval
}

// stat is what a file was like at one moment; the zero value is that of a file
// that cannot be looked at.
type stat struct{ info fs.FileInfo }

func statOf(path string) stat {
	info, err := inputfile.Stat(path)
	if err != nil {
		return stat{}
	}
	return stat{info}
}

// equal reports whether nothing shows that a file changed. A file that replaced
// another one may be as old and as long, and one with another mode may be
// readable now.
func (s stat) equal(other stat) bool {
	if s.info == nil || other.info == nil {
		return s.info == nil && other.info == nil
	}
	return os.SameFile(s.info, other.info) && s.info.ModTime().Equal(other.info.ModTime()) &&
		s.info.Size() == other.info.Size() && s.info.Mode() == other.info.Mode()
}

func same(a, b []stat) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].equal(b[i]) {
			return false
		}
	}
	return true
}
