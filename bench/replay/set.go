package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// series is one server of a set over time.
type series struct {
	name  string
	rtt   []float64          // what a client would have had, or lost
	seen  []float64          // what the policies see of it
	truth []float64          // centred median
	est   []ranking.Estimate // what the server would have made of seen, by the end of the slot
	up    []bool             // eligible by the end of the slot; nil = always
}

// set is a service: servers whose slots are aligned.
type set []*series

// group is what one file gives.
type group struct {
	name  string
	about string
	start time.Time // zero if traces were only aligned
	step  time.Duration
	slots int
	sets  []set
}

const (
	setSize  = 5
	nearest  = 8
	warmup   = 40
	minTrace = 5000
	hardSets = 200

	truthAtlas = 15

	// The values of the Seattle matrix are carried forward for about seven slices of 15.7 s, which flatters those who trust the last sample: every seventh slice is used.
	// 98 slots remain of 3 hours.
	truthSeattle = 21
	seattleEvery = 7
	seattleSlice = 15700 * time.Millisecond
	seattleSets  = 60
)

// loadAtlas makes sets that are hard to tell apart: a trace and 4 of the 8 that are nearest by median.
func loadAtlas(file string, o options) (*group, error) {
	t, err := open(file, readTraces)
	if err != nil {
		return nil, err
	}
	var all []*series
	var medians []float64
	for _, p := range t.paths {
		if len(p.rtt) >= minTrace {
			p.rtt = p.rtt[:minTrace]
			if m := medianOf(slices.Clone(p.rtt)); !math.IsNaN(m) {
				all = append(all, newSeries(p, truthAtlas, o, uint64(len(all))))
				medians = append(medians, m)
			}
		}
	}
	if len(all) < setSize {
		return nil, fmt.Errorf("%s: %d traces have at least %d samples, %d are needed", file, len(all), minTrace, setSize)
	}
	rnd := rand.New(rand.NewPCG(o.seed, 1))
	g := &group{name: "atlas-hard", step: t.step, slots: minTrace}
	for range hardSets {
		anchor := rnd.IntN(len(all))
		var others []int
		for i := range all {
			if i != anchor {
				others = append(others, i)
			}
		}
		slices.SortStableFunc(others, func(a, b int) int {
			return cmp.Compare(math.Abs(medians[a]-medians[anchor]), math.Abs(medians[b]-medians[anchor]))
		})
		others = others[:min(nearest, len(others))]
		rnd.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		s := set{all[anchor]}
		for _, i := range others[:setSize-1] {
			s = append(s, all[i])
		}
		rnd.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		g.sets = append(g.sets, s)
	}
	g.about = fmt.Sprintf("%d sets of %d of %d traces, %d slots of %s", len(g.sets), setSize, len(all), g.slots, g.step)
	return g, nil
}

// loadSeattle makes sets of 5 random nodes as servers, each seen from every other node.
func loadSeattle(file string, o options) (*group, error) {
	m, err := open(file, readMatrix)
	if err != nil {
		return nil, err
	}
	if m.nodes <= setSize {
		return nil, fmt.Errorf("%s: %d nodes, at least %d are needed", file, m.nodes, setSize+1)
	}
	rnd := rand.New(rand.NewPCG(o.seed, 2))
	g := &group{name: "seattle", step: seattleEvery * seattleSlice, slots: (m.slices + seattleEvery - 1) / seattleEvery}
	if g.slots <= warmup {
		return nil, fmt.Errorf("%s: %d slices, more than %d are needed", file, m.slices, warmup*seattleEvery)
	}
	made := make(map[[2]int]*series)
	for range seattleSets {
		nodes := rnd.Perm(m.nodes)
	views:
		for _, from := range nodes[setSize:] {
			var s set
			for _, to := range nodes[:setSize] {
				pair := [2]int{from, to}
				if made[pair] == nil {
					p := m.path(from, to, seattleEvery)
					if p == nil {
						continue views
					}
					made[pair] = newSeries(p, truthSeattle, o, uint64(from*m.nodes+to))
				}
				s = append(s, made[pair])
			}
			g.sets = append(g.sets, s)
		}
	}
	if len(g.sets) == 0 {
		return nil, fmt.Errorf("%s: no node has latencies to %d others", file, setSize)
	}
	g.about = fmt.Sprintf("%d sets of %d of %d nodes, %d slots of %s", len(g.sets), setSize, m.nodes, g.slots, g.step)
	return g, nil
}

// newSeries hides a share of a path's samples and makes estimates of the rest: a slot is a round.
func newSeries(p *path, truth int, o options, number uint64) *series {
	s := &series{name: p.name, rtt: p.rtt, seen: p.rtt, truth: centred(p.rtt, truth)}
	if o.loss > 0 {
		rnd := rand.New(rand.NewPCG(o.seed, 1000+number))
		s.seen = slices.Clone(p.rtt)
		for i := range s.seen {
			if rnd.Float64() < o.loss {
				s.seen[i] = lost
			}
		}
	}
	var e ranking.Estimator
	s.est = make([]ranking.Estimate, len(s.seen))
	at := time.Unix(0, 0)
	for i, rtt := range s.seen {
		if !math.IsNaN(rtt) {
			e.Add(at, time.Duration(rtt*float64(time.Millisecond)))
		}
		at = at.Add(ranking.Round)
		s.est[i] = e.Estimate(at)
	}
	return s
}

// A server of one's own is taken as down and up as the server takes it by default, if what is lost was met by silence: a trace does not tell that from a refusal, of which
// four are enough.
const (
	fall = 5
	rise = 2
)

// loadOwn makes one set of one's own servers, in rounds as the server has them.
func loadOwn(file string, o options) (*group, error) {
	samples, err := open(file, readSamples)
	if err != nil {
		return nil, err
	}
	if len(samples) == 0 {
		return nil, fmt.Errorf("%s: no samples", file)
	}
	start := samples[0].at.Truncate(ranking.Round)
	span := samples[len(samples)-1].at.Sub(start)
	if span/ranking.Round >= maxRounds {
		return nil, fmt.Errorf("%s: the trace spans %s, at most %d rounds of %s can be replayed", file, span, maxRounds, ranking.Round)
	}
	g := &group{name: "own", start: start, step: ranking.Round, slots: int(span/ranking.Round) + 1}
	if g.slots <= warmup {
		return nil, fmt.Errorf("%s: the trace spans %d rounds of %s, more than %d are needed", file, g.slots, ranking.Round, warmup)
	}
	byName := make(map[string][]sample)
	for _, s := range samples {
		byName[s.server] = append(byName[s.server], s)
	}
	if len(byName) < 2 {
		return nil, fmt.Errorf("%s: only one server, nothing to choose from", file)
	}
	var s set
	for _, name := range slices.Sorted(maps.Keys(byName)) { // losses are drawn in this order
		s = append(s, newOwnSeries(name, byName[name], g, o, uint64(len(s))))
	}
	g.sets = []set{s}
	g.about = fmt.Sprintf("%d servers, %d rounds of %s from %s", len(s), g.slots, g.step, start.UTC().Format(time.RFC3339))
	return g, nil
}

// maxRounds bounds a trace of one's own to half a year.
const maxRounds = 183 * 24 * 3600 / 5

func newOwnSeries(name string, samples []sample, g *group, o options, number uint64) *series {
	s := &series{
		name: name,
		rtt:  make([]float64, g.slots),
		seen: make([]float64, g.slots),
		est:  make([]ranking.Estimate, g.slots),
		up:   make([]bool, g.slots),
	}
	rnd := rand.New(rand.NewPCG(o.seed, 1000+number))
	var e ranking.Estimator
	var all, kept []float64
	up, failed, passed := true, 0, 0
	for i := range g.slots {
		end := g.start.Add(time.Duration(i+1) * ranking.Round)
		all, kept = all[:0], kept[:0]
		for ; len(samples) > 0 && samples[0].at.Before(end); samples = samples[1:] {
			rtt := samples[0].rtt
			if !math.IsNaN(rtt) {
				all = append(all, rtt)
				if o.loss > 0 && rnd.Float64() < o.loss {
					rtt = lost
				}
			}
			if math.IsNaN(rtt) {
				failed, passed = failed+1, 0
			} else {
				failed, passed = 0, passed+1
				kept = append(kept, rtt)
				e.Add(samples[0].at, time.Duration(rtt*float64(time.Millisecond)))
			}
			switch {
			case failed >= fall:
				up = false
			case passed >= rise:
				up = true
			}
		}
		s.rtt[i], s.seen[i] = medianOf(all), medianOf(kept)
		s.est[i] = e.Estimate(end)
		s.up[i] = up
	}
	s.truth = centred(s.rtt, truthAtlas)
	return s
}

// centred returns the medians of w values around each.
func centred(x []float64, w int) []float64 {
	out := make([]float64, len(x))
	buf := make([]float64, 0, w)
	for i := range x {
		buf = append(buf[:0], x[max(0, i-w/2):min(len(x), i+w/2+1)]...)
		out[i] = medianOf(buf)
	}
	return out
}

// medianOf returns the median of the values that are not lost, or lost. It sorts its argument.
func medianOf(x []float64) float64 {
	slices.Sort(x) // NaN first
	for len(x) > 0 && math.IsNaN(x[0]) {
		x = x[1:]
	}
	if len(x) == 0 {
		return lost
	}
	m := len(x) / 2
	if len(x)%2 == 1 {
		return x[m]
	}
	return (x[m-1] + x[m]) / 2
}

var errNoSet = errors.New("there is no such set")
