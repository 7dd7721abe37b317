package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lost stands for a sample that is not there.
var lost = math.NaN()

// open calls read with the contents of a file, decompressed if need be, and puts the file's name before its error.
func open[T any](file string, read func(io.Reader) (T, error)) (T, error) {
	var none T
	f, err := os.Open(file)
	if err != nil {
		return none, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if magic, _ := r.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return none, fmt.Errorf("%s: %w", file, err)
		}
		defer z.Close()
		r = bufio.NewReader(z)
	}
	t, err := read(r)
	if err != nil {
		return none, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// rows calls row for each row behind a header that begins with the names given, and puts the line number before its error. A header in between, as in files put together,
// is skipped.
func rows(r io.Reader, header []string, row func(fields []string) error) error {
	c := csv.NewReader(r)
	c.FieldsPerRecord = -1
	c.ReuseRecord = true
	isHeader := func(fields []string) bool {
		return len(fields) >= len(header) && slices.EqualFunc(fields[:len(header)], header, strings.HasPrefix)
	}
	for first := true; ; first = false {
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			if first {
				return errors.New("empty file")
			}
			return nil
		}
		if err != nil {
			return err // has the line number
		}
		line, _ := c.FieldPos(0)
		switch {
		case isHeader(fields):
		case first:
			return fmt.Errorf("line %d: expected the header '%s'", line, strings.Join(header, ","))
		case len(fields) < len(header):
			return fmt.Errorf("line %d: expected %d fields, found %d", line, len(header), len(fields))
		default:
			if err := row(fields); err != nil {
				return fmt.Errorf("line %d: %w", line, err)
			}
		}
	}
}

// parseRTT reads a latency in milliseconds.
func parseRTT(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= maxRTT) {
		return 0, fmt.Errorf("'%s' is not a latency in milliseconds, 0 to %d", s, maxRTT)
	}
	return v, nil
}

// maxRTT is ten minutes: what is above is a mistake of units.
const maxRTT = 600000

// path is the trace of one path with samples at even distances.
type path struct {
	name string
	rtt  []float64
}

// traces are paths that were sampled alike.
type traces struct {
	paths []*path
	step  time.Duration
}

// readTraces reads columns trace, epoch_s, rtt_ms. Samples count in the order of the file; their distance is the median one.
func readTraces(r io.Reader) (*traces, error) {
	t := new(traces)
	byName := make(map[string]*path)
	last := make(map[string]float64)
	var steps []float64
	err := rows(r, []string{"trace", "epoch_s", "rtt_ms"}, func(f []string) error {
		at, err := strconv.ParseFloat(f[1], 64)
		if err != nil || !(math.Abs(at) < maxEpoch) {
			return fmt.Errorf("'%s' is not a time in seconds", f[1])
		}
		rtt := lost
		if f[2] != "" {
			if rtt, err = parseRTT(f[2]); err != nil {
				return err
			}
		}
		p := byName[f[0]]
		if p == nil {
			p = &path{name: strings.Clone(f[0])}
			byName[p.name] = p
			t.paths = append(t.paths, p)
		} else {
			steps = append(steps, at-last[p.name])
		}
		last[p.name] = at
		p.rtt = append(p.rtt, rtt)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(steps) == 0 {
		return nil, errors.New("no trace has two samples")
	}
	step := medianOf(steps)
	if !(step > 0 && step <= maxStep) {
		return nil, fmt.Errorf("samples are %v s apart by the median of epoch_s, expected more than 0 and at most %d", step, maxStep)
	}
	t.step = time.Duration(step * float64(time.Second))
	return t, nil
}

// maxStep is a day, in seconds.
const maxStep = 24 * 3600

// maxEpoch is the year 5138, to keep times within what time.Duration holds.
const maxEpoch = 1e11

// matrix is the latency between nodes over time, in runs of equal values.
type matrix struct {
	nodes  int
	slices int
	runs   map[[2]int][]span
}

type span struct {
	from int // slice, from 0
	rtt  float64
}

// Bounds of a matrix, against mistakes.
const (
	maxNode  = 10000
	maxSlice = 1000000
)

// readMatrix reads columns i, j, runs, with runs like "1:170 3:180": from slice 1 on 170 ms, from slice 3 on 180 ms.
func readMatrix(r io.Reader) (*matrix, error) {
	m := &matrix{runs: make(map[[2]int][]span)}
	err := rows(r, []string{"i", "j", "runs"}, func(f []string) error {
		var pair [2]int
		for k := range pair {
			n, err := strconv.Atoi(f[k])
			if err != nil || n < 0 || n > maxNode {
				return fmt.Errorf("'%s' is not a node's number, 0 to %d", f[k], maxNode)
			}
			pair[k] = n
			m.nodes = max(m.nodes, n+1)
		}
		if m.runs[pair] != nil {
			return fmt.Errorf("nodes %d and %d for the second time", pair[0], pair[1])
		}
		var runs []span
		for field := range strings.FieldsSeq(f[2]) {
			from, value, ok := strings.Cut(field, ":")
			n, err := strconv.Atoi(from)
			if !ok || err != nil || n < 1 || n > maxSlice {
				return fmt.Errorf("'%s' is not of the form SLICE:MS with a slice from 1 to %d", field, maxSlice)
			}
			rtt, err := parseRTT(value)
			if err != nil {
				return err
			}
			if len(runs) > 0 && n-1 <= runs[len(runs)-1].from {
				return fmt.Errorf("slice %d is not after the one before it", n)
			}
			runs = append(runs, span{n - 1, rtt})
			m.slices = max(m.slices, n)
		}
		m.runs[pair] = runs
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// path returns the trace from one node to another at every n-th slice, or nil.
func (m *matrix) path(i, j, n int) *path {
	runs := m.runs[[2]int{i, j}]
	if len(runs) == 0 {
		return nil
	}
	p := &path{name: strconv.Itoa(j)}
	rtt := lost
	next := 0
	for s := 0; s < m.slices; s += n {
		for next < len(runs) && runs[next].from <= s {
			rtt = runs[next].rtt
			next++
		}
		p.rtt = append(p.rtt, rtt)
	}
	return p
}

// sample is one measurement of one's own.
type sample struct {
	at     time.Time
	server string
	rtt    float64 // milliseconds, or lost
}

// readSamples reads columns time, server, rtt_ms and returns the samples in order of time.
func readSamples(r io.Reader) ([]sample, error) {
	var out []sample
	names := make(map[string]string)
	err := rows(r, []string{"time", "server", "rtt_ms"}, func(f []string) error {
		at, err := strconv.ParseFloat(f[0], 64)
		if err != nil || !(at >= 0 && at < maxEpoch) {
			return fmt.Errorf("'%s' is not a time in seconds since 1970", f[0])
		}
		if f[1] == "" {
			return errors.New("a sample without a server")
		}
		name, ok := names[f[1]]
		if !ok {
			name = strings.Clone(f[1])
			names[name] = name
		}
		rtt := lost
		if f[2] != "" {
			if rtt, err = parseRTT(f[2]); err != nil {
				return err
			}
		}
		second, fraction := math.Modf(at)
		out = append(out, sample{time.Unix(int64(second), int64(fraction*1e9)), name, rtt})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b sample) int { return a.at.Compare(b.at) })
	return out, nil
}
