package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
)

const (
	atlasMinSamples = 5000 // of a trace; further samples are not used
	atlasSets       = 200
	atlasNearest    = 8  // traces of similar median that a set is drawn from
	atlasTruth      = 15 // slots of a centered median

	maxStep = 24 * 3600 // seconds between two samples
)

// traces are paths that were sampled at the same interval.
type traces struct {
	paths []*path
	step  time.Duration
}

// readTraces reads the columns trace, epoch_s, rtt_ms. Samples keep the order
// of the file; the interval is the median one.
func readTraces(r io.Reader) (*traces, error) {
	t := new(traces)
	byName := make(map[string]*path)
	last := make(map[string]float64)
	var steps []float64
	err := latencyfile.Rows(r, []string{"trace", "epoch_s", "rtt_ms"}, func(f []string) error {
		at, err := strconv.ParseFloat(f[1], 64)
		if err != nil || !(math.Abs(at) < latencyfile.MaxEpoch) {
			return fmt.Errorf("invalid time '%s': expected seconds since 1970", f[1])
		}
		rtt, err := latencyfile.ParseRTT(f[2])
		if err != nil {
			return err
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

// loadAtlas makes sets in which the choice is hard: a trace and 4 of the 8
// traces whose medians are closest to its own.
func loadAtlas(file string, o options) (*group, error) {
	t, err := latencyfile.Read(file, readTraces)
	if err != nil {
		return nil, err
	}
	var all []*series
	var medians []float64
	for _, p := range t.paths {
		if len(p.rtt) >= atlasMinSamples {
			p.rtt = p.rtt[:atlasMinSamples]
			if m := medianOf(slices.Clone(p.rtt)); !math.IsNaN(m) {
				all = append(all, newSeries(p, atlasTruth, o, uint64(len(all))))
				medians = append(medians, m)
			}
		}
	}
	if len(all) < setSize {
		return nil, fmt.Errorf("%s: %d traces have at least %d samples, expected %d traces", file, len(all), atlasMinSamples, setSize)
	}
	rnd := rand.New(rand.NewPCG(o.seed, 1))
	g := &group{name: "atlas-hard", step: t.step, slots: atlasMinSamples}
	for range atlasSets {
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
		others = others[:min(atlasNearest, len(others))]
		rnd.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		s := set{all[anchor]}
		for _, i := range others[:setSize-1] {
			s = append(s, all[i])
		}
		rnd.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		g.sets = append(g.sets, s)
	}
	g.description = fmt.Sprintf("%d sets of %d of %d traces, %d slots of %s", len(g.sets), setSize, len(all), g.slots, g.step)
	return g, nil
}
