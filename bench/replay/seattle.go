package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
)

const (
	seattleSlice = 15700 * time.Millisecond
	seattleSets  = 60
	seattleTruth = 21 // slots of a centered median

	// The values of the Seattle matrix are repeated for about seven slices,
	// which favors policies that trust the last sample. So a slot is seven
	// slices; 98 slots remain of 3 hours.
	seattleEvery = 7
)

// pathOf returns the trace from one host to another at every n-th slice, or nil
// if the matrix has no latency between them.
func pathOf(m *latencyfile.Matrix, i, j, n int) *path {
	if !m.Has(i, j) {
		return nil
	}
	p := &path{name: strconv.Itoa(j)}
	for s := 0; s < m.Slices; s += n {
		p.rtt = append(p.rtt, m.At(i, j, s))
	}
	return p
}

// loadSeattle makes sets of 5 random nodes as servers. Each of the other nodes
// makes one set of its latencies to them.
func loadSeattle(file string, o options) (*group, error) {
	m, err := latencyfile.Read(file, latencyfile.ReadMatrix)
	if err != nil {
		return nil, err
	}
	if m.Hosts <= setSize {
		return nil, fmt.Errorf("%s: %d nodes, expected at least %d", file, m.Hosts, setSize+1)
	}
	rnd := rand.New(rand.NewPCG(o.seed, 2))
	g := &group{name: "seattle", step: seattleEvery * seattleSlice, slots: (m.Slices + seattleEvery - 1) / seattleEvery}
	if g.slots <= warmup {
		return nil, fmt.Errorf("%s: %d slices, expected more than %d", file, m.Slices, warmup*seattleEvery)
	}
	paths := make(map[[2]int]*series)
	for range seattleSets {
		nodes := rnd.Perm(m.Hosts)
	nextNode:
		for _, from := range nodes[setSize:] {
			var s set
			for _, to := range nodes[:setSize] {
				pair := [2]int{from, to}
				if paths[pair] == nil {
					p := pathOf(m, from, to, seattleEvery)
					if p == nil {
						continue nextNode
					}
					paths[pair] = newSeries(p, seattleTruth, o, uint64(from*m.Hosts+to))
				}
				s = append(s, paths[pair])
			}
			g.sets = append(g.sets, s)
		}
	}
	if len(g.sets) == 0 {
		return nil, fmt.Errorf("%s: no node has latencies to %d others", file, setSize)
	}
	g.description = fmt.Sprintf("%d sets of %d of %d nodes, %d slots of %s", len(g.sets), setSize, m.Hosts, g.slots, g.step)
	return g, nil
}
