package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// plane returns the latencies between hosts in a plane, one a slice.
func plane(t *testing.T, slices int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("i,j")
	for s := range slices {
		fmt.Fprintf(&b, ",t%d", s+1)
	}
	b.WriteString("\n")
	const side = 8
	for i := range side * side {
		for j := range i {
			fmt.Fprintf(&b, "%d,%d", i, j)
			for s := range slices {
				fmt.Fprintf(&b, ",%.3f", 20*math.Hypot(float64(i/side-j/side), float64(i%side-j%side))+float64(s))
			}
			b.WriteString("\n")
		}
	}
	file := filepath.Join(t.TempDir(), "plane.csv")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// results runs the program, and returns its result lines by method.
func results(t *testing.T, args ...string) map[string]string {
	t.Helper()
	var out, progress bytes.Buffer
	if err := run(args, &out, &progress); err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^result matrix=plane method=(\S+) (.*)$`).FindAllStringSubmatch(out.String(), -1) {
		lines[m[1]] = m[2]
	}
	return lines
}

// number returns a number of a result line.
func number(t *testing.T, line, name string) (v float64) {
	t.Helper()
	m := regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("Expected %s in %q", name, line)
	}
	if _, err := fmt.Sscan(m[1], &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSurveyFindsServers(t *testing.T) {
	file := plane(t, 3)
	for _, args := range [][]string{{}, {"-age"}, {"-jitter", "1"}} {
		got := results(t, append([]string{"-matrix", file, "-nodes", "20", "-draws", "20"}, args...)...)
		if len(got) != 10 {
			t.Errorf("Expected 5 methods in 2 placements, got %v", got)
		}
		survey, hash := got["survey-beside"], got["hash-beside"]
		if number(t, survey, "optimal") < 95 || number(t, survey, "excess_ms") > 1 || number(t, survey, "probes") > 11 {
			t.Errorf("%v: Expected the best servers with at most 11 probes, got %s", args, survey)
		}
		if number(t, hash, "optimal") > 60 || number(t, hash, "probes") != 0 {
			t.Errorf("%v: Expected hashed nodes to know little of sites, got %s", args, hash)
		}
		if elsewhere := got["survey-elsewhere"]; number(t, elsewhere, "optimal") < 70 || number(t, elsewhere, "probes") > 8 {
			t.Errorf("%v: Expected good servers with at most 8 probes, got %s", args, elsewhere)
		}
	}
}

func TestSilentSitesGetHashedNode(t *testing.T) {
	got := results(t, "-matrix", plane(t, 1), "-nodes", "20", "-draws", "5", "-silent", "1")
	for _, name := range []string{"survey-beside", "nearest-beside", "ping-beside"} {
		if number(t, got[name], "optimal") != number(t, got["hash-beside"], "optimal") {
			t.Errorf("Expected %s to be as good as a hash, got %s and %s", name, got[name], got["hash-beside"])
		}
	}
	if probes := number(t, got["survey-beside"], "probes"); probes != 3 {
		t.Errorf("Expected 3 probes of a silent site, got %v", probes)
	}
}

func TestDrawing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "survey.svg")
	results(t, "-matrix", plane(t, 1), "-nodes", "20", "-draws", "2", "-svg", file)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	paths := 0
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "title" {
			paths++
		}
	}
	if paths != 20 {
		t.Errorf("Expected a line for each of 10 methods in 2 panels, got %d", paths)
	}
}

func TestErrors(t *testing.T) {
	file := plane(t, 1)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "add -matrix"},
		{[]string{"-matrix", "missing.csv"}, "missing.csv"},
		{[]string{"-matrix", file, "-nodes", "60"}, "64 hosts, expected at least 66"},
		{[]string{"-matrix", file, "-nodes", "4"}, "at least as many -nodes as -servers"},
		{[]string{"-matrix", file, "-draws", "0"}, "at least 1"},
		{[]string{"-matrix", file, "-silent", "2"}, "invalid -silent 2"},
		{[]string{"-matrix", file, "-jitter", "NaN"}, "invalid -jitter NaN"},
		{[]string{"-matrix", file, "-age"}, "one slice of time: remove -age"},
		{[]string{"-matrix", file, "-without", "Paris"}, "unknown host 'Paris'"},
		{[]string{file}, "name the file with -matrix"},
	} {
		if err := run(tc.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: Expected an error with %q, got %v", tc.args, tc.want, err)
		}
	}
}
