package latencyprobe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/trace"
)

// withTrace returns a LatencyProbe that measures by p, like a started instance
// that records a trace.
func withTrace(t *testing.T, p prober.Prober, path string) *LatencyProbe {
	t.Helper()
	l := withProber(p)
	l.traceHolder = new(reload.Holder)
	l.probes[""].tracePath = path
	return opened(t, l)
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTraceOverReload checks that all samples and losses are written.
func TestTraceOverReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	bubble(t, func(t *testing.T) {
		f := newFake(12500 * time.Microsecond)
		first := withTrace(t, f, path)
		w := first.Watch()
		target := Target{Name: "fra, the first", Addr: at("192.0.2.1").Addr}
		w.Set([]Target{target})
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		second := withTrace(t, f, path)
		v := second.Watch()
		v.Set([]Target{target})
		first.closeWatches()
		_ = traces.Release(first.traceHolder)
		f.set(2*time.Millisecond, nil)
		time.Sleep(time.Minute)
		status := v.Status(target)
		second.closeWatches()
		_ = traces.Release(second.traceHolder)

		lines := strings.Split(strings.TrimSuffix(content(t, path), "\n"), "\n")
		if lines[0] != "time,server,rtt_ms" || uint64(len(lines)-1) != status.Samples {
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
		if len(traces.Values()) != 0 {
			t.Error("Expected the file to be closed")
		}
	}) // fails if a goroutine is left
}

// TestForeignFileFailsStart checks that no trace is appended to another file.
func TestForeignFileFailsStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	write(t, path, []byte("latencyprobe state 1\n"))
	l := withProber(newFake(0))
	l.traceHolder = new(reload.Holder)
	l.probes[""].tracePath = path
	if err := l.openFiles(); err == nil || !strings.Contains(err.Error(), `plugin/latencyprobe: open trace "`+path) {
		t.Errorf("Expected a file that is not a trace to fail the start, got %v", err)
	}
	if n := len(traces.Values()); n != 0 {
		t.Errorf("Expected no open trace, got %d", n)
	}
}

// TestHangingDiskDelaysNoProbe checks that a disk that hangs costs samples of
// the trace and nothing else.
func TestHangingDiskDelaysNoProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		full := false
		hanging := trace.New("", func() { full = true; traceDropped.Inc() }) // is not opened, so that nothing is written
		for !full {
			hanging.Record(trace.Sample{})
		}
		l := withProber(newFake(time.Millisecond))
		l.probes[""].trace = hanging
		w := l.Watch()
		target := at("192.0.2.1")
		w.Set([]Target{target})
		before := testutil.ToFloat64(traceDropped)
		time.Sleep(10 * time.Minute)
		status := w.Status(target)
		w.Close()
		synctest.Wait()
		if status.Samples < 115 {
			t.Errorf("Expected probes to go on, got %+v", status)
		}
		if got := testutil.ToFloat64(traceDropped) - before; got != float64(status.Samples) {
			t.Errorf("Expected %d dropped samples to be counted, got %v", status.Samples, got)
		}
	})
}

// TestReplayOfTrace replays a trace with the program that operators use.
func TestReplayOfTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	bubble(t, func(t *testing.T) {
		fra, iad := newFake(20*time.Millisecond), newFake(30*time.Millisecond)
		l, m := withTrace(t, fra, path), withTrace(t, iad, path)
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
		_ = traces.Release(l.traceHolder)
		_ = traces.Release(m.traceHolder)
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

// TestFileHasOnePurpose checks that only what can share a file may name it.
func TestFileHasOnePurpose(t *testing.T) {
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
			t.Errorf("%s: Expected success %v, got %v", tc.corefile, tc.ok, err)
		}
	}
}
