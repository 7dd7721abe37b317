// Package trace records samples to a CSV file, in the form that bench/replay
// reads: seconds since 1970, NAME/ADDRESS of the target, and the latency in
// milliseconds, empty for a loss.
package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

const (
	// defaultMaxSize bounds a file, in bytes: two months of one server that is
	// probed every 5 s. One older file is kept beside it.
	defaultMaxSize = 64 << 20
	// maxQueued bounds the samples that wait to be written. At 1,000 a second a
	// disk may hang for 8 s.
	maxQueued = 8192
	// flushPeriod is how long samples may wait for others, to be written with
	// them.
	flushPeriod = 5 * time.Second

	header = "time,server,rtt_ms\n"
)

var log = clog.NewWithPlugin("latencyprobe")

var errNoTrace = errors.New("the file is not a trace, name another file")

// Sample is one line of a trace.
type Sample struct {
	At   time.Time
	Name string // of the target
	Addr netip.Addr
	RTT  time.Duration
	Lost bool // there is no RTT
}

// Recorder appends samples to a file. Its goroutine writes, so that no probe
// waits for a disk.
type Recorder struct {
	path    string
	maxSize int64 // bytes
	dropped func()
	queue   chan Sample
	opened  sync.Once
	openErr error
	stop    chan struct{}
	done    chan struct{} // closed: no goroutine runs

	// Of Open, then of the goroutine:
	file    *os.File // nil after a failure
	out     *bufio.Writer
	size    int64
	failure reminder.Failure
}

// New returns a Recorder for the file at path. It calls dropped for each sample
// that is not written since the disk is too slow or fails.
func New(path string, dropped func()) *Recorder {
	return &Recorder{
		path: path, maxSize: defaultMaxSize, dropped: dropped,
		queue: make(chan Sample, maxQueued), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// Open opens the file, unless it is open, and begins to write. It fails for a
// file that is not a trace.
func (r *Recorder) Open() error {
	r.opened.Do(func() {
		if err := r.open(); err != nil {
			r.openErr = fmt.Errorf("open trace %q: %w", r.path, err)
			close(r.done)
			return
		}
		go r.run()
	})
	return r.openErr
}

// Record adds a sample, or drops it if too many wait to be written. It never
// blocks. After Close it does nothing.
func (r *Recorder) Record(s Sample) {
	if r.Closed() {
		return
	}
	select {
	case r.queue <- s:
	default:
		r.dropped()
	}
}

// Close writes the queued samples and closes the file. A file system that does not
// answer is waited for no longer than inputfile.Timeout. It is called once.
func (r *Recorder) Close() {
	r.opened.Do(func() { close(r.done) })
	close(r.stop)
	select {
	case <-r.done:
	case <-time.After(inputfile.Timeout):
		log.Errorf("Failed to close trace %q, dropping samples: no answer of its file system", r.path)
	}
}

// Closed reports whether Close was called.
func (r *Recorder) Closed() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func (r *Recorder) run() {
	defer close(r.done)
	ticker := time.NewTicker(flushPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-r.stop:
			for len(r.queue) > 0 {
				r.write(<-r.queue)
			}
			r.logResult(r.closeFile())
			return
		case s := <-r.queue:
			r.write(s)
		case <-ticker.C:
			r.flush()
		}
	}
}

// Check returns the error that Open would return for a path, and changes nothing.
func Check(path string) error {
	err := inputfile.CheckOutput(path)
	if err == nil {
		var f *os.File
		if f, err = inputfile.OpenFile(path, os.O_RDONLY, 0); err == nil {
			_, err = completeSize(f)
			f.Close()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open trace %q: %w", path, err)
	}
	return nil
}

// open opens the file and appends after its last complete line.
func (r *Recorder) open() error {
	f, err := inputfile.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	size, err := completeSize(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return err
	}
	r.file, r.out, r.size = f, bufio.NewWriterSize(f, 1<<16), size
	if size == 0 {
		r.append([]byte(header))
	}
	return nil
}

// completeSize returns the size of a trace without an incomplete last line.
func completeSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	head := make([]byte, min(size, int64(len(header))))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !bytes.HasPrefix([]byte(header), head) {
		return 0, errNoTrace
	}
	if len(head) < len(header) {
		return 0, nil
	}
	tail := make([]byte, min(size, 4096))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	i := bytes.LastIndexByte(tail, '\n')
	if i < 0 {
		return 0, errNoTrace
	}
	return size - int64(len(tail)-i-1), nil
}

// write adds a sample to the buffer. A file that is full becomes the older one.
func (r *Recorder) write(s Sample) {
	if r.size >= r.maxSize {
		r.logResult(r.rotate())
	}
	if r.file == nil {
		r.dropped()
		return
	}
	r.append(s.line())
}

func (r *Recorder) append(line []byte) {
	n, _ := r.out.Write(line) // Flush returns the error
	r.size += int64(n)
}

// line returns the sample as a line of the file. The addresses of one server
// differ in the name, since the network may treat them differently.
func (s Sample) line() []byte {
	var b bytes.Buffer
	latency := ""
	if !s.Lost {
		latency = strconv.FormatFloat(float64(s.RTT)/float64(time.Millisecond), 'f', 4, 64)
	}
	w := csv.NewWriter(&b)
	_ = w.Write([]string{
		strconv.FormatFloat(float64(s.At.UnixMilli())/1000, 'f', 3, 64),
		s.Name + "/" + s.Addr.String(),
		latency,
	})
	w.Flush()
	return b.Bytes()
}

// flush writes the buffer to the file. After a failure it opens the file again,
// which removes an incomplete line.
func (r *Recorder) flush() {
	var err error
	if r.file == nil {
		err = r.open()
	}
	if err == nil {
		err = r.out.Flush()
	}
	if err != nil && r.file != nil {
		r.file.Close()
		r.file = nil
	}
	r.logResult(err)
}

// rotate renames the file, which replaces the older one, and begins another.
func (r *Recorder) rotate() error {
	if r.file == nil {
		return nil // flush opens it
	}
	err := r.closeFile()
	if renameErr := os.Rename(r.path, r.path+".1"); renameErr != nil {
		return errors.Join(err, renameErr)
	}
	return errors.Join(err, r.open())
}

func (r *Recorder) closeFile() error {
	if r.file == nil {
		return nil
	}
	err := errors.Join(r.out.Flush(), r.file.Close())
	r.file = nil
	return err
}

// logResult logs that writing fails, and that it works again.
func (r *Recorder) logResult(err error) {
	switch {
	case err != nil:
		if r.failure.Failed(err.Error()) {
			log.Errorf("Failed to write trace %q, dropping samples: %v", r.path, err)
		}
	case r.file != nil && r.failure.Recovered():
		log.Infof("Recovered: trace %q", r.path)
	}
}
