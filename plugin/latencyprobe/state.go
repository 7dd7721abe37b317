package latencyprobe

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
)

const (
	// savePeriod is the time between two writes of a state file, so the most
	// that a kill loses.
	savePeriod = time.Minute
	// savedTime is how old what was known of a target may be to be taken up.
	savedTime = keptTime
	// maxStateFile bounds what is read, in bytes: 100,000 targets take a third.
	maxStateFile = 512 << 20
)

// stateFile keeps what is known of targets over a restart of the process. It
// has one owner, whatever blocks name the file: a goroutine writes it every
// minute, and close once more.
type stateFile struct {
	path string
	stop chan struct{}
	done chan struct{}

	mu    sync.Mutex
	saved map[targetKey]*savedTarget // read, and not wanted by anybody yet

	failed bool // the last write; of the goroutine, then of close
}

// stateFiles are those in use. They are let go of before targets are, so that
// the last write finds them.
var stateFiles = keep.Keeper[string, *stateFile]{Close: func(path string, f *stateFile) {
	f.close()
	openStates.CompareAndDelete(path, f)
}}

// openStates finds them by their path.
var openStates sync.Map

// openState reads the file at path and keeps it up to date from now on.
func openState(path string) *stateFile {
	f := &stateFile{path: path, stop: make(chan struct{}), done: make(chan struct{})}
	f.load()
	openStates.Store(path, f)
	go f.run()
	return f
}

// openFiles opens the files that l's probes name.
func (l *LatencyProbe) openFiles() error {
	for _, p := range l.probes {
		if p.state != "" {
			stateFiles.Hold(l.files, p.state, func() *stateFile { return openState(p.state) })
		}
		if p.record != "" {
			r := recorders.Hold(l.traces, p.record, func() *recorder { return openRecorder(p.record, maxRecord) })
			if r.err != nil {
				return plugin.Error(pluginName, r.err)
			}
		}
	}
	return nil
}

// load reads the file. What cannot be used is set aside and is no reason not to
// start.
func (f *stateFile) load() {
	saved, err := readStateFile(f.path)
	switch {
	case err == nil:
		f.saved = saved
		log.Infof("Read what was known of %d targets from %s", len(saved), f.path)
	case errors.Is(err, fs.ErrNotExist):
	default:
		aside := f.path + ".damaged"
		if renamed := os.Rename(f.path, aside); renamed != nil {
			log.Errorf("State file %s is not used: %v; it could not be set aside: %v", f.path, err, renamed)
			return
		}
		log.Warningf("State file %s is not used: %v; it is set aside as %s", f.path, err, aside)
	}
}

func readStateFile(path string) (map[targetKey]*savedTarget, error) {
	r, err := os.Open(path) // #nosec G304 -- named by the operator
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

// save writes the file. While we are isolated it stays as it is.
func (f *stateFile) save() {
	if isolation.is() {
		return
	}
	err := f.write()
	switch {
	case err != nil && !f.failed:
		log.Errorf("State file %s was not written: %v", f.path, err)
	case err == nil && f.failed:
		log.Infof("State file %s is written again", f.path)
	}
	f.failed = err != nil
}

// write replaces the file in one step: whenever the process is killed, the old
// one or the new one is there.
func (f *stateFile) write() (err error) {
	now := time.Now()
	temporary := f.path + ".tmp"
	w, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // #nosec G304 -- named by the operator
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.Close()
			os.Remove(temporary)
		}
	}()
	b := bufio.NewWriterSize(w, 1<<16)
	if err := writeState(b, f.all(now)); err != nil {
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
	return syncFolder(filepath.Dir(f.path))
}

func syncFolder(path string) error {
	d, err := os.Open(path) // #nosec G304 -- named by the operator
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// all returns what is to be written: what is known of the targets of this file,
// and what was read of those that nobody has asked for yet.
func (f *stateFile) all(now time.Time) func(yield func(*savedTarget) bool) {
	return func(yield func(*savedTarget) bool) {
		for _, t := range allTargets() {
			if !slices.Contains(load(&t.states), f.path) {
				continue
			}
			if s := t.save(now); s != nil && !yield(s) {
				return
			}
		}
		for _, s := range f.waiting(now) {
			if !yield(s) {
				return
			}
		}
	}
}

// waiting returns what was read and is not taken, and forgets what is too old.
func (f *stateFile) waiting(now time.Time) []*savedTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*savedTarget
	for key, s := range f.saved {
		if s.old(now) {
			delete(f.saved, key)
			continue
		}
		out = append(out, s)
	}
	return out
}

// take returns what was read of a target, once, or nil.
func (f *stateFile) take(key targetKey) *savedTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.saved[key]
	delete(f.saved, key)
	if s == nil || s.old(time.Now()) {
		return nil
	}
	return s
}

// keepState makes the state file at path keep t, and gives t what is read from
// there if it is fresh. It is called with the store locked.
func (t *target) keepState(path string, fresh bool) {
	if path == "" || !add(&t.states, path) {
		return
	}
	f, ok := openStates.Load(path)
	if !ok {
		return
	}
	if s := f.(*stateFile).take(t.key); s != nil && fresh {
		t.restore(s)
	}
}

// load returns the list of paths in p.
func load(p *atomic.Pointer[[]string]) []string {
	if list := p.Load(); list != nil {
		return *list
	}
	return nil
}

// add adds a path to the list in p and reports whether it is new there. It has
// one caller at a time.
func add(p *atomic.Pointer[[]string], path string) bool {
	old := load(p)
	if slices.Contains(old, path) {
		return false
	}
	list := append(slices.Clip(old), path)
	p.Store(&list)
	return true
}
