package main

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// write puts a file into a new directory.
func write(t *testing.T, content string, compress bool) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.csv")
	var b bytes.Buffer
	b.WriteString(content)
	if compress {
		b.Reset()
		z := gzip.NewWriter(&b)
		io.WriteString(z, content)
		z.Close()
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// atlas returns five traces: a has 10 ms and from slot 2500 on 30, b always has 20, the others have 100 and more.
func atlas() string {
	var b strings.Builder
	b.WriteString("trace,epoch_s,rtt_ms,changepoint\n")
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		for t := range minTrace {
			rtt := 100 + 10*i
			switch {
			case name == "a" && t < 2500:
				rtt = 10
			case name == "a":
				rtt = 30
			case name == "b":
				rtt = 20
			}
			fmt.Fprintf(&b, "%s,%d,%d,0\n", name, 1000000000+240*t, rtt)
		}
	}
	return b.String()
}

func results(t *testing.T, args ...string) map[string]string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(args, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^result policy=(\S+) default=(true|false) set=(\S+) (truth_optimal=[0-9.]+ optimal=[0-9.]+ excess_ms=[0-9.]+ truth_excess_ms=[0-9.]+ switches_per_hour=[0-9.]+)$`)
	out := make(map[string]string)
	defaults := 0
	for _, m := range line.FindAllStringSubmatch(stdout.String(), -1) {
		out[m[3]+" "+m[1]] = m[4]
		if m[2] == "true" {
			defaults++
		}
	}
	if n := strings.Count(stdout.String(), "result "); len(out) != n || n != defaults*len(policies()) || !strings.HasSuffix(stdout.String(), "\n") {
		t.Fatalf("Expected a result line per policy and one default per set, got %d lines and %d defaults in:\n%s", n, defaults, stdout.String())
	}
	return out
}

// TestHandComputed compares with figures computed by hand. There are 4960 slots behind the warm-up. Each policy is wrong from slot 2500 on, by 10 ms, until it has seen
// enough.
func TestHandComputed(t *testing.T) {
	got := results(t, "-atlas", write(t, atlas(), true), "-seattle", write(t, matrixCSV(), false))
	if len(got) != 2*len(policies()) {
		t.Errorf("Expected results for both sets, got %d", len(got))
	}
	tests := []struct {
		policy string
		wrong  int // slots
		change float64
	}{
		{"evidence", 3, 1},
		{"margin", 3, 1}, // three rounds beyond the noise are a new path
		{"lowest", 3, 1},
		{"static-first", 2500, 0},
		{"last-sample", 1, 1},
		{"ewma-0.2", 4, 1}, // 20 * 0.8^4 < 10
		{"median-9", 5, 1},
		{"median-9+1ms", 5, 1},
		{"regret-20/10", 3, 1},       // 10 + 10 + 10 > 20
		{"hysteresis-10%+5ms", 7, 1}, // 20 * 0.8^7 < 5
	}
	for _, tc := range tests {
		share := 100 * float64(4960-tc.wrong) / 4960
		excess := 10 * float64(tc.wrong) / 4960
		want := fmt.Sprintf("truth_optimal=%.2f optimal=%.2f excess_ms=%.3f truth_excess_ms=%.3f switches_per_hour=%.3f", share, share, excess, excess, tc.change/(4960*240/3600.))
		if got["atlas-hard "+tc.policy] != want {
			t.Errorf("%s: expected %s, got %s", tc.policy, want, got["atlas-hard "+tc.policy])
		}
	}
	if !strings.HasPrefix(got["atlas-hard random"], "truth_optimal=20.") && !strings.HasPrefix(got["atlas-hard random"], "truth_optimal=19.") {
		t.Errorf("Expected a fifth for the random policy, got %s", got["atlas-hard random"])
	}
}

// TestShares is the rule "lowest" over a set of two, by hand: of slots 40 to 99 it is wrong at 50, 51 and 52, each time by 20 ms.
func TestShares(t *testing.T) {
	a, b := make([]float64, 100), make([]float64, 100)
	for i := range a {
		a[i], b[i] = 10, 20
		if i >= 50 {
			a[i] = 40
		}
	}
	a[70] = lost
	g := &group{name: "test", step: 240 * time.Second, slots: 100}
	g.sets = []set{{newSeries(&path{"a", a}, truthAtlas, options{}, 0), newSeries(&path{"b", b}, truthAtlas, options{}, 1)}}
	for i, n := range policies() {
		if n.name != "lowest" {
			continue
		}
		s := g.replay(policies(), 1, func(int, int) {})[i]
		if s.slots != 60 || s.optimal != 57 || s.excess != 60 || s.truthSlots != 60 || s.truthOptimal != 57 || s.truthExcess != 60 || s.switches != 1 || s.time != 4*time.Hour {
			t.Errorf("Expected 57 of 60 slots, 60 ms and one change in 4 hours, got %+v", s)
		}
	}
	changes := g.changes(g.sets[0], "lowest")
	if len(changes) != 2 || changes[0] != (change{1, -1, 0, "first"}) || changes[1] != (change{53, 0, 1, "lower"}) {
		t.Errorf("Expected a first choice and a change at slot 53, got %v", changes)
	}
}

// TestOnlyThePast checks that no choice depends on its own slot or a later one.
func TestOnlyThePast(t *testing.T) {
	const slots, upTo = 300, 200
	rnd := rand.New(rand.NewPCG(1, 1))
	one, other := make([]*path, 4), make([]*path, 4)
	for i := range one {
		one[i], other[i] = &path{rtt: make([]float64, slots)}, &path{rtt: make([]float64, slots)}
		for s := range slots {
			v := 50 + 20*rnd.Float64()
			if rnd.IntN(20) == 0 {
				v = lost
			}
			one[i].rtt[s], other[i].rtt[s] = v, v
			if s >= upTo {
				other[i].rtt[s] = 100 * rnd.Float64()
			}
		}
	}
	g := &group{step: time.Second, slots: slots}
	choices := func(paths []*path, n named) []int {
		var s set
		for i, p := range paths {
			s = append(s, newSeries(p, truthAtlas, options{}, uint64(i)))
		}
		var out []int
		g.walk(s, n.new(len(s), 1), func(_, choice int) { out = append(out, choice) })
		return out
	}
	for _, n := range policies() {
		a, b := choices(one, n), choices(other, n)
		differ := false
		for i := range a {
			if a[i] != b[i] {
				differ = true
				if slot := i + 1; slot <= upTo { // the choice for upTo is made of the slots before it
					t.Fatalf("%s: the choice for slot %d depends on later slots", n.name, slot)
				}
			}
		}
		if !differ && n.name != "static-first" && n.name != "random" {
			t.Errorf("%s: expected other choices from other samples", n.name)
		}
	}
}

func TestLoss(t *testing.T) {
	rtt := make([]float64, 20000)
	s := newSeries(&path{"a", rtt}, truthAtlas, options{loss: 0.05, seed: 1}, 0)
	n := 0
	for i, v := range s.seen {
		if math.IsNaN(v) {
			n++
		}
		if math.IsNaN(s.rtt[i]) || math.IsNaN(s.truth[i]) {
			t.Fatal("Expected losses to be hidden from the policies only")
		}
	}
	if n < 900 || n > 1100 {
		t.Errorf("Expected about 1000 of 20000 samples to be hidden, got %d", n)
	}
}

// matrixCSV returns 700 slices between 7 nodes. The latency to node j is 100*(j+1), with runs.
func matrixCSV() string {
	var b strings.Builder
	b.WriteString("i,j,runs(start_slice:rtt_ms separated by space)\n")
	for i := range 7 {
		for j := range 7 {
			if i != j {
				fmt.Fprintf(&b, "%d,%d,1:%d 500:%d 700:%d\n", i, j, 100*(j+1), 100*(j+1)+5, 100*(j+1))
			}
		}
	}
	return b.String()
}

func TestSeattle(t *testing.T) {
	got := results(t, "-seattle", write(t, matrixCSV(), false), "-loss", "0.1")
	want := "truth_optimal=100.00 optimal=100.00 excess_ms=0.000 truth_excess_ms=0.000 switches_per_hour=0.000"
	if got["seattle evidence"] != want {
		t.Errorf("Expected %s, got %s", want, got["seattle evidence"])
	}
	m, err := readMatrix(strings.NewReader("i,j,runs\n0,1,2:10 5:20 9:30\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.path(0, 1, 2).rtt); got != "[NaN 10 20 20 30]" {
		t.Errorf("Expected every second slice, got %s", got)
	}
	if m.path(1, 0, 1) != nil {
		t.Error("Expected no path that is not in the file")
	}
}

// TestOwn replays a trace in which the first server fails, comes back, and then becomes slow.
func TestOwn(t *testing.T) {
	var b strings.Builder
	b.WriteString("time,server,rtt_ms\n")
	for s := 0; s < 1000; s += 5 {
		par := "10"
		switch {
		case s >= 300 && s < 400:
			par = "" // 5 losses are down: from the round of 320 on
		case s >= 700:
			par = "90.5"
		}
		fmt.Fprintf(&b, "%d.25,par1,%s\n%d.5,lon1,20,and more\n", 1700000000+s, par, 1700000000+s)
		if s == 500 {
			b.WriteString("time,server,rtt_ms\n") // files put together
		}
	}
	var stdout, stderr bytes.Buffer
	if err := run([]string{"-own", write(t, b.String(), true), "-rule", "margin"}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	at := func(s int64) string { return time.Unix(1700000000+s, 0).UTC().Format(time.RFC3339) }
	want := []string{
		at(5) + "  -     ->  par1  first",
		at(325) + "  par1  ->  lon1  down",
		at(410) + "  lon1  ->  par1  lower",
		at(715) + "  par1  ->  lon1  lower",
	}
	_, list, _ := strings.Cut(stdout.String(), "changes by rule margin:\n\n")
	list, _, _ = strings.Cut(list, "\n\n")
	if list != strings.Join(want, "\n") {
		t.Errorf("Expected\n%s\ngot\n%s", strings.Join(want, "\n"), list)
	}
	if !strings.Contains(stdout.String(), "result policy=evidence default=true set=own truth_optimal=") {
		t.Errorf("Expected result lines, got\n%s", stdout.String())
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		flag, content, want string
	}{
		{"-atlas", "", "empty file"},
		{"-atlas", "a,b\n1,2\n", "line 1: expected the header 'trace,epoch_s,rtt_ms'"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,2\n", "line 3: expected 3 fields, found 2"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,now,2\n", "line 3: 'now' is not a time"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,fast\n", "line 2: 'fast' is not a latency"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,NaN\n", "line 2: 'NaN' is not a latency"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,-1\n", "line 2: '-1' is not a latency"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,\"2\n", "line 2"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\n", "no trace has two samples"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,1,2\n", "0 s apart"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,2,2\n", "0 traces have at least 5000 samples, 5 are needed"},
		{"-seattle", "i,j,runs\n0,x,1:1\n", "line 2: 'x' is not a node's number"},
		{"-seattle", "i,j,runs\n0,1,1:1 5\n", "line 2: '5' is not of the form SLICE:MS"},
		{"-seattle", "i,j,runs\n0,1,5:1 5:2\n", "line 2: slice 5 is not after the one before it"},
		{"-seattle", "i,j,runs\n0,1,0:1\n", "line 2: '0:1' is not of the form"},
		{"-seattle", "i,j,runs\n0,1,1:1\n0,1,1:1\n", "line 3: nodes 0 and 1 for the second time"},
		{"-seattle", "i,j,runs\n0,1,1:1\n", "2 nodes, at least 6 are needed"},
		{"-seattle", "i,j,runs\n0,9,1:1\n", "1 slices, more than 280 are needed"},
		{"-seattle", "i,j,runs\n0,9,1:1 900:1\n", "no node has latencies to 5 others"},
		{"-own", "time,server,rtt_ms\n", "no samples"},
		{"-own", "time,server,rtt_ms\n1,,3\n", "line 2: a sample without a server"},
		{"-own", "time,server,rtt_ms\n-1,a,3\n", "line 2: '-1' is not a time"},
		{"-own", "time,server,rtt_ms\n1,a,3\n", "1 rounds of 5s, more than 40 are needed"},
		{"-own", "time,server,rtt_ms\n1,a,3\n1000,a,3\n", "only one server"},
		{"-own", "time,server,rtt_ms\n1,a,3\n99999999999,b,3\n", "can be replayed"},
	}
	for _, tc := range tests {
		file := write(t, tc.content, false)
		err := run([]string{tc.flag, file}, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), file+": ") {
			t.Errorf("%s %q: expected an error with the file's name and %q, got %v", tc.flag, tc.content, tc.want, err)
		}
	}
	args := []struct{ args, want string }{
		{"", "nothing to replay"},
		{"-atlas x y", "unexpected argument 'y'"},
		{"-atlas x -loss 1", "-loss 1 is not a share"},
		{"-atlas x -loss NaN", "-loss NaN is not a share"},
		{"-own x -rule best", "unknown rule 'best', expected one of: evidence, margin, lowest"},
		{"-atlas /nonexistent", "no such file"},
	}
	for _, tc := range args {
		if err := run(strings.Fields(tc.args), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: expected an error with %q, got %v", tc.args, tc.want, err)
		}
	}
}

func TestDraw(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "set.svg")
	file := write(t, atlas(), false)
	if err := run([]string{"-atlas", file, "-svg", svg}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	count := make(map[string]int)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("Expected well-formed XML, got %v", err)
		}
		if s, ok := token.(xml.StartElement); ok {
			count[s.Name.Local]++
		}
	}
	// Titles are those of the choices: one at the start, one from slot 2503 on.
	if count["svg"] != 1 || count["title"] != 2 || count["path"] < 12 {
		t.Errorf("Expected a drawing with two choices, got %v", count)
	}
	err = run([]string{"-atlas", file, "-svg", svg, "-plot", "200"}, io.Discard, io.Discard)
	if !errors.Is(err, errNoSet) {
		t.Errorf("Expected %v, got %v", errNoSet, err)
	}
}

func TestHelp(t *testing.T) {
	var stderr bytes.Buffer
	if err := run([]string{"-h"}, io.Discard, &stderr); err == nil {
		t.Error("Expected help to end the run")
	}
	for _, want := range []string{"-atlas FILE", "-own FILE", "switches/h", "default evidence"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("Expected help to have %q, got\n%s", want, stderr.String())
		}
	}
}

func FuzzReadTraces(f *testing.F) {
	f.Add([]byte("trace,epoch_s,rtt_ms,changepoint\n1,100,10.5,0\n1,340,,0\n2,100,7,1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := readTraces(bytes.NewReader(b))
		if err == nil && (len(tr.paths) == 0 || tr.step <= 0) {
			t.Errorf("Expected paths and a step, got %+v", tr)
		}
	})
}

func FuzzReadMatrix(f *testing.F) {
	f.Add([]byte("i,j,runs\n0,1,1:170 3:180\n1,0,2:0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMatrix(bytes.NewReader(b))
		if err != nil {
			return
		}
		for pair, runs := range m.runs {
			p := m.path(pair[0], pair[1], seattleEvery)
			if (p == nil) != (len(runs) == 0) || p != nil && len(p.rtt) != (m.slices+seattleEvery-1)/seattleEvery {
				t.Errorf("Expected a path of %d slices, got %v", m.slices, p)
			}
		}
	})
}

func FuzzReadSamples(f *testing.F) {
	f.Add([]byte("time,server,rtt_ms\n1700000000.25,par1,10.5\n1700000001,lon1,\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSamples(bytes.NewReader(b))
		if err != nil {
			return
		}
		for i := range s {
			if i > 0 && s[i].at.Before(s[i-1].at) || s[i].server == "" || s[i].rtt < 0 {
				t.Errorf("Expected samples in order of time, got %v", s)
			}
		}
	})
}
