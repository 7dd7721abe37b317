package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
)

// packets is how many packets make a measurement.
const packets = 3

// field has the latencies between the hosts of a matrix that take part: when
// sites are measured, and when clients ask.
type field struct {
	count       int
	before, now [][]float64
}

func newField(m *latencyfile.Matrix, o options) (*field, error) {
	var hosts []int
	without := strings.FieldsFunc(o.without, func(r rune) bool { return r == ',' })
	for _, name := range without {
		if !slices.Contains(m.Names, name) {
			return nil, fmt.Errorf("unknown host '%s' in -without", name)
		}
	}
	for i := range m.Hosts {
		if m.Names == nil || !slices.Contains(without, m.Names[i]) {
			hosts = append(hosts, i)
		}
	}
	if least := o.nodes + o.servers + 1; len(hosts) < least {
		return nil, fmt.Errorf("%d hosts, expected at least %d for %d nodes, %d servers and a site", len(hosts), least, o.nodes, o.servers)
	}
	if o.age && m.Slices < 2 {
		return nil, errors.New("one slice of time: remove -age, or name a file with several")
	}
	f := &field{count: len(hosts)}
	pairs := func(value func(from, to int) float64) [][]float64 {
		all := make([][]float64, len(hosts))
		for i, from := range hosts {
			all[i] = make([]float64, len(hosts))
			for j, to := range hosts {
				switch {
				case i == j:
				case m.Has(from, to):
					all[i][j] = value(from, to)
				default:
					all[i][j] = value(to, from)
				}
			}
		}
		return all
	}
	if o.age {
		f.before = pairs(func(from, to int) float64 { return m.At(from, to, 0) })
		f.now = pairs(func(from, to int) float64 { return m.At(from, to, m.Slices-1) })
		return f, nil
	}
	values := make([]float64, 0, m.Slices)
	f.now = pairs(func(from, to int) float64 {
		values = values[:0]
		for s := range m.Slices {
			if v := m.At(from, to, s); !math.IsNaN(v) {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			return latencyfile.Lost
		}
		slices.Sort(values)
		return values[len(values)/2]
	})
	f.before = f.now
	return f, nil
}

// placement is where servers stand.
type placement struct {
	name   string
	beside bool // each beside a node
}

var placements = []placement{{"beside", true}, {"elsewhere", false}}

// draw is one choice of nodes and servers among the hosts.
type draw struct {
	*field
	o       options
	random  *rand.Rand
	nodes   []int // hosts
	servers []int // hosts
	sites   []int // hosts that are neither, whatever the placement

	between  *survey.Nodes
	standing []survey.Server // servers, as the nodes know them now
}

func (f *field) draw(p placement, o options, number int) *draw {
	random := rand.New(rand.NewPCG(o.seed, uint64(number))) // #nosec G115 G404 -- a small number, no secret
	hosts := random.Perm(f.count)
	d := &draw{field: f, o: o, random: random, nodes: hosts[:o.nodes], servers: hosts[o.nodes : o.nodes+o.servers], sites: hosts[o.nodes+o.servers:]}
	var pools [][]int
	if p.beside {
		d.servers = d.nodes[:o.servers]
		pools = [][]int{make([]int, o.servers)}
		for i := range pools[0] {
			pools[0][i] = i
		}
	}
	latency, members := make(survey.Latencies, len(d.nodes)), make([]int, len(d.nodes))
	for i, from := range d.nodes {
		members[i] = i
		latency[i] = make([]float64, len(d.nodes))
		for j, to := range d.nodes {
			if i != j {
				latency[i][j] = d.measure(f.before[from][to])
			}
		}
	}
	d.between = survey.NewNodes(latency, members, pools)
	for j := range d.servers {
		s := survey.Server{Latency: make([]float64, len(d.nodes)), Beside: survey.NoNode}
		if p.beside {
			s.Beside = j
		}
		d.standing = append(d.standing, s)
	}
	for i, from := range d.nodes {
		for j, to := range d.servers {
			d.standing[j].Latency[i] = d.measure(f.now[from][to])
		}
	}
	return d
}

// measure returns a latency as packets measure it.
func (d *draw) measure(rtt float64) float64 {
	if d.o.jitter == 0 {
		return rtt
	}
	least := math.Inf(1)
	for range packets {
		least = min(least, d.random.ExpFloat64())
	}
	return rtt + d.o.jitter*least
}

// probe returns what a node measures of a site.
func (d *draw) probe(node, site int) float64 { return d.measure(d.before[d.nodes[node]][site]) }
