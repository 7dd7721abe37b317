package latencyprobe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// withState returns a LatencyProbe that measures by p, like a started instance
// with a state file.
func withState(t *testing.T, p prober.Prober, path string) *LatencyProbe {
	t.Helper()
	l := withProber(p)
	l.stateHolder = new(reload.Holder)
	l.probes[""].statePath = path
	return opened(t, l)
}

// opened returns l when its files are open.
func opened(t *testing.T, l *LatencyProbe) *LatencyProbe {
	t.Helper()
	if err := l.openFiles(); err != nil {
		t.Fatal(err)
	}
	return l
}

// end ends blocks like the shutdown of their instance.
func end(blocks ...*LatencyProbe) {
	for _, l := range blocks {
		_ = stateFiles.Release(l.stateHolder)
	}
	for _, l := range blocks {
		l.closeWatches()
	}
}

// TestStateSurvivesRestart checks what is restored after a restart of the
// process.
func TestStateSurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	bubble(t, func(t *testing.T) {
		good, bad := newFake(20*time.Millisecond), newFake(30*time.Millisecond)
		targets := []Target{at("192.0.2.1"), {Name: "six", Addr: at("2001:db8::1").Addr}}
		both := func() (a, b *LatencyProbe, v, w *Watch) {
			a, b = withState(t, good, path), withState(t, bad, path)
			v, w = a.Watch(), b.Watch()
			v.Set(targets)
			w.Set(targets)
			return a, b, v, w
		}
		a, b, v, w := both()
		time.Sleep(5 * time.Minute)
		// A target flaps, so that it is held down.
		for range 3 {
			bad.set(0, context.DeadlineExceeded)
			time.Sleep(time.Minute)
			bad.set(30*time.Millisecond, nil)
			time.Sleep(20 * time.Second)
		}
		bad.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		before := make(map[Target][2]Status)
		stats := v.Statistics(targets[0])
		for _, target := range targets {
			before[target] = [2]Status{v.Status(target), w.Status(target)}
		}
		hold := holdOf(w, targets[0])
		end(a, b)
		synctest.Wait()
		if len(measurements.Values()) != 0 {
			t.Fatal("Expected no measurement")
		}

		time.Sleep(3 * time.Second)
		bad.set(30*time.Millisecond, nil)
		a, b, v, w = both()
		for _, target := range targets {
			for i, got := range []Status{v.Status(target), w.Status(target)} {
				want := before[target][i]
				if got.State != want.State || got.Since.UnixMilli() != want.Since.UnixMilli() || got.Estimate.Value != want.Estimate.Value || got.LastRTT != want.LastRTT {
					t.Errorf("%s: Expected %+v, got %+v", target.Name, want, got)
				}
				if want.State == Down && got.Reason != want.Reason || got.Probed || got.Failing {
					t.Errorf("%s: Unexpected %+v", target.Name, got)
				}
			}
		}
		if got := v.Statistics(targets[0]); got.Samples < stats.Samples-10 || got.Samples > stats.Samples || got.Median != stats.Median {
			t.Errorf("Expected statistics %+v, got %+v", stats, got)
		}
		if got := holdOf(w, targets[0]); got != hold || hold < minHoldDown {
			t.Errorf("Expected hold-down %s, got %s", hold, got)
		}
		end(a, b)

		// While nobody measures the targets, they stay in the file until they are
		// too old.
		a = withState(t, good, path)
		time.Sleep(5 * time.Minute)
		end(a)
		if all := stateAt(t, path); len(all) != 4 {
			t.Errorf("Expected 4 unclaimed targets in the file, got %d", len(all))
		}
		time.Sleep(6 * time.Minute)
		a, b, v, w = both()
		for _, got := range []Status{v.Status(targets[0]), w.Status(targets[1])} {
			if got.State != Unknown || got.Estimate.Measured() {
				t.Errorf("Expected old state not to be restored, got %+v", got)
			}
		}
		end(a, b)
	})
}

func holdOf(w *Watch, t Target) time.Duration {
	got := w.targets[t]
	got.mu.Lock()
	defer got.mu.Unlock()
	return got.health.holdDown
}

func stateAt(t *testing.T, path string) map[measurementKey]*savedTarget {
	t.Helper()
	all, err := readStateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestStateIsSavedEveryMinute checks that a kill loses a minute at most.
func TestStateIsSavedEveryMinute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		l := withState(t, f, path)
		w := l.Watch()
		w.Set([]Target{at("192.0.2.1")})
		time.Sleep(10*time.Minute + 59*time.Second)
		for _, s := range stateAt(t, path) {
			if age := time.Since(time.UnixMilli(s.At)); age > savePeriod+6*time.Second || s.State != Up {
				t.Errorf("Expected the file to be a minute old at most, got %s: %+v", age, s)
			}
		}
		end(l)
		if all := stateAt(t, path); len(all) != 1 {
			t.Errorf("Expected one target, got %v", all)
		}
	})
}

// TestStateIsNotSavedWhileIsolated checks that failures of this machine's
// network do not replace the state from before.
func TestStateIsNotSavedWhileIsolated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		l := withState(t, f, path)
		w := l.Watch()
		w.Set([]Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")})
		time.Sleep(3 * time.Minute)
		f.set(0, context.DeadlineExceeded)
		for !l.Isolated() {
			time.Sleep(time.Second)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		end(l)
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("Expected the file to be unchanged, %v", err)
		}
		isolation.on.Store(false)
	})
}

// TestStateFileSurvivesReload checks that a reload does not close the file, and
// that the end of the last instance writes it.
func TestStateFileSurvivesReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	bubble(t, func(t *testing.T) {
		f := newFake(time.Millisecond)
		first := withState(t, f, path)
		first.Watch().Set([]Target{at("192.0.2.1")})
		time.Sleep(10 * time.Second)
		second := withState(t, f, path)
		second.Watch().Set([]Target{at("192.0.2.1")})
		end(first)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Expected the end of the first instance to write nothing, got %v", err)
		}
		time.Sleep(10 * time.Second)
		end(second)
		if all := stateAt(t, path); len(all) != 1 {
			t.Errorf("Expected a target in the file, got %v", all)
		}
		if len(stateFiles.Values()) != 0 {
			t.Error("Expected the file to be closed")
		}
	}) // fails if a goroutine is left
}

// someState returns a state file of two targets that were probed now.
func someState(t testing.TB) ([]byte, map[measurementKey]*savedTarget) {
	t.Helper()
	now := time.Now().UnixMilli()
	all := []*savedTarget{
		{Name: "a", Addr: loopback, Method: "m", State: Up, Since: now - 5000, At: now, Samples: "0:12.5000 5000: 4990:13.0000"},
		{Name: "b", Addr: at("2001:db8::1").Addr, Check: &Check{53, "example.org.", 6}, Method: "m", State: Down, WentDown: now, HoldDown: 5000, Reason: "timeout \"x\"", At: now},
	}
	var b bytes.Buffer
	if err := writeState(&b, slices.Values(all)); err != nil {
		t.Fatal(err)
	}
	want := make(map[measurementKey]*savedTarget)
	for _, s := range all {
		want[s.key()] = s
	}
	return b.Bytes(), want
}

func equalTargets(a, b map[measurementKey]*savedTarget) bool {
	return maps.EqualFunc(a, b, func(x, y *savedTarget) bool {
		p, q := *x, *y
		p.Check, q.Check = nil, nil // is part of the key
		return p == q
	})
}

func TestReadState(t *testing.T) {
	good, want := someState(t)
	if got, err := readState(bytes.NewReader(good), time.Now()); err != nil || !equalTargets(got, want) {
		t.Fatalf("Expected %v, got %v, %v", want, got, err)
	}
	if got, err := readState(bytes.NewReader(good), time.Now().Add(maxSavedAge+time.Minute)); err != nil || len(got) != 0 {
		t.Errorf("Expected old targets to be ignored, got %v, %v", got, err)
	}
	if got, err := readState(bytes.NewReader(good), time.Now().Add(-time.Hour)); err != nil || len(got) != 0 {
		t.Errorf("Expected targets from the future to be ignored, got %v, %v", got, err)
	}
	tests := []struct{ name, content, err string }{
		{"empty", "", "incomplete"},
		{"another file", "time,server,rtt_ms\n1,a,2\n", "not a state file"},
		{"header alone", "latencyprobe state 1\n", "incomplete"},
		{"newer version", strings.Replace(string(good), "state 1", "state 2", 1), "version 2, this program reads version 1"},
		{"no version", "latencyprobe state x\n", "not a state file"},
		{"a digit changed", strings.Replace(string(good), "12.5", "12.6", 1), "checksum"},
		{"incomplete", string(good[:len(good)-1]), "incomplete"},
		{"a byte more", string(good) + "x", "after the checksum"},
		{"twice", string(good) + string(good), "after the checksum"},
		{"no JSON", "latencyprobe state 1\nx\n", "invalid character"},
		{"state", "latencyprobe state 1\n" + `{"address":"192.0.2.1","state":7}` + "\n", "invalid target"},
		{"alone", "latencyprobe state 1\n" + `{"address":"192.0.2.1","alone":3}` + "\n", "invalid target"},
		{"hold", "latencyprobe state 1\n" + `{"address":"192.0.2.1","hold_ms":1000000000}` + "\n", "invalid target"},
		{"address", "latencyprobe state 1\n" + `{"state":1}` + "\n", "invalid target"},
		{"samples", "latencyprobe state 1\n" + `{"address":"192.0.2.1","samples":"0:1 x"}` + "\n", "invalid sample"},
		{"many samples", "latencyprobe state 1\n" + `{"address":"192.0.2.1","samples":"` + strings.Repeat("0:1 ", maxSamples+1) + `"}` + "\n", "invalid sample"},
		{"latency", "latencyprobe state 1\n" + `{"address":"192.0.2.1","samples":"0:NaN"}` + "\n", "invalid latency"},
	}
	for _, tc := range tests {
		if _, err := readState(strings.NewReader(tc.content), time.Now()); err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: Expected an error with %q, got %v", tc.name, tc.err, err)
		}
	}
}

// TestExtremeValuesAreReadBack checks that no sample and no time makes a state
// file unreadable, or takes other targets with it.
func TestExtremeValuesAreReadBack(t *testing.T) {
	now := time.Now()
	f := newStateFile(filepath.Join(t.TempDir(), "state"))
	rtts := []time.Duration{math.MinInt64, -2 * time.Hour, -1, 0, 1, time.Hour - 1, time.Hour, time.Hour + time.Second, 2 * time.Hour, math.MaxInt64}
	times := []time.Time{
		{}, time.Unix(0, 0), time.Unix(math.MaxInt32, 0), time.Unix(1<<40, 0), now.Add(-maxSavedAge), now.Add(-maxSavedAge - time.Millisecond),
		now.Add(-time.Minute), now, now.Add(time.Minute), now.Add(1 << 32 * time.Millisecond), now.Round(0).Add(-time.Hour), now.Round(0).Add(time.Hour),
	}
	addr := at("192.0.2.0").Addr
	want := 0
	add := func(change func(m *measurement)) {
		addr = addr.Next()
		m := newMeasurement(measurementKey{target: Target{Name: "\x1b\xff\n\u2028" + addr.String(), Addr: addr}})
		m.health.success(now)
		m.samples.add(now, time.Millisecond)
		change(m)
		f.add(m)
		want++
	}
	for _, rtt := range rtts {
		add(func(m *measurement) { m.samples.add(now, rtt) })
		add(func(m *measurement) { m.health.holdDown = rtt })
	}
	for _, a := range times {
		add(func(m *measurement) { m.health.since, m.health.wentDown = a, a })
		for _, b := range times {
			add(func(m *measurement) {
				m.samples.add(a, time.Millisecond)
				m.samples.addLoss(b)
				m.samples.add(now, time.Millisecond)
			})
		}
	}
	for _, rtt := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32} {
		add(func(m *measurement) { m.samples.push(sample{sinceEpoch(now), rtt}) })
	}
	add(func(m *measurement) {
		m.health.failure(now, remotetext.Clean(strings.Repeat("\x1b]0;\xff\u202e", 1<<20)), false, never)
	})
	if err := f.write(); err != nil {
		t.Fatal(err)
	}
	if got := stateAt(t, f.path); len(got) != want {
		t.Errorf("Expected %d targets, got %d", want, len(got))
	}
}

// TestKillWhileWriting checks that a kill at any moment of a write leaves the
// previous version, and that an incomplete file is not used.
func TestKillWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	good, want := someState(t)
	open := func() *stateFile {
		f := newStateFile(path)
		f.load()
		return f
	}
	for n := range good {
		write(t, path, good)
		write(t, path+".tmp", good[:n])
		if f := open(); !equalTargets(f.unclaimed, want) {
			t.Fatalf("After %d bytes of a temporary file: Expected the previous version, got %v", n, f.unclaimed)
		}
		write(t, path, good[:n])
		if f := open(); len(f.unclaimed) != 0 {
			t.Fatalf("After %d bytes: Expected nothing, got %v", n, f.unclaimed)
		}
		if damaged, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(damaged, good[:n]) {
			t.Fatalf("After %d bytes: Expected the file to be renamed, %v", n, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("Expected the damaged file to be gone, got %v", err)
		}
	}
	f := open()
	f.save()
	if got := stateAt(t, path); len(got) != 0 {
		t.Errorf("Expected an empty state, got %v", got)
	}
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Expected the temporary file to be gone, got %v", err)
	}
}

// TestWriteFailureRecovers checks that a state file is written when its
// directory exists again.
func TestWriteFailureRecovers(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "gone")
	f := newStateFile(filepath.Join(directory, "state"))
	f.load()
	f.save()
	if !f.failure.Failing() {
		t.Error("Expected the write to fail")
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	f.save()
	if f.failure.Failing() {
		t.Error("Expected the write to succeed again")
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStatePaths(t *testing.T) {
	directory := t.TempDir()
	t.Chdir(directory)
	write(t, filepath.Join(directory, "file"), nil)
	tests := []struct{ root, line, want, err string }{
		{"", "state " + directory + "/s", directory + "/s", ""},
		{"", "state s", directory + "/s", ""},
		{"/", "state tmp", "/tmp", "expected a regular file"},
		{directory, "state s", directory + "/s", ""},
		{"/nowhere", "state s", "", "no directory '/nowhere'"},
		{"/nowhere", "state " + directory + "/s", directory + "/s", ""},
		{"", "state file/s", "", "no directory '" + directory + "/file'"},
		{"", "state a b", "", "expected 'state FILE'"},
		{"", "state", "", "expected 'state FILE'"},
		{"", "state a\nstate a", "", "given twice"},
	}
	for _, tc := range tests {
		c := caddy.NewTestController("dns", "latencyprobe {\n"+tc.line+"\n}")
		dnsserver.GetConfig(c).Root = tc.root
		probes, err := parse(c)
		switch {
		case tc.err == "" && (err != nil || probes[""].statePath != tc.want):
			t.Errorf("%s, root '%s': Expected %s, got %v, %v", tc.line, tc.root, tc.want, probes, err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s, root '%s': Expected an error with %q, got %v", tc.line, tc.root, tc.err, err)
		}
	}
}

// FuzzReadState checks that any file can be read, and that what was read can be
// written and read again.
func FuzzReadState(f *testing.F) {
	good, _ := someState(f)
	f.Add(good)
	f.Add([]byte("latencyprobe state 1\n{\"address\":\"::1\",\"samples\":\"0:1 1:\"}\nsha256 00\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		// With a wrong checksum nothing else would be tested.
		if i := bytes.LastIndex(content, []byte("\n"+stateChecksum)); i >= 0 {
			content = append(bytes.Clone(content[:i+1]), sumLine(content[:i+1])...)
		}
		now := time.Now()
		all, err := readState(bytes.NewReader(content), now)
		if err != nil {
			return
		}
		var restored []*savedTarget
		for _, s := range all {
			m := &measurement{key: s.key()}
			m.restore(s)
			m.status()
			m.statistics()
			if saved := m.saved(now); saved != nil {
				restored = append(restored, saved)
			}
		}
		var b bytes.Buffer
		if err := writeState(&b, maps.Values(all)); err != nil {
			t.Fatal(err)
		}
		again, err := readState(&b, now)
		if err != nil || len(again) != len(all) {
			t.Fatalf("Expected %v, got %v, %v", all, again, err)
		}
		b.Reset()
		if err := writeState(&b, slices.Values(restored)); err != nil {
			t.Fatal(err)
		}
		if _, err := readState(&b, now); err != nil {
			t.Fatalf("Expected what was restored to be read again, got %v", err)
		}
	})
}

func sumLine(content []byte) []byte {
	var line bytes.Buffer
	sum := sha256.Sum256(content)
	fmt.Fprintf(&line, "%s%x\n", stateChecksum, sum)
	return line.Bytes()
}

// BenchmarkWriteState writes 10,000 targets with all their samples.
func BenchmarkWriteState(b *testing.B) {
	f := newStateFile(filepath.Join(b.TempDir(), "state"))
	now := time.Now()
	addr := at("198.18.0.0").Addr
	for range 10000 {
		addr = addr.Next()
		m := newMeasurement(measurementKey{target: Target{Name: addr.String(), Addr: addr}, probeID: "bench"})
		for i := range maxSamples {
			m.samples.add(now.Add(time.Duration(i-maxSamples)*4*time.Second), 12345*time.Microsecond)
		}
		m.health.success(now)
		f.add(m)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := f.write(); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(f.path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB")
	if saved, err := readStateFile(f.path); err != nil || len(saved) != 10000 {
		b.Fatal(len(saved), err)
	}
}
