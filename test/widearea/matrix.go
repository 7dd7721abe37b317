package widearea

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"
)

// Local is the round-trip time between two hosts in one city.
const Local = time.Millisecond

// Matrix holds the paths between cities. It does not change once made: With and WithLoss return changed copies.
type Matrix struct {
	cities []string
	index  map[string]int
	path   [][]path // symmetric
}

// path is one way to go; the way back is the same.
type path struct {
	rtt  time.Duration
	loss float64 // share of packets lost on each way, from 0 to 1
}

// NewMatrix returns a Matrix of cities from their round-trip times in milliseconds. The two directions of a path are averaged, as a round trip goes over both; what
// the table says of a city and itself is replaced by Local.
func NewMatrix(cities []string, rtt [][]float64) (*Matrix, error) {
	m := &Matrix{cities: cities, index: make(map[string]int, len(cities)), path: make([][]path, len(cities))}
	for i, city := range cities {
		if _, twice := m.index[city]; twice || city == "" {
			return nil, fmt.Errorf("city '%s' is given twice or has no name", city)
		}
		m.index[city] = i
	}
	if len(rtt) != len(cities) {
		return nil, fmt.Errorf("%d cities, but %d rows", len(cities), len(rtt))
	}
	for i, row := range rtt {
		if len(row) != len(cities) {
			return nil, fmt.Errorf("%s: %d cities, but %d columns", cities[i], len(cities), len(row))
		}
		m.path[i] = make([]path, len(cities))
	}
	for i := range cities {
		for j := range i {
			ms := (rtt[i][j] + rtt[j][i]) / 2
			if !(ms >= 0 && ms <= 60_000) { // not a number is neither
				return nil, fmt.Errorf("%s to %s: %g ms is no round-trip time", cities[i], cities[j], ms)
			}
			m.path[i][j].rtt = time.Duration(ms * float64(time.Millisecond))
			m.path[j][i] = m.path[i][j]
		}
		m.path[i][i].rtt = Local
	}
	return m, nil
}

// ReadMatrix reads a Matrix from a gzipped CSV file: a header row with an empty field and the names of the cities, then for each city a row with its name and the
// round-trip times in milliseconds.
func ReadMatrix(name string) (*Matrix, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer z.Close()
	m, err := parseMatrix(z)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func parseMatrix(r io.Reader) (*Matrix, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || len(rows[0]) < 2 {
		return nil, errors.New("no header row with cities")
	}
	cities := rows[0][1:]
	rtt := make([][]float64, 0, len(cities))
	for i, row := range rows[1:] {
		if i < len(cities) && row[0] != cities[i] {
			return nil, fmt.Errorf("row %d is %s, but column %d is %s", i+1, row[0], i+1, cities[i])
		}
		values := make([]float64, 0, len(cities))
		for _, field := range row[1:] {
			ms, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", row[0], err)
			}
			values = append(values, ms)
		}
		rtt = append(rtt, values)
	}
	return NewMatrix(cities, rtt)
}

// Has reports whether m knows all the cities.
func (m *Matrix) Has(cities ...string) bool {
	for _, city := range cities {
		if _, ok := m.index[city]; !ok {
			return false
		}
	}
	return true
}

// RTT returns the round-trip time between two cities that m has.
func (m *Matrix) RTT(a, b string) time.Duration { return m.path[m.mustIndex(a)][m.mustIndex(b)].rtt }

// With returns a copy of m in which the round-trip time between two cities is rtt.
func (m *Matrix) With(a, b string, rtt time.Duration) *Matrix {
	return m.change(a, b, func(p *path) { p.rtt = rtt })
}

// WithLoss returns a copy of m in which a share of packets is lost each way between two cities.
func (m *Matrix) WithLoss(a, b string, share float64) *Matrix {
	return m.change(a, b, func(p *path) { p.loss = share })
}

func (m *Matrix) change(a, b string, f func(*path)) *Matrix {
	i, j := m.mustIndex(a), m.mustIndex(b)
	next := &Matrix{cities: m.cities, index: m.index, path: slices.Clone(m.path)}
	next.path[i] = slices.Clone(next.path[i])
	f(&next.path[i][j])
	if i != j {
		next.path[j] = slices.Clone(next.path[j])
		next.path[j][i] = next.path[i][j]
	}
	return next
}

// Nearest returns the city of those given with the lowest round-trip time from another one, and by how much the next one is farther.
func (m *Matrix) Nearest(from string, among []string) (city string, gap time.Duration) {
	sorted := slices.Clone(among)
	slices.SortStableFunc(sorted, func(a, b string) int { return int(m.RTT(from, a) - m.RTT(from, b)) })
	if len(sorted) > 1 {
		gap = m.RTT(from, sorted[1]) - m.RTT(from, sorted[0])
	}
	return sorted[0], gap
}

func (m *Matrix) mustIndex(city string) int {
	i, ok := m.index[city]
	if !ok {
		panic("the matrix has no city " + city)
	}
	return i
}
