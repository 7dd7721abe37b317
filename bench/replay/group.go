package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

const (
	setSize = 5  // servers of a service that is made of traces
	warmup  = 40 // first slots of a set, which are not counted
)

// path is the trace of one path, with samples at even intervals.
type path struct {
	name string
	rtt  []float64 // in milliseconds, or lost
}

// series is one server of a set over time. Latencies are in milliseconds, or
// lost.
type series struct {
	name     string
	rtt      []float64          // what a client would have got
	visible  []float64          // the part of rtt that the policies know
	truth    []float64          // centered median of rtt
	est      []ranking.Estimate // at the end of the slot, from visible
	eligible []bool             // at the end of the slot; nil: always
}

// set is a service: servers with aligned slots.
type set []*series

// group is the sets that are made of one file.
type group struct {
	name        string
	description string
	start       time.Time // zero if the slots have no absolute time
	step        time.Duration
	slots       int
	sets        []set
}

// newSeries makes estimates with one round for each slot. It hides a share of
// the samples, and takes the medians of truth slots as the truth. The losses of
// each number are drawn independently.
func newSeries(p *path, truth int, o options, number uint64) *series {
	s := &series{name: p.name, rtt: p.rtt, visible: p.rtt, truth: centeredMedians(p.rtt, truth)}
	if o.loss > 0 {
		rnd := lossRand(o, number)
		s.visible = slices.Clone(p.rtt)
		for i := range s.visible {
			if rnd.Float64() < o.loss {
				s.visible[i] = latencyfile.Lost
			}
		}
	}
	var e ranking.Estimator
	s.est = make([]ranking.Estimate, len(s.visible))
	at := time.Unix(0, 0)
	for i, rtt := range s.visible {
		if !math.IsNaN(rtt) {
			e.Add(at, time.Duration(rtt*float64(time.Millisecond)))
		}
		at = at.Add(ranking.Round)
		s.est[i] = e.Estimate(at)
	}
	return s
}

func lossRand(o options, number uint64) *rand.Rand {
	return rand.New(rand.NewPCG(o.seed, 1000+number))
}

// centeredMedians returns, for each value, the median of the w values around
// it.
func centeredMedians(x []float64, w int) []float64 {
	out := make([]float64, len(x))
	buf := make([]float64, 0, w)
	for i := range x {
		buf = append(buf[:0], x[max(0, i-w/2):min(len(x), i+w/2+1)]...)
		out[i] = medianOf(buf)
	}
	return out
}

// medianOf returns the median of the values that are not lost, or lost. It
// sorts its argument.
func medianOf(x []float64) float64 {
	slices.Sort(x) // NaN first
	for len(x) > 0 && math.IsNaN(x[0]) {
		x = x[1:]
	}
	if len(x) == 0 {
		return latencyfile.Lost
	}
	m := len(x) / 2
	if len(x)%2 == 1 {
		return x[m]
	}
	return (x[m-1] + x[m]) / 2
}
