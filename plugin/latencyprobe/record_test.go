package latencyprobe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
)

// withRecord returns a LatencyProbe that measures by m, as a started instance
// that records has it.
func withRecord(t *testing.T, m method, path string) *LatencyProbe {
	t.Helper()
	l := withMethod(m)
	l.files, l.traces = new(keep.Holder), new(keep.Holder)
	l.probes[""].record = path
	if err := l.openFiles(); err != nil {
		t.Fatal(err)
	}
	return l
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRecord checks that all samples and losses are written, over a reload.
func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	bubble(t, func(t *testing.T) {
		f := newFake(12500 * time.Microsecond)
		first := withRecord(t, f, path)
		w := first.Watch()
		target := Target{Name: "fra, the first", Addr: at("192.0.2.1").Addr}
		w.Set([]Target{target})
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		second := withRecord(t, f, path)
		v := second.Watch()
		v.Set([]Target{target})
		running.Release(first.holder)
		recorders.Release(first.traces)
		f.set(2*time.Millisecond, nil)
		time.Sleep(time.Minute)
		status := v.Status(target)
		running.Release(second.holder)
		recorders.Release(second.traces)

		lines := strings.Split(strings.TrimSuffix(content(t, path), "\n"), "\n")
		if lines[0]+"\n" != recordHeader || uint64(len(lines)-1) != status.Samples {
			t.Errorf("Expected a header and %d samples, got %v", status.Samples, lines)
		}
		form := regexp.MustCompile(`^94668\d{4}\.\d{3},"fra, the first/192\.0\.2\.1",(12\.5000|2\.0000|)$`)
		var lost uint64
		for _, line := range lines[1:] {
			if !form.MatchString(line) {
				t.Errorf("Unexpected line %q", line)
			}
			if strings.HasSuffix(line, ",") {
				lost++
			}
		}
		if lost != status.Lost || lost == 0 {
			t.Errorf("Expected %d losses, got %d", status.Lost, lost)
		}
		if _, ok := openRecorders.Load(path); ok {
			t.Error("Expected the file to be closed")
		}
	}) // fails if a goroutine is left
}

// TestRecordRotates checks that a trace is bounded and that nothing is lost when
// it is full.
func TestRecordRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	r := openRecorder(path, 1000)
	if r.err != nil {
		t.Fatal(r.err)
	}
	tg := &target{key: targetKey{target: at("192.0.2.1")}}
	add(&tg.records, path)
	const samples = 60
	for i := range samples {
		tg.record(start.Add(time.Duration(i)*time.Second), time.Millisecond, true)
	}
	recorders.Close(path, r)
	older, newer := content(t, path+".1"), content(t, path)
	for _, c := range []string{older, newer} {
		if !strings.HasPrefix(c, recordHeader) || !strings.HasSuffix(c, "\n") || len(c) > 1000+100 {
			t.Errorf("Expected whole lines behind a header, of some 1000 bytes, got %d: %s", len(c), c)
		}
	}
	// The newest samples are there, without a gap.
	lines := strings.Split(strings.TrimPrefix(older, recordHeader)+strings.TrimPrefix(newer, recordHeader), "\n")
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

func TestRecordOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	tests := []struct{ name, before, after, err string }{
		{"empty", "", recordHeader, ""},
		{"half a header", "time,ser", recordHeader, ""},
		{"a trace", recordHeader + "1.5,a,2\n", recordHeader + "1.5,a,2\n", ""},
		{"half a line", recordHeader + "1.5,a,2\n2.5,a,", recordHeader + "1.5,a,2\n", ""},
		{"something else", "latencyprobe state 1\n", "latencyprobe state 1\n", "no trace"},
		{"something short", "x", "x", "no trace"},
		{"no lines", recordHeader + strings.Repeat("x", 5000), recordHeader + strings.Repeat("x", 5000), "no trace"},
	}
	for _, tc := range tests {
		write(t, path, []byte(tc.before))
		r := openRecorder(path, maxRecord)
		recorders.Close(path, r)
		if tc.err == "" && r.err != nil || tc.err != "" && (r.err == nil || !strings.Contains(r.err.Error(), tc.err)) {
			t.Errorf("%s: expected an error with %q, got %v", tc.name, tc.err, r.err)
		}
		if got := content(t, path); got != tc.after {
			t.Errorf("%s: expected %q, got %q", tc.name, tc.after, got)
		}
	}
	l := withMethod(newFake(0))
	l.traces = new(keep.Holder)
	l.probes[""].record = path
	if err := l.openFiles(); err == nil || !strings.Contains(err.Error(), "plugin/latencyprobe: record "+path) {
		t.Errorf("Expected a file that is something else to fail the start, got %v", err)
	}
	recorders.Release(l.traces)
}

// TestRecordNeverBlocks checks that a disk that hangs costs samples of the trace
// and nothing else.
func TestRecordNeverBlocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const path = "hangs"
		openRecorders.Store(path, &recorder{queue: make(chan recorded, 3)}) // nobody reads
		defer openRecorders.Delete(path)
		f := newFake(time.Millisecond)
		l := withMethod(f)
		l.probes[""].record = path
		w := l.Watch()
		target := at("192.0.2.1")
		w.Set([]Target{target})
		before := testutil.ToFloat64(recordDropped)
		time.Sleep(10 * time.Minute)
		status := w.Status(target)
		w.Close()
		synctest.Wait()
		if status.Samples < 115 {
			t.Errorf("Expected probes to go on, got %+v", status)
		}
		if got := testutil.ToFloat64(recordDropped) - before; got != float64(status.Samples-3) {
			t.Errorf("Expected %d dropped samples to be counted, got %v", status.Samples-3, got)
		}
	})
}

// TestRecordDiskFails checks that recording goes on when the disk does.
func TestRecordDiskFails(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "mounted")
	path := filepath.Join(folder, "trace.csv")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		l := withRecord(t, newFake(time.Millisecond), path)
		w := l.Watch()
		w.Set([]Target{at("192.0.2.1")})
		time.Sleep(time.Minute)
		synctest.Wait()
		r := recorders.Values()[0]
		r.file.Close() // writes fail from now on
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		before := testutil.ToFloat64(recordDropped)
		time.Sleep(time.Minute)
		if testutil.ToFloat64(recordDropped) == before {
			t.Error("Expected samples to be dropped")
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.Close()
		recorders.Release(l.traces)
		if got := strings.Count(content(t, path), "\n"); got < 9 {
			t.Errorf("Expected the samples of a minute, got %d lines", got)
		}
	})
}

// TestReplay replays what was recorded, with the program that operators use.
func TestReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	bubble(t, func(t *testing.T) {
		fra, iad := newFake(20*time.Millisecond), newFake(30*time.Millisecond)
		l, m := withRecord(t, fra, path), withRecord(t, iad, path)
		v, w := l.Watch(), m.Watch()
		v.Set([]Target{{Name: "fra", Addr: at("192.0.2.1").Addr}})
		w.Set([]Target{{Name: "iad", Addr: at("198.51.100.1").Addr}})
		time.Sleep(20 * time.Minute)
		fra.set(50*time.Millisecond, nil)
		time.Sleep(20 * time.Minute)
		iad.set(0, context.DeadlineExceeded)
		time.Sleep(20 * time.Minute)
		for _, w := range []*Watch{v, w} {
			w.Close()
		}
		recorders.Release(l.traces)
		recorders.Release(m.traces)
	})
	replay := exec.Command("go", "run", "../../bench/replay", "-own", path)
	out, err := replay.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		`(?m)^result policy=evidence default=true set=own truth_optimal=9\d\.`,
		`fra/192\.0\.2\.1.*first`,
		`iad/198\.51\.100\.1.*lower`,
		`fra/192\.0\.2\.1.*down`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("Expected a line like %s in:\n%s", want, out)
		}
	}
}

// TestClaimFile checks that a file is for one thing.
func TestClaimFile(t *testing.T) {
	f, g := filepath.Join(t.TempDir(), "f"), filepath.Join(t.TempDir(), "g")
	block := func(name, lines string) string { return fmt.Sprintf("latencyprobe %s {\n%s\n}\n", name, lines) }
	tests := []struct {
		corefile string
		ok       bool
	}{
		{block("", "state "+f+"\nrecord "+g), true},
		{block("", "state "+f) + block("b", "rtt tcp 1\nstate "+f), true},
		{block("", "record "+f) + block("b", "interval 10s\nrecord "+f), true},
		{block("", "record "+f) + block("b", "rtt tcp 1\nrecord "+f), false},
		{block("", "state "+f+"\nrecord "+f), false},
		{block("", "state "+f) + block("b", "record "+f), false},
	}
	for _, tc := range tests {
		_, err := parse(caddy.NewTestController("dns", tc.corefile))
		if tc.ok && err != nil || !tc.ok && (err == nil || !strings.Contains(err.Error(), "given for two purposes")) {
			t.Errorf("%s: expected ok %v, got %v", tc.corefile, tc.ok, err)
		}
	}
}
