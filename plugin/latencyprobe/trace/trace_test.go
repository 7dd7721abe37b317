package trace

import (
	"bytes"
	"encoding/csv"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

func init() { clog.Discard() }

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func sampleAt(at time.Time) Sample {
	return Sample{At: at, Name: "fra", Addr: netip.MustParseAddr("192.0.2.1"), RTT: time.Millisecond}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRotation checks that a trace is bounded, and that nothing is lost when
// the file is full.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	r := New(path, func() { t.Error("Expected no sample to be dropped") })
	r.maxSize = 1000
	if err := r.Open(); err != nil {
		t.Fatal(err)
	}
	const samples = 60
	for i := range samples {
		r.Record(sampleAt(start.Add(time.Duration(i) * time.Second)))
	}
	r.Close()
	older, newer := content(t, path+".1"), content(t, path)
	for _, c := range []string{older, newer} {
		if !strings.HasPrefix(c, header) || !strings.HasSuffix(c, "\n") || len(c) > 1000+100 {
			t.Errorf("Expected a header and complete lines, of some 1000 bytes, got %d: %s", len(c), c)
		}
	}
	// The newest samples, without a gap.
	lines := strings.Split(strings.TrimPrefix(older, header)+strings.TrimPrefix(newer, header), "\n")
	lines = lines[:len(lines)-1]
	for i, line := range lines {
		want := strconv.FormatInt(start.Unix()+int64(samples-len(lines)+i), 10) + ".000,"
		if !strings.HasPrefix(line, want) {
			t.Errorf("Expected a line with %s, got %s", want, line)
		}
	}
	if len(lines) < 25 {
		t.Errorf("Expected two files full of samples, got %d", len(lines))
	}
}

func TestOpenAppendsToTraces(t *testing.T) {
	tests := []struct{ name, before, after, err string }{
		{"empty", "", header, ""},
		{"half a header", "time,ser", header, ""},
		{"a trace", header + "1.5,a,2\n", header + "1.5,a,2\n", ""},
		{"half a line", header + "1.5,a,2\n2.5,a,", header + "1.5,a,2\n", ""},
		{"another file", "latencyprobe state 1\n", "latencyprobe state 1\n", "not a trace"},
		{"a short file", "x", "x", "not a trace"},
		{"no lines", header + strings.Repeat("x", 5000), header + strings.Repeat("x", 5000), "not a trace"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "trace.csv")
			if err := os.WriteFile(path, []byte(tc.before), 0o600); err != nil {
				t.Fatal(err)
			}
			r := New(path, func() {})
			err := r.Open()
			r.Close()
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("Expected an error with %q, got %v", tc.err, err)
			}
			if got := content(t, path); got != tc.after {
				t.Errorf("Expected %q, got %q", tc.after, got)
			}
		})
	}
}

// TestRecordNeverBlocks checks that what does not fit is counted.
func TestRecordNeverBlocks(t *testing.T) {
	dropped := 0
	r := New("", func() { dropped++ })
	r.queue = make(chan Sample, 3) // is not opened, so that nothing is written
	for range 10 {
		r.Record(sampleAt(start))
	}
	if dropped != 7 {
		t.Errorf("Expected 7 dropped samples, got %d", dropped)
	}
	r.Close()
	if r.Record(sampleAt(start)); dropped != 7 || !r.Closed() {
		t.Errorf("Expected a closed recorder to ignore samples, got %d", dropped)
	}
}

// TestDiskFailure checks that recording goes on when the disk works again.
func TestDiskFailure(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "mounted")
	path := filepath.Join(directory, "trace.csv")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	logged := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		dropped := 0
		r := New(path, func() { dropped++ })
		if err := r.Open(); err != nil {
			t.Fatal(err)
		}
		record := func() {
			for range 12 {
				time.Sleep(5*time.Second + time.Millisecond)
				r.Record(sampleAt(time.Now()))
			}
			synctest.Wait()
		}
		record()
		r.file.Close() // writes fail from now on
		r.Record(sampleAt(time.Now()))
		if err := os.RemoveAll(directory); err != nil {
			t.Fatal(err)
		}
		record()
		if dropped == 0 {
			t.Error("Expected samples to be dropped")
		}
		if err := os.Mkdir(directory, 0o700); err != nil {
			t.Fatal(err)
		}
		record()
		r.Close()
		if got := strings.Count(content(t, path), "\n"); got < 9 {
			t.Errorf("Expected the samples of a minute, got %d lines", got)
		}
		const failed = "Failed to write trace"
		logged.Expect(t, failed, failed, "Recovered: trace") // writing fails, then opening
	})
}

// FuzzTrace checks that any file is refused and unchanged, or is a trace after
// one more sample: complete lines of three fields after the header.
func FuzzTrace(f *testing.F) {
	f.Add([]byte(header+"1.5,a,2\n2.5,a,"), "fra", int64(time.Millisecond), false)
	f.Add([]byte("latencyprobe state 1\n"), "fra, \"the first\"\n", int64(-1), true)
	f.Fuzz(func(t *testing.T, before []byte, name string, rtt int64, lost bool) {
		path := filepath.Join(t.TempDir(), "trace.csv")
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
		r := New(path, func() {})
		if err := r.Open(); err != nil {
			if got := content(t, path); got != string(before) {
				t.Errorf("Expected a file that is refused to be unchanged, got %q", got)
			}
			return
		}
		size := r.size
		r.Record(Sample{At: start, Name: name, Addr: netip.MustParseAddr("192.0.2.1"), RTT: time.Duration(rtt), Lost: lost})
		r.Close()
		got := content(t, path)
		if !strings.HasPrefix(got, header) || !strings.HasSuffix(got, "\n") {
			t.Fatalf("Expected a header and complete lines, got %q", got)
		}
		if size > int64(len(header)) && !bytes.HasPrefix(before, []byte(got[:size])) {
			t.Errorf("Expected complete lines to stay, got %q", got)
		}
		fields, err := csv.NewReader(strings.NewReader(got[size:])).Read()
		if err != nil || len(fields) != 3 || (fields[2] == "") != lost {
			t.Errorf("Expected a sample of three fields, got %q, %v", fields, err)
		}
	})
}
