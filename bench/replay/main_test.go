package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// write returns the name of a new file.
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

// results runs the program and returns its result lines by set and policy.
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
	if n := strings.Count(stdout.String(), "result "); len(out) != n || n != defaults*len(policyKinds()) || !strings.HasSuffix(stdout.String(), "\n") {
		t.Fatalf("Expected a result line per policy and one default per set, got %d lines and %d defaults in:\n%s", n, defaults, stdout.String())
	}
	return out
}

func TestErrorNamesFileAndLine(t *testing.T) {
	tests := []struct {
		flag, content, want string
	}{
		{"-atlas", "", "empty file"},
		{"-atlas", "a,b\n1,2\n", "line 1: expected the header 'trace,epoch_s,rtt_ms'"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,2\n", "line 3: expected 3 fields, got 2"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,now,2\n", "line 3: invalid time 'now'"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,fast\n", "line 2: invalid latency 'fast'"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,NaN\n", "line 2: invalid latency 'NaN'"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,-1\n", "line 2: invalid latency '-1'"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,\"2\n", "line 2"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\n", "no trace has two samples"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,1,2\n", "0 s apart"},
		{"-atlas", "trace,epoch_s,rtt_ms\nx,1,2\nx,2,2\n", "0 traces have at least 5000 samples, expected 5 traces"},
		{"-seattle", "i,j,runs\n0,x,1:1\n", "line 2: invalid host 'x'"},
		{"-seattle", "i,j,runs\n0,1,1:1 5\n", "line 2: invalid run '5': expected SLICE:MS"},
		{"-seattle", "i,j,runs\n0,1,5:1 5:2\n", "line 2: invalid run '5:2': expected a slice after 5"},
		{"-seattle", "i,j,runs\n0,1,0:1\n", "line 2: invalid run '0:1'"},
		{"-seattle", "i,j,runs\n0,1,1:1\n0,1,1:1\n", "line 3: hosts 0 and 1 are given twice"},
		{"-seattle", "i,j,runs\n0,1,1:1\n", "2 nodes, expected at least 6"},
		{"-seattle", "i,j,runs\n0,9,1:1\n", "1 slices, expected more than 280"},
		{"-seattle", "i,j,runs\n0,9,1:1 900:1\n", "no node has latencies to 5 others"},
		{"-own", "time,server,rtt_ms\n", "no samples"},
		{"-own", "time,server,rtt_ms\n1,,3\n", "line 2: sample without a server"},
		{"-own", "time,server,rtt_ms\n-1,a,3\n", "line 2: invalid time '-1'"},
		{"-own", "time,server,rtt_ms\n1,a,3\n", "1 rounds of 5s, expected more than 40"},
		{"-own", "time,server,rtt_ms\n1,a,3\n1000,a,3\n", "trace of one server"},
		{"-own", "time,server,rtt_ms\n1,a,3\n99999999999,b,3\n", "expected at most"},
	}
	for _, tc := range tests {
		file := write(t, tc.content, false)
		err := run([]string{tc.flag, file}, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), file+": ") {
			t.Errorf("%s %q: Expected an error with the name of the file and %q, got %v", tc.flag, tc.content, tc.want, err)
		}
	}
	args := []struct{ args, want string }{
		{"", "nothing to replay"},
		{"-atlas x y", "unexpected argument 'y'"},
		{"-atlas x -loss 1", "invalid -loss 1: expected a share"},
		{"-atlas x -loss NaN", "invalid -loss NaN: expected a share"},
		{"-own x -rule best", "unknown rule 'best', expected one of: evidence, margin, lowest"},
		{"-atlas /nonexistent", "no such file"},
	}
	for _, tc := range args {
		if err := run(strings.Fields(tc.args), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: Expected an error with %q, got %v", tc.args, tc.want, err)
		}
	}
}

func TestHelpListsFlags(t *testing.T) {
	var stderr bytes.Buffer
	if err := run([]string{"-h"}, io.Discard, &stderr); err == nil {
		t.Error("Expected an error for -h")
	}
	for _, want := range []string{"-atlas FILE", "-own FILE", "switches/h", "default evidence"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("Expected help to have %q, got\n%s", want, stderr.String())
		}
	}
}
