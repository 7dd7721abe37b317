// Package inputfile opens the files that a Corefile names, those that are written
// included.
//
// Anything may be at their paths: a named pipe blocks whoever opens it, and a
// network file system that is gone blocks every call. So only regular files are
// opened, and no call takes longer than Timeout without progress.
package inputfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

const (
	// Timeout is how long a file system may be silent.
	Timeout = 5 * time.Second

	// MaxSize is the size in bytes of the largest file that is read: 30 times a map
	// of a million lines. A program that goes wild must not end the server.
	MaxSize = 1 << 30
)

// byteOrderMark is what some editors write before a text in UTF-8.
var byteOrderMark = []byte("\ufeff")

var (
	errSilent     = fmt.Errorf("no answer of its file system for %v, check the mount", Timeout)
	errNotRegular = errors.New("expected a regular file")
	errTooLarge   = fmt.Errorf("larger than %d MiB, the most that is read", MaxSize>>20)
)

// Stat returns what os.Stat does.
func Stat(path string) (fs.FileInfo, error) {
	return watched("stat", path, func(func()) (fs.FileInfo, error) { return os.Stat(path) })
}

// Check returns an error if there is no regular file at a path.
func Check(path string) error {
	info, err := Stat(path)
	if err != nil {
		return err
	}
	return checkRegular(path, info)
}

// Read returns the content of a regular file.
func Read(path string) ([]byte, error) {
	return watched("read", path, func(progress func()) ([]byte, error) { return read(path, progress) })
}

// ReadText returns the content of a text file without its byte order mark.
func ReadText(path string) ([]byte, error) {
	content, err := Read(path)
	return bytes.TrimPrefix(content, byteOrderMark), err
}

// OpenFile does what os.OpenFile does, for a regular file.
func OpenFile(path string, flag int, mode fs.FileMode) (*os.File, error) {
	return watched("open", path, func(func()) (*os.File, error) { return openFile(path, flag, mode) })
}

// CheckOutput returns an error if no regular file at a path can be written. It
// changes nothing.
func CheckOutput(path string) error {
	f, err := OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writable(filepath.Dir(path)); err != nil {
			return &fs.PathError{Op: "create", Path: path, Err: err}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Bounded returns what call does to the file at a path, or an error if it takes
// longer than Timeout without progress. Then it goes on, and all calls for the path
// fail until it has ended.
func Bounded(op, path string, call func(progress func()) error) error {
	_, err := watched(op, path, func(progress func()) (struct{}, error) { return struct{}{}, call(progress) })
	return err
}

func openFile(path string, flag int, mode fs.FileMode) (*os.File, error) {
	info, err := os.Stat(path) // to open some devices has an effect
	if err == nil {
		err = checkRegular(path, info)
	} else if flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	// Another file may be at the path by now.
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, mode) // #nosec G304 -- the operator names it
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = checkRegular(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func read(path string, progress func()) ([]byte, error) {
	f, err := openFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tooLarge := &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	if info.Size() > MaxSize {
		return nil, tooLarge
	}
	var content bytes.Buffer
	content.Grow(int(info.Size()) + bytes.MinRead) // #nosec G115 -- at most MaxSize
	reader := &progressReader{Reader: f, progress: progress}
	n, err := io.Copy(&content, io.LimitReader(reader, MaxSize+1)) // it may grow
	if err == nil && n > MaxSize {
		return nil, tooLarge
	}
	return content.Bytes(), err
}

func checkRegular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
}

// progressReader reports each read that has ended, and lets queries by.
type progressReader struct {
	io.Reader
	progress func()
	pacer    pacing.Pacer
}

// Read implements the io.Reader interface. Its reads are so short that a slow
// file system makes progress, and that no query waits long for one.
func (r *progressReader) Read(p []byte) (int, error) {
	defer r.progress()
	r.pacer.Step()
	return r.Reader.Read(p[:min(len(p), 16<<10)])
}

// silent are the paths with a call that did not end in time. Until it has ended,
// no other call is made: each would take a thread.
var (
	mu     sync.Mutex
	silent = make(map[string]bool)
)

// watched returns what call does, or an error if it takes longer than Timeout
// without progress.
func watched[T any](op, path string, call func(progress func()) (T, error)) (T, error) {
	var none T
	failed := &fs.PathError{Op: op, Path: path, Err: errSilent}
	mu.Lock()
	waiting := silent[path]
	mu.Unlock()
	if waiting {
		return none, failed
	}
	type outcome struct {
		value T
		err   error
	}
	done, progress := make(chan outcome, 1), make(chan struct{}, 1)
	go func() {
		value, err := call(func() {
			select {
			case progress <- struct{}{}:
			default:
			}
		})
		mu.Lock()
		defer mu.Unlock()
		done <- outcome{value, err}
		delete(silent, path)
	}()
	timer := time.NewTimer(Timeout)
	defer timer.Stop()
	for {
		select {
		case o := <-done:
			return o.value, o.err
		case <-progress:
			timer.Reset(Timeout)
		case <-timer.C:
			mu.Lock()
			defer mu.Unlock()
			select {
			case o := <-done:
				return o.value, o.err
			default:
				silent[path] = true
				return none, failed
			}
		}
	}
}

// Printable returns a text with its unprintable characters in the form of Go's
// escape sequences, so that an error shows them.
func Printable(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if char := text[:size]; strconv.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			b.WriteString(char)
		} else {
			quoted := strconv.Quote(char)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[size:]
	}
	return b.String()
}
