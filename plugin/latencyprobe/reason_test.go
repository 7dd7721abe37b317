package latencyprobe

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// expectHarmless checks a text that is logged, shown or saved.
func expectHarmless(t *testing.T, where, text string) {
	t.Helper()
	if len(text) > remotetext.Max+400 {
		t.Errorf("%s: Expected a bounded text, got %d bytes", where, len(text))
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		t.Errorf("%s: Expected printable text, got %.200q", where, text[i:])
	}
}

// TestTextOfPeersIsBounded checks what the log, the report and the state file
// have of a status line of 4 MB with escape sequences.
func TestTextOfPeersIsBounded(t *testing.T) {
	status := "HTTP/1.1 503 " + strings.Repeat("\x1b]0;owned\x07\xff\u202e", 4<<20/16) + "\r\n\r\n"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, status)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	p, err := prober.Parse([]string{"http://www.example.org:" + port + "/"})
	if err != nil {
		t.Fatal(err)
	}
	logged := logtest.Capture(t)
	m := newMeasurement(measurementKey{target: Target{Name: "fra", Addr: loopback}})
	f := newStateFile(filepath.Join(t.TempDir(), "state"))
	f.add(m)
	for range downAfter {
		addressLimiter.reset()
		o, ok := m.probe(t.Context(), p, time.Minute, time.Now())
		if !ok || o.err == nil {
			t.Fatalf("Expected a failure, got %+v", o)
		}
		m.apply(&o, &o)
	}
	lines := logged.Lines()
	if len(lines) != 1 || !strings.Contains(lines[0], "is down after 4 failures") {
		t.Fatalf("Expected one line, got %.300q", lines)
	}
	expectHarmless(t, "log", lines[0])
	text, err := json.Marshal(m.report())
	if err != nil {
		t.Fatal(err)
	}
	expectHarmless(t, "report", m.report().Reason)
	if len(text) > 1000 {
		t.Errorf("Expected a short report, got %d bytes", len(text))
	}
	if err := f.write(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(content(t, f.path), "\n") {
		expectHarmless(t, "state file", line)
	}
}

// TestReasonOfStateFileIsBounded checks what a state file of an earlier version
// may bring.
func TestReasonOfStateFileIsBounded(t *testing.T) {
	now := time.Now()
	s := &savedTarget{Name: "a", Addr: loopback, State: Down, Reason: strings.Repeat("\x1b", 1<<20), At: now.UnixMilli()}
	var b bytes.Buffer
	if err := writeState(&b, slices.Values([]*savedTarget{s})); err != nil {
		t.Fatal(err)
	}
	all, err := readState(&b, now)
	if err != nil || len(all) != 1 {
		t.Fatalf("Expected a target, got %v, %v", all, err)
	}
	m := newMeasurement(s.key())
	m.restore(all[s.key()])
	if got := m.status().Reason; got == "" || len(got) > remotetext.Max {
		t.Errorf("Expected a bounded reason, got %d bytes", len(got))
	}
	expectHarmless(t, "status", m.status().Reason)
}
