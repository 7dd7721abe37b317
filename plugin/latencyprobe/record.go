package latencyprobe

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
)

const (
	// maxRecord bounds a trace, in bytes: a server probed every 5 s for two
	// months and more. One older file is kept beside it.
	maxRecord = 64 << 20
	// maxQueued bounds the samples that wait to be written. At 1,000 a second a
	// disk may hang for 8 s.
	maxQueued = 8192
	// flushPeriod is how long a sample may wait for others, to be written with
	// them.
	flushPeriod = 5 * time.Second

	recordHeader = "time,server,rtt_ms\n"
)

// recorder appends samples to a file, in the form that bench/replay reads. It
// has one owner, whatever blocks name the file: a goroutine, so that no probe
// waits for a disk.
type recorder struct {
	path  string
	most  int64 // bytes
	queue chan recorded
	stop  chan struct{}
	done  chan struct{}
	err   error // why it was not opened

	// Of the goroutine:
	file   *os.File
	out    *bufio.Writer
	size   int64
	failed bool
}

// recorded is a sample on its way to the file.
type recorded struct {
	at     time.Time
	target Target
	rtt    time.Duration
	ok     bool
}

// recorders are those in use.
var recorders = keep.Keeper[string, *recorder]{Close: func(path string, r *recorder) {
	openRecorders.CompareAndDelete(path, r)
	r.close()
}}

// openRecorders finds them by their path.
var openRecorders sync.Map

// openRecorder begins to append to the file at path. It fails for a file that is
// something else.
func openRecorder(path string, most int64) *recorder {
	r := &recorder{path: path, most: most, queue: make(chan recorded, maxQueued), stop: make(chan struct{}), done: make(chan struct{})}
	if r.err = r.open(); r.err != nil {
		close(r.done)
		return r
	}
	openRecorders.Store(path, r)
	go r.run()
	return r
}

// record hands a sample to the files that want those of t. What does not fit is
// counted and dropped: a probe never waits.
func (t *target) record(at time.Time, rtt time.Duration, ok bool) {
	for _, path := range load(&t.records) {
		r, open := openRecorders.Load(path)
		if !open {
			continue
		}
		select {
		case r.(*recorder).queue <- recorded{at, t.key.target, rtt, ok}:
		default:
			recordDropped.Inc()
		}
	}
}

// open opens the file, with a header, behind its last whole line.
func (r *recorder) open() error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304 -- named by the operator
	if err != nil {
		return err
	}
	size, err := endOfTrace(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("record %s: %w", r.path, err)
	}
	r.file, r.out, r.size = f, bufio.NewWriterSize(f, 1<<16), size
	if size == 0 {
		r.add([]byte(recordHeader))
	}
	return nil
}

// endOfTrace returns the size of a trace without a last line that was not
// written to its end.
func endOfTrace(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	head := make([]byte, min(size, int64(len(recordHeader))))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !bytes.HasPrefix([]byte(recordHeader), head) {
		return 0, errors.New("the file is no trace: name another one")
	}
	if len(head) < len(recordHeader) {
		return 0, nil
	}
	tail := make([]byte, min(size, 4096))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	i := bytes.LastIndexByte(tail, '\n')
	if i < 0 {
		return 0, errors.New("the file is no trace: name another one")
	}
	return size - int64(len(tail)-i-1), nil
}

func (r *recorder) run() {
	defer close(r.done)
	ticker := time.NewTicker(flushPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-r.stop:
			for len(r.queue) > 0 {
				r.write(<-r.queue)
			}
			r.note(r.finish())
			return
		case s := <-r.queue:
			r.write(s)
		case <-ticker.C:
			r.flush()
		}
	}
}

func (r *recorder) close() {
	if r.err != nil {
		return
	}
	close(r.stop)
	<-r.done
}

// write adds a sample. A file that is full becomes the older one.
func (r *recorder) write(s recorded) {
	if r.size >= r.most {
		r.note(r.rotate())
	}
	if r.file == nil {
		recordDropped.Inc()
		return
	}
	r.add(line(s))
}

func (r *recorder) add(line []byte) {
	n, _ := r.out.Write(line) // Flush returns the error
	r.size += int64(n)
}

// line returns a sample as a line of the file. Addresses of one server are apart,
// since they may be so in the network.
func line(s recorded) []byte {
	var b bytes.Buffer
	latency := ""
	if s.ok {
		latency = strconv.FormatFloat(float64(s.rtt)/float64(time.Millisecond), 'f', 4, 64)
	}
	w := csv.NewWriter(&b)
	_ = w.Write([]string{
		strconv.FormatFloat(float64(s.at.UnixMilli())/1000, 'f', 3, 64),
		s.target.Name + "/" + s.target.Addr.String(),
		latency,
	})
	w.Flush()
	return b.Bytes()
}

// flush writes what was added. After a failure the file is opened anew, which
// removes what was half written.
func (r *recorder) flush() {
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
	r.note(err)
}

// rotate makes the file the older one and begins another.
func (r *recorder) rotate() error {
	if r.file == nil {
		return nil // flush opens it
	}
	err := r.finish()
	if renamed := os.Rename(r.path, r.path+".1"); renamed != nil {
		return errors.Join(err, renamed)
	}
	return errors.Join(err, r.open())
}

// finish writes what was added and closes the file.
func (r *recorder) finish() error {
	if r.file == nil {
		return nil
	}
	err := errors.Join(r.out.Flush(), r.file.Close())
	r.file = nil
	return err
}

// note logs when writing begins to fail, and when it works again.
func (r *recorder) note(err error) {
	switch {
	case err != nil && !r.failed:
		log.Errorf("Trace %s is not recorded: %v", r.path, err)
	case err == nil && r.failed && r.file != nil:
		log.Infof("Trace %s is recorded again", r.path)
	case err == nil:
		return
	}
	r.failed = err != nil
}
