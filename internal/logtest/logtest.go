// Package logtest collects what is logged, for tests.
package logtest

import (
	"bytes"
	"io"
	golog "log"
	"strings"
	"sync"
	"testing"
)

// Log holds what was logged. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Capture collects what is logged until the test ends. After that, nothing is
// logged anywhere.
func Capture(t *testing.T) *Log {
	t.Helper()
	l := new(Log)
	golog.SetOutput(l)
	t.Cleanup(func() { golog.SetOutput(io.Discard) })
	return l
}

// Write implements the io.Writer interface.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// Lines returns the lines since the last call.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

// Expect checks that the lines since the last call contain these texts, one
// each, in this order.
func (l *Log) Expect(t *testing.T, texts ...string) {
	t.Helper()
	lines := l.Lines()
	if len(lines) != len(texts) {
		t.Errorf("Expected %d lines in the log, got %q", len(texts), lines)
		return
	}
	for i, text := range texts {
		if !strings.Contains(lines[i], text) {
			t.Errorf("Expected a line with %q, got %q", text, lines[i])
		}
	}
}
