package latencyprobe

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

// savePeriod is the time between two writes of a state file: a kill loses no
// more.
const savePeriod = time.Minute

// stateFile preserves measurements over a restart of the process. Its goroutine
// writes it every savePeriod, close once more.
type stateFile struct {
	path string
	stop chan struct{}
	done chan struct{}

	mu           sync.Mutex
	unclaimed    map[measurementKey]*savedTarget // read, and not measured yet
	measurements map[*measurement]bool

	failure reminder.Failure // of writing; of the goroutine, then of close
}

// stateFiles owns the open state files of the process. An instance that ends
// drops them before its measurements end, so that the last write has these.
var stateFiles = reload.Owner[string, *stateFile, struct{}]{
	New:   openStateFile,
	Close: func(_ string, f *stateFile) { f.close() },
}

// openStateFile reads the file at path and keeps it up to date.
func openStateFile(path string) *stateFile {
	f := newStateFile(path)
	f.load()
	go f.run()
	return f
}

func newStateFile(path string) *stateFile {
	return &stateFile{
		path: path, stop: make(chan struct{}), done: make(chan struct{}),
		measurements: make(map[*measurement]bool),
	}
}

// load reads the file. If that fails, the start goes on without it, and the
// file is renamed.
func (f *stateFile) load() {
	saved, err := readStateFile(f.path)
	switch {
	case err == nil:
		f.unclaimed = saved
		log.Infof("Read state of %s from %q", plural.Of(len(saved), "target"), f.path)
	case errors.Is(err, fs.ErrNotExist):
	default:
		damaged := f.path + ".damaged"
		if renameErr := os.Rename(f.path, damaged); renameErr != nil {
			log.Errorf("Failed to read state file %q, starting without it: %v; failed to rename it: %v", f.path, err, renameErr)
			return
		}
		log.Warningf("Failed to read state file %q, starting without it, renamed it to %q: %v", f.path, damaged, err)
	}
}

func readStateFile(path string) (map[measurementKey]*savedTarget, error) {
	r, err := inputfile.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readState(r, time.Now())
}

func (f *stateFile) run() {
	defer close(f.done)
	ticker := time.NewTicker(savePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-ticker.C:
			f.save()
		}
	}
}

func (f *stateFile) close() {
	close(f.stop)
	<-f.done
	f.save()
}

// add has the file preserve m from now on, and returns the saved state of m,
// nil if there is none or if it is too old.
func (f *stateFile) add(m *measurement) *savedTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.measurements[m] = true
	s := f.unclaimed[m.key]
	delete(f.unclaimed, m.key)
	if s == nil || s.outdated(time.Now()) {
		return nil
	}
	return s
}

// save writes the file, unless isolated: then the file keeps the state from
// before.
func (f *stateFile) save() {
	if isolation.active() {
		return
	}
	err := f.write()
	result := "ok"
	if err != nil {
		result = "error"
		if f.failure.Failed(err.Error()) {
			log.Errorf("Failed to write state file %q, keeping the previous version: %v", f.path, err)
		}
	} else if f.failure.Recovered() {
		log.Infof("Recovered: state file %q", f.path)
	}
	stateWrites.WithLabelValues(result).Inc()
}

func (f *stateFile) write() error { return inputfile.Bounded("write", f.path, f.replace) }

// replace replaces the file in one step: whenever the process is killed, it is
// the previous or the new version.
func (f *stateFile) replace(progress func()) (err error) {
	now := time.Now()
	temporary := f.path + ".tmp"
	w, err := inputfile.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.Close()
			os.Remove(temporary)
		}
	}()
	b := bufio.NewWriterSize(progressWriter{w, progress}, 1<<16)
	if err := writeState(b, f.targets(now)); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary, f.path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(f.path))
}

// progressWriter reports each write that has ended.
type progressWriter struct {
	io.Writer
	progress func()
}

// Write implements the io.Writer interface.
func (w progressWriter) Write(p []byte) (int, error) {
	defer w.progress()
	return w.Writer.Write(p)
}

func syncDirectory(path string) error {
	d, err := os.Open(path) // #nosec G304 -- named by the operator
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// targets yields the targets to write: those that are measured, and those that
// were read and are not measured yet.
func (f *stateFile) targets(now time.Time) iter.Seq[*savedTarget] {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*measurement, 0, len(f.measurements))
	for m := range f.measurements {
		if m.hasEnded() {
			delete(f.measurements, m)
			continue
		}
		all = append(all, m)
	}
	var unclaimed []*savedTarget
	for key, s := range f.unclaimed {
		if s.outdated(now) {
			delete(f.unclaimed, key)
			continue
		}
		unclaimed = append(unclaimed, s)
	}
	return func(yield func(*savedTarget) bool) {
		for _, m := range all {
			if s := m.saved(now); s != nil && !yield(s) {
				return
			}
		}
		for _, s := range unclaimed {
			if !yield(s) {
				return
			}
		}
	}
}
