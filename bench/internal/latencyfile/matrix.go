package latencyfile

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a matrix, against mistakes.
const (
	maxHost  = 10000
	maxSlice = 1000000
)

// Matrix is the latency between hosts over time.
type Matrix struct {
	Hosts  int
	Names  []string // by host; nil: they have none
	Slices int
	runs   map[[2]int][]run // by the numbers of two hosts
}

// run is a latency that holds until the next run.
type run struct {
	from int // slice, from 0
	rtt  float64
}

// At returns the latency from one host to another in a slice, or Lost.
func (m *Matrix) At(from, to, slice int) float64 {
	runs := m.runs[[2]int{from, to}]
	i, found := slices.BinarySearchFunc(runs, slice, func(r run, s int) int { return r.from - s })
	switch {
	case found:
		return runs[i].rtt
	case i > 0:
		return runs[i-1].rtt
	}
	return Lost
}

// Has reports whether the file has the latency from one host to another.
func (m *Matrix) Has(from, to int) bool { return len(m.runs[[2]int{from, to}]) > 0 }

// ReadMatrix reads a matrix in one of three forms, which the header tells:
//
//	,NAME,NAME...      a square table; each row begins with the name of a host
//	i,j,t1,t2...       one latency a slice
//	i,j,runs           the runs "1:170 3:180" are 170 ms from slice 1 on and 180 ms from slice 3 on
//
// Hosts i and j are numbered from 0.
func ReadMatrix(r io.Reader) (*Matrix, error) {
	b := bufio.NewReader(r)
	first, err := b.Peek(2)
	switch {
	case errors.Is(err, io.EOF) && len(first) == 0:
		return nil, errors.New("empty file")
	case len(first) > 0 && first[0] == ',':
		return readSquare(b)
	}
	return readPairs(b)
}

func readSquare(r io.Reader) (*Matrix, error) {
	c := csv.NewReader(r)
	header, err := c.Read()
	if err != nil {
		return nil, err
	}
	m := &Matrix{Names: header[1:], Hosts: len(header) - 1, Slices: 1, runs: make(map[[2]int][]run)}
	if m.Hosts > maxHost {
		return nil, fmt.Errorf("line 1: %d hosts, expected at most %d", m.Hosts, maxHost)
	}
	for i := 0; ; i++ {
		fields, err := c.Read()
		switch {
		case errors.Is(err, io.EOF) && i < m.Hosts:
			return nil, fmt.Errorf("%d rows for %d hosts: expected a square table", i, m.Hosts)
		case errors.Is(err, io.EOF):
			return m, nil
		case err != nil:
			return nil, err // has the line number
		}
		line, _ := c.FieldPos(0)
		if i >= m.Hosts || fields[0] != m.Names[i] {
			return nil, fmt.Errorf("line %d: host '%s': expected the hosts of the header, in order", line, fields[0])
		}
		for j, field := range fields[1:] {
			rtt, err := ParseRTT(field)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			if i != j && field != "" {
				m.runs[[2]int{i, j}] = []run{{0, rtt}}
			}
		}
	}
}

func readPairs(r io.Reader) (*Matrix, error) {
	m := &Matrix{runs: make(map[[2]int][]run)}
	parse := parseSlices
	b := bufio.NewReader(r)
	if header, _ := b.Peek(len("i,j,runs")); string(header) == "i,j,runs" {
		parse = func(fields []string) ([]run, error) { return parseRuns(fields[0]) }
	}
	err := Rows(b, []string{"i", "j", ""}, func(f []string) error {
		var pair [2]int
		for k := range pair {
			n, err := strconv.Atoi(f[k])
			if err != nil || n < 0 || n > maxHost {
				return fmt.Errorf("invalid host '%s': expected a number from 0 to %d", f[k], maxHost)
			}
			pair[k] = n
			m.Hosts = max(m.Hosts, n+1)
		}
		if m.runs[pair] != nil {
			return fmt.Errorf("hosts %d and %d are given twice", pair[0], pair[1])
		}
		runs, err := parse(f[2:])
		if err != nil {
			return err
		}
		if n := len(runs); n > 0 {
			m.Slices = max(m.Slices, runs[n-1].from+1)
		}
		m.runs[pair] = runs
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// parseSlices returns a run for each field.
func parseSlices(fields []string) ([]run, error) {
	if len(fields) > maxSlice {
		return nil, fmt.Errorf("%d slices, expected at most %d", len(fields), maxSlice)
	}
	runs := make([]run, len(fields))
	for i, field := range fields {
		rtt, err := ParseRTT(field)
		if err != nil {
			return nil, err
		}
		runs[i] = run{i, rtt}
	}
	return runs, nil
}

func parseRuns(text string) ([]run, error) {
	var runs []run
	for field := range strings.FieldsSeq(text) {
		from, value, ok := strings.Cut(field, ":")
		n, err := strconv.Atoi(from)
		if !ok || err != nil || n < 1 || n > maxSlice {
			return nil, fmt.Errorf("invalid run '%s': expected SLICE:MS with a slice from 1 to %d", field, maxSlice)
		}
		if value == "" {
			return nil, fmt.Errorf("invalid run '%s': expected SLICE:MS", field)
		}
		rtt, err := ParseRTT(value)
		if err != nil {
			return nil, err
		}
		if len(runs) > 0 && n-1 <= runs[len(runs)-1].from {
			return nil, fmt.Errorf("invalid run '%s': expected a slice after %d", field, runs[len(runs)-1].from+1)
		}
		runs = append(runs, run{n - 1, rtt})
	}
	return runs, nil
}
