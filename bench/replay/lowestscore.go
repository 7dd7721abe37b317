package main

import (
	"math"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
)

// lowestScore computes a score for each server, and replaces the chosen server
// by the one with the lowest score if that is lower by enough.
type lowestScore struct {
	update  func(score, rtt float64, history []float64) float64
	replace func(chosen, lowest float64) bool

	score   []float64   // by server; lost: none
	history [][]float64 // by server, the last 9 samples
	current int
	chosen  bool
}

func (p *lowestScore) choose(o *observation) int {
	if p.score == nil {
		p.score = make([]float64, len(o.rtt))
		p.history = make([][]float64, len(o.rtt))
		for i := range p.score {
			p.score[i] = latencyfile.Lost
		}
	}
	lowest := -1
	for i, rtt := range o.rtt {
		if !math.IsNaN(rtt) {
			h := p.history[i]
			if len(h) == 9 {
				h = append(h[:0], h[1:]...)
			}
			p.history[i] = append(h, rtt)
			p.score[i] = p.update(p.score[i], rtt, p.history[i])
		}
		if o.eligible[i] && !math.IsNaN(p.score[i]) && (lowest < 0 || p.score[i] < p.score[lowest]) {
			lowest = i
		}
	}
	if lowest >= 0 && (!p.chosen || !o.eligible[p.current] || p.replace(p.score[p.current], p.score[lowest])) {
		p.current, p.chosen = lowest, true
	}
	return p.current
}

// Scores.

func lastSample(_, rtt float64, _ []float64) float64 { return rtt }

func ewma(score, rtt float64, _ []float64) float64 {
	if math.IsNaN(score) {
		return rtt
	}
	return score + 0.2*(rtt-score)
}

func median9(_, _ float64, history []float64) float64 {
	var sorted [9]float64
	return medianOf(sorted[:copy(sorted[:], history)])
}

// Conditions to replace the chosen server.

func never(_, _ float64) bool                    { return false }
func lower(chosen, lowest float64) bool          { return lowest < chosen }
func lowerByOne(chosen, lowest float64) bool     { return lowest < chosen-1 }
func lowerByPercent(chosen, lowest float64) bool { return lowest < 0.9*chosen && lowest < chosen-5 }
