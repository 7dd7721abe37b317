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

// Matrix holds the paths between cities. It is immutable: With and WithLoss
// return changed copies.
type Matrix struct {
	cities []string
	index  map[string]int
	path   [][]path // symmetric
}

// path is the path between two cities, in each direction.
type path struct {
	rtt  time.Duration
	loss float64 // share of the packets lost in each direction, 0 to 1
}

// NewMatrix returns the Matrix of round-trip times in milliseconds. It takes
// the mean of both directions of a path, since a round trip has both, and Local
// inside a city.
func NewMatrix(cities []string, rtt [][]float64) (*Matrix, error) {
	m := &Matrix{cities: cities, index: make(map[string]int, len(cities)), path: make([][]path, len(cities))}
	for i, city := range cities {
		if _, twice := m.index[city]; twice || city == "" {
			return nil, fmt.Errorf("city '%s' is given twice, or has no name", city)
		}
		m.index[city] = i
	}
	if len(rtt) != len(cities) {
		return nil, fmt.Errorf("got %d cities and %d rows, expected the same number", len(cities), len(rtt))
	}
	for i, row := range rtt {
		if len(row) != len(cities) {
			return nil, fmt.Errorf("%s: got %d cities and %d columns, expected the same number", cities[i], len(cities), len(row))
		}
		m.path[i] = make([]path, len(cities))
	}
	for i := range cities {
		for j := range i {
			ms := (rtt[i][j] + rtt[j][i]) / 2
			if !(ms >= 0 && ms <= 60_000) { // also not a number
				return nil, fmt.Errorf("%s to %s: invalid round-trip time %g ms, expected 0 to 60000", cities[i], cities[j], ms)
			}
			m.path[i][j].rtt = time.Duration(ms * float64(time.Millisecond))
			m.path[j][i] = m.path[i][j]
		}
		m.path[i][i].rtt = Local
	}
	return m, nil
}

// ReadMatrix reads a Matrix from a CSV file that is compressed by gzip: a
// header with an empty field and the names of the cities, then a row for each
// city with its name and the round-trip times in milliseconds.
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
		return nil, errors.New("expected a header with the names of cities")
	}
	cities := rows[0][1:]
	rtt := make([][]float64, 0, len(cities))
	for i, row := range rows[1:] {
		if i < len(cities) && row[0] != cities[i] {
			return nil, fmt.Errorf("row %d is %s, expected %s as in the header", i+1, row[0], cities[i])
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

// Has reports whether m has all the cities.
func (m *Matrix) Has(cities ...string) bool {
	for _, city := range cities {
		if _, ok := m.index[city]; !ok {
			return false
		}
	}
	return true
}

// RTT returns the round-trip time between two cities of m.
func (m *Matrix) RTT(a, b string) time.Duration { return m.path[m.mustIndex(a)][m.mustIndex(b)].rtt }

// With returns a copy of m in which the round-trip time between two cities is
// rtt.
func (m *Matrix) With(a, b string, rtt time.Duration) *Matrix {
	return m.change(a, b, func(p *path) { p.rtt = rtt })
}

// WithLoss returns a copy of m in which a share of the packets between two
// cities is lost, in each direction.
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

// Nearest returns the city with the lowest round-trip time to from, and the
// distance to the second nearest.
func (m *Matrix) Nearest(from string, candidates []string) (city string, gap time.Duration) {
	sorted := slices.Clone(candidates)
	slices.SortStableFunc(sorted, func(a, b string) int { return int(m.RTT(from, a) - m.RTT(from, b)) })
	if len(sorted) > 1 {
		gap = m.RTT(from, sorted[1]) - m.RTT(from, sorted[0])
	}
	return sorted[0], gap
}

func (m *Matrix) mustIndex(city string) int {
	i, ok := m.index[city]
	if !ok {
		panic("no city in the matrix: " + city)
	}
	return i
}
