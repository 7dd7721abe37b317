// Package ranking turns latency samples into estimates and estimates into a ranking that keeps still when nothing has changed.
//
// It is pure: the clock is passed in, and nothing here starts a goroutine or reads a file. The server and the replay of recorded traces run the same code.
package ranking

import (
	"math"
	"slices"
	"time"
)

// Round is the length of a decision round. Samples are gathered per round and rules count rounds, so that probing faster does not switch sooner.
const Round = 5 * time.Second

const (
	// window is how many rounds the estimate looks back: a median of 9 ignores up to four outliers.
	window = 9
	// shift is how many rounds in a row must lie beyond the noise, all on one side of the estimate, for the path to count as changed. Waiting for a median of 9 to turn
	// takes five rounds; with three, one or two late packets still change nothing.
	shift = 3
	// beyond is how far that is, in units of the noise.
	beyond = 2
	// perRound bounds the samples kept of one round. An address is probed at most once a second, so this never cuts in practice.
	perRound = 8
	// stale is how long a target may go without a success before its earlier rounds are forgotten: the path may be another one by then.
	stale = 10 * time.Minute
)

// Estimate is what is known about the latency of one target.
type Estimate struct {
	// Round is the running number of the round that the estimate is from: 0 means never measured, and it grows by one for each finished round that had a success.
	Round uint64
	// RTT is the latency of that round alone in milliseconds: the median of its successes.
	RTT float64
	// Value is the smoothed latency in milliseconds, to rank by: the median of the last 9 rounds, or of those since the path last changed.
	Value float64
	// Noise is by how much one round differs from the next in milliseconds: the second largest of the last 8 differences. A change of the path is one difference, so it
	// does not count as noise. 0 if not known.
	Noise float64
}

// Measured reports whether there is anything to rank by.
func (e Estimate) Measured() bool { return e.Round > 0 }

// Estimator makes estimates of one target from its samples. The zero value is ready. It is not safe for concurrent use.
type Estimator struct {
	last   time.Time // of the newest sample
	open   int64     // number of the round that samples go into
	now    [perRound]float64
	n      int             // samples of the open round, of which the last perRound are kept
	past   [window]float64 // medians of the newest rounds
	held   int             // how many of past are set
	same   int             // how many of them are since the path last changed
	rounds uint64          // finished rounds that had a success
	made   Estimate        // of the finished rounds
}

// Add takes a successful measurement that ended at the time given. Losses are not latencies and must not be added.
func (e *Estimator) Add(at time.Time, rtt time.Duration) {
	e.finish(at)
	if !e.last.IsZero() && at.Sub(e.last) > stale {
		e.held, e.same = 0, 0
	}
	if e.n == 0 {
		e.open = number(at)
	}
	e.now[e.n%perRound] = float64(rtt) / float64(time.Millisecond)
	e.n++
	e.last = at
}

// Last returns when the newest sample was taken, zero if there is none.
func (e *Estimator) Last() time.Time { return e.last }

// Estimate returns the estimate at a time: that of the rounds finished by then. Before the first round has ended it is made from the samples there are.
func (e *Estimator) Estimate(now time.Time) Estimate {
	e.finish(now)
	switch {
	case e.held > 0:
		return e.made
	case e.n > 0:
		rtt := e.median()
		return Estimate{Round: max(1, e.rounds), RTT: rtt, Value: rtt}
	}
	return Estimate{}
}

// finish closes the open round if the time given lies outside it. A sample that is late by less than a round counts for the open one; a clock that was set back
// opens a new one.
func (e *Estimator) finish(at time.Time) {
	if n := number(at); e.n == 0 || n == e.open || n == e.open-1 {
		return
	}
	if e.held == window {
		copy(e.past[:], e.past[1:])
		e.held--
	}
	e.past[e.held] = e.median()
	e.held++
	e.same = min(e.same+1, window)
	e.rounds++
	e.n = 0
	if e.shifted() {
		e.same = shift
	}
	e.made = Estimate{Round: e.rounds, RTT: e.past[e.held-1], Value: e.level(), Noise: e.noise()}
}

// level returns the median of the rounds since the path last changed.
func (e *Estimator) level() float64 {
	var sorted [window]float64
	return medianOf(sorted[:copy(sorted[:], e.past[e.held-e.same:e.held])])
}

// noise returns the second largest difference between successive rounds, or the only one.
func (e *Estimator) noise() float64 {
	var first, second float64
	for i := 1; i < e.held; i++ {
		d := math.Abs(e.past[i] - e.past[i-1])
		if d > first {
			first, second = d, first
		} else if d > second {
			second = d
		}
	}
	if e.held <= shift {
		return first
	}
	return second
}

// shifted reports whether the path has changed: the newest rounds lie beyond the noise, all on one side of the level.
func (e *Estimator) shifted() bool {
	if e.same <= shift+1 {
		return false
	}
	level, noise := e.level(), beyond*e.noise()
	above, below := true, true
	for _, rtt := range e.past[e.held-shift : e.held] {
		above = above && rtt > level+noise
		below = below && rtt < level-noise
	}
	return above || below
}

// median returns the median of the open round.
func (e *Estimator) median() float64 {
	sorted := e.now
	return medianOf(sorted[:min(e.n, perRound)])
}

// number returns the number of the round that a time lies in. Rounds are aligned, so that those of all targets end together.
func number(at time.Time) int64 { return at.UnixNano() / int64(Round) }

// medianOf sorts its argument, which must not be empty.
func medianOf(x []float64) float64 {
	slices.Sort(x)
	m := len(x) / 2
	if len(x)%2 == 1 {
		return x[m]
	}
	return (x[m-1] + x[m]) / 2
}
