package filewatch

import (
	"strconv"
	"strings"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// Loader holds what files contain, and loads it again when they have changed.
// It has one caller at a time.
type Loader[T any] struct {
	files  *Set
	what   string
	parse  func() (T, error)
	report func(err error)
	log    clog.P
	value  T
	failed bool
}

// NewLoader returns a Loader that has not loaded anything. In logs it is called
// what, such as "services file". Parse reads and parses all files. Report, if
// it is not nil, is told of each load while the server runs: nil, or the error.
func NewLoader[T any](what string, parse func() (T, error), log clog.P, report func(err error), paths ...string) *Loader[T] {
	return &Loader[T]{files: New(paths...), what: what, parse: parse, log: log, report: report}
}

// Load loads the files if they have not been loaded since they changed. It is
// for setup, where an error has a line of the Corefile: it logs nothing. After
// an error the value is the previous one.
func (l *Loader[T]) Load() error {
	if !l.files.Changed() {
		return nil
	}
	value, err := l.parse()
	if l.failed = err != nil; err != nil {
		return err
	}
	l.value = value
	return nil
}

// Poll loads the files if they have changed, and reports whether there is
// another value. After an error the previous value stays, and the log says so.
func (l *Loader[T]) Poll() (changed bool) {
	if !l.files.Changed() {
		return false
	}
	value, err := l.parse()
	if l.report != nil {
		l.report(err)
	}
	if l.failed = err != nil; err != nil {
		l.log.Errorf("Failed to reload %s, keeping the previous version: %v", l, err)
		return false
	}
	l.value = value
	return true
}

// Value returns what was loaded last, the zero value if nothing was.
func (l *Loader[T]) Value() T { return l.value }

// SetValue makes value the previous version, such as that of the instance
// before a reload.
func (l *Loader[T]) SetValue(value T) { l.value = value }

// Failed reports whether the last load failed.
func (l *Loader[T]) Failed() bool { return l.failed }

// Wait returns how long to wait until the next Poll.
func (l *Loader[T]) Wait() time.Duration { return l.files.Wait() }

// String returns what the files are, and their paths, quoted.
func (l *Loader[T]) String() string {
	quoted := make([]string, len(l.files.paths))
	for i, path := range l.files.paths {
		quoted[i] = strconv.Quote(path)
	}
	return l.what + " " + strings.Join(quoted, ", ")
}
