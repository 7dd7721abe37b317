package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

const (
	// Losses and successes in a row after which a server is down or up, as in
	// latencyprobe by default when a loss is a timeout. A trace does not say
	// that a connection was refused, for which four losses are enough.
	fall = 5
	rise = 2

	ownTruth = 15 // slots of a centered median

	maxRounds = 183 * 24 * 3600 / 5 // half a year
)

// sample is one probe of a server.
type sample struct {
	at     time.Time
	server string
	rtt    float64 // milliseconds, or lost
}

// readSamples reads the columns time, server, rtt_ms and returns the samples in
// order of time.
func readSamples(r io.Reader) ([]sample, error) {
	var samples []sample
	names := make(map[string]string) // one copy of each name
	err := latencyfile.Rows(r, []string{"time", "server", "rtt_ms"}, func(f []string) error {
		at, err := strconv.ParseFloat(f[0], 64)
		if err != nil || !(at >= 0 && at < latencyfile.MaxEpoch) {
			return fmt.Errorf("invalid time '%s': expected seconds since 1970", f[0])
		}
		if f[1] == "" {
			return errors.New("sample without a server")
		}
		name, ok := names[f[1]]
		if !ok {
			name = strings.Clone(f[1])
			names[name] = name
		}
		rtt, err := latencyfile.ParseRTT(f[2])
		if err != nil {
			return err
		}
		second, fraction := math.Modf(at)
		samples = append(samples, sample{time.Unix(int64(second), int64(fraction*1e9)), name, rtt})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(samples, func(a, b sample) int { return a.at.Compare(b.at) })
	return samples, nil
}

// loadOwn makes one set of all servers in a trace, in the rounds of the server.
func loadOwn(file string, o options) (*group, error) {
	samples, err := latencyfile.Read(file, readSamples)
	if err != nil {
		return nil, err
	}
	if len(samples) == 0 {
		return nil, fmt.Errorf("%s: no samples", file)
	}
	start := samples[0].at.Truncate(ranking.Round)
	length := samples[len(samples)-1].at.Sub(start)
	if length/ranking.Round >= maxRounds {
		return nil, fmt.Errorf("%s: trace of %s, expected at most %d rounds of %s", file, length, maxRounds, ranking.Round)
	}
	g := &group{name: "own", start: start, step: ranking.Round, slots: int(length/ranking.Round) + 1}
	if g.slots <= warmup {
		return nil, fmt.Errorf("%s: trace of %d rounds of %s, expected more than %d", file, g.slots, ranking.Round, warmup)
	}
	byServer := make(map[string][]sample)
	for _, s := range samples {
		byServer[s.server] = append(byServer[s.server], s)
	}
	if len(byServer) < 2 {
		return nil, fmt.Errorf("%s: trace of one server, expected at least two to choose from", file)
	}
	var s set
	for _, name := range slices.Sorted(maps.Keys(byServer)) { // losses are drawn in this order
		s = append(s, newOwnSeries(name, byServer[name], g, o, uint64(len(s))))
	}
	g.sets = []set{s}
	g.description = fmt.Sprintf("%d servers, %d rounds of %s from %s", len(s), g.slots, g.step, start.UTC().Format(time.RFC3339))
	return g, nil
}

// newOwnSeries makes estimates of the samples of one server and decides when it
// is down.
func newOwnSeries(name string, samples []sample, g *group, o options, number uint64) *series {
	s := &series{
		name:     name,
		rtt:      make([]float64, g.slots),
		visible:  make([]float64, g.slots),
		est:      make([]ranking.Estimate, g.slots),
		eligible: make([]bool, g.slots),
	}
	rnd := lossRand(o, number)
	var e ranking.Estimator
	var all, visible []float64 // latencies of one round
	up, losses, successes := true, 0, 0
	for i := range g.slots {
		end := g.start.Add(time.Duration(i+1) * ranking.Round)
		all, visible = all[:0], visible[:0]
		for ; len(samples) > 0 && samples[0].at.Before(end); samples = samples[1:] {
			rtt := samples[0].rtt
			if !math.IsNaN(rtt) {
				all = append(all, rtt)
				if o.loss > 0 && rnd.Float64() < o.loss {
					rtt = latencyfile.Lost
				}
			}
			if math.IsNaN(rtt) {
				losses, successes = losses+1, 0
			} else {
				losses, successes = 0, successes+1
				visible = append(visible, rtt)
				e.Add(samples[0].at, time.Duration(rtt*float64(time.Millisecond)))
			}
			switch {
			case losses >= fall:
				up = false
			case successes >= rise:
				up = true
			}
		}
		s.rtt[i], s.visible[i] = medianOf(all), medianOf(visible)
		s.est[i] = e.Estimate(end)
		s.eligible[i] = up
	}
	s.truth = centeredMedians(s.rtt, ownTruth)
	return s
}
