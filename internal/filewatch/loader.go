package filewatch

import (
	"sync/atomic"
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
	status atomic.Pointer[Status]
}

// Status tells whether what is in force is what the files hold.
type Status struct {
	Loaded time.Time // last success; zero: none
	Failed bool      // the last load failed, so that the files hold something else
}

// NewLoader returns a Loader that has not loaded anything. In logs it is called
// what, such as "services file". Parse reads and parses all files. Report, if
// it is not nil, is told of each load while the server runs: nil, or the error.
func NewLoader[T any](what string, parse func() (T, error), log clog.P, report func(err error), paths ...string) *Loader[T] {
	l := &Loader[T]{files: New(paths...), what: what, parse: parse, log: log, report: report}
	l.status.Store(new(Status))
	return l
}

// Load loads the files if they have not been loaded since they changed. It is
// for setup, where an error has a line of the Corefile: it logs nothing. After
// an error the value is the previous one.
func (l *Loader[T]) Load() error {
	if !l.files.Changed() {
		return nil
	}
	value, err := l.parse()
	if l.note(err); err != nil {
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
	if l.note(err); err != nil {
		l.log.Errorf("Failed to reload %s, keeping the previous version: %v", l, err)
		return false
	}
	l.value = value
	return true
}

// Value returns what was loaded last, the zero value if nothing was.
func (l *Loader[T]) Value() T { return l.value }

// Resume makes value the previous version, that a Loader before a reload has loaded
// at a time.
func (l *Loader[T]) Resume(value T, loaded time.Time) {
	l.value = value
	l.status.Store(&Status{Loaded: loaded, Failed: l.Failed()})
}

// Failed reports whether the last load failed.
func (l *Loader[T]) Failed() bool { return l.Status().Failed }

// Status returns the status, zero if there are no files or they were not loaded. It
// is safe for concurrent use.
func (l *Loader[T]) Status() Status { return *l.status.Load() }

func (l *Loader[T]) note(err error) {
	if err != nil {
		l.status.Store(&Status{Loaded: l.Status().Loaded, Failed: true})
		return
	}
	l.status.Store(&Status{Loaded: time.Now()})
}

// Paths returns the paths of the files.
func (l *Loader[T]) Paths() []string { return l.files.Paths() }

// Wait returns how long to wait until the next Poll.
func (l *Loader[T]) Wait() time.Duration { return l.files.Wait() }

// String returns what the files are, and their paths, quoted.
func (l *Loader[T]) String() string {
	return l.what + " " + l.files.String()
}
