package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

const (
	seattleSlice = 15700 * time.Millisecond
	seattleSets  = 60
	seattleTruth = 21 // slots of a centered median

	// The values of the Seattle matrix are repeated for about seven slices,
	// which favors policies that trust the last sample. So a slot is seven
	// slices; 98 slots remain of 3 hours.
	seattleEvery = 7

	// Bounds of a matrix, against mistakes.
	maxNode  = 10000
	maxSlice = 1000000
)

// matrix is the latency between nodes over time, in runs of equal values.
type matrix struct {
	nodes  int
	slices int
	runs   map[[2]int][]latencyRun // by the numbers of two nodes
}

// latencyRun is a latency that holds until the next run.
type latencyRun struct {
	from int // slice, from 0
	rtt  float64
}

// readMatrix reads the columns i, j, runs. The runs "1:170 3:180" are 170 ms
// from slice 1 on and 180 ms from slice 3 on.
func readMatrix(r io.Reader) (*matrix, error) {
	m := &matrix{runs: make(map[[2]int][]latencyRun)}
	err := readRows(r, []string{"i", "j", "runs"}, func(f []string) error {
		var pair [2]int
		for k := range pair {
			n, err := strconv.Atoi(f[k])
			if err != nil || n < 0 || n > maxNode {
				return fmt.Errorf("invalid node '%s': expected a number from 0 to %d", f[k], maxNode)
			}
			pair[k] = n
			m.nodes = max(m.nodes, n+1)
		}
		if m.runs[pair] != nil {
			return fmt.Errorf("nodes %d and %d are given twice", pair[0], pair[1])
		}
		runs, err := parseRuns(f[2])
		if err != nil {
			return err
		}
		if n := len(runs); n > 0 {
			m.slices = max(m.slices, runs[n-1].from+1)
		}
		m.runs[pair] = runs
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func parseRuns(text string) ([]latencyRun, error) {
	var runs []latencyRun
	for field := range strings.FieldsSeq(text) {
		from, value, ok := strings.Cut(field, ":")
		n, err := strconv.Atoi(from)
		if !ok || err != nil || n < 1 || n > maxSlice {
			return nil, fmt.Errorf("invalid run '%s': expected SLICE:MS with a slice from 1 to %d", field, maxSlice)
		}
		if value == "" {
			return nil, fmt.Errorf("invalid run '%s': expected SLICE:MS", field)
		}
		rtt, err := parseRTT(value)
		if err != nil {
			return nil, err
		}
		if len(runs) > 0 && n-1 <= runs[len(runs)-1].from {
			return nil, fmt.Errorf("invalid run '%s': expected a slice after %d", field, runs[len(runs)-1].from+1)
		}
		runs = append(runs, latencyRun{n - 1, rtt})
	}
	return runs, nil
}

// path returns the trace from node i to node j at every n-th slice, or nil if
// the matrix has no latency between them.
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

// loadSeattle makes sets of 5 random nodes as servers. Each of the other nodes
// makes one set of its latencies to them.
func loadSeattle(file string, o options) (*group, error) {
	m, err := readFile(file, readMatrix)
	if err != nil {
		return nil, err
	}
	if m.nodes <= setSize {
		return nil, fmt.Errorf("%s: %d nodes, expected at least %d", file, m.nodes, setSize+1)
	}
	rnd := rand.New(rand.NewPCG(o.seed, 2))
	g := &group{name: "seattle", step: seattleEvery * seattleSlice, slots: (m.slices + seattleEvery - 1) / seattleEvery}
	if g.slots <= warmup {
		return nil, fmt.Errorf("%s: %d slices, expected more than %d", file, m.slices, warmup*seattleEvery)
	}
	paths := make(map[[2]int]*series)
	for range seattleSets {
		nodes := rnd.Perm(m.nodes)
	nextNode:
		for _, from := range nodes[setSize:] {
			var s set
			for _, to := range nodes[:setSize] {
				pair := [2]int{from, to}
				if paths[pair] == nil {
					p := m.path(from, to, seattleEvery)
					if p == nil {
						continue nextNode
					}
					paths[pair] = newSeries(p, seattleTruth, o, uint64(from*m.nodes+to))
				}
				s = append(s, paths[pair])
			}
			g.sets = append(g.sets, s)
		}
	}
	if len(g.sets) == 0 {
		return nil, fmt.Errorf("%s: no node has latencies to %d others", file, setSize)
	}
	g.description = fmt.Sprintf("%d sets of %d of %d nodes, %d slots of %s", len(g.sets), setSize, m.nodes, g.slots, g.step)
	return g, nil
}
