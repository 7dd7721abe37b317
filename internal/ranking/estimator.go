package ranking

import (
	"math"
	"slices"
	"time"
)

const (
	// window is the number of rounds that an estimate is made of. A median of
	// 9 ignores up to four outliers.
	window = 9

	// After pathChangeRounds rounds in a row that are all above, or all below,
	// the median by more than pathChangeNoise times the noise, the path has
	// changed. A median of 9 alone takes five rounds to follow; with three
	// rounds, one or two late packets still change nothing.
	pathChangeRounds = 3
	pathChangeNoise  = 2

	// maxSamples bounds the memory of one round. Nobody probes an address more
	// than once a second, so a round of 5 s has fewer.
	maxSamples = 8

	// After maxSilence without a success the earlier rounds are dropped: the
	// path may have changed since.
	maxSilence = 10 * time.Minute
)

// Estimate describes the latency of one target.
type Estimate struct {
	// Round is the running number of the round of the estimate. It grows by one
	// with each finished round that had a success; 0 means never measured.
	Round uint64
	// RTT is the median latency of the successes of this round, in
	// milliseconds.
	RTT float64
	// Value is the latency to rank by, in milliseconds: the median of the last
	// 9 rounds, or of the rounds since the path changed.
	Value float64
	// Noise is the usual difference between successive rounds, in milliseconds:
	// the second largest of the last 8 differences. A change of the path causes
	// one large difference, which does not count. 0 if not known.
	Noise float64
}

// Measured reports whether the target has ever been measured.
func (e Estimate) Measured() bool { return e.Round > 0 }

// Estimator makes the estimate of one target from its samples. The zero value
// is ready to use. It is not safe for concurrent use.
type Estimator struct {
	last time.Time // of the newest sample

	// The open round.
	open    int64               // number of the round
	samples [maxSamples]float64 // newest samples, in milliseconds
	count   int                 // of all samples

	// The finished rounds that had a success.
	medians     [window]float64 // of the newest rounds, oldest first
	known       int             // medians that are set
	sinceChange int             // newest medians since the path changed
	finished    uint64          // running number of the newest round
	estimate    Estimate
}

// Add adds a successful sample that ended at the given time. A loss is not a
// latency and must not be added.
func (e *Estimator) Add(at time.Time, rtt time.Duration) {
	e.closeRound(at)
	if !e.last.IsZero() && at.Sub(e.last) > maxSilence {
		e.known, e.sinceChange = 0, 0
	}
	if e.count == 0 {
		e.open = roundAt(at)
	}
	e.samples[e.count%maxSamples] = float64(rtt) / float64(time.Millisecond)
	e.count++
	e.last = at
}

// Last returns the time of the newest sample, zero if there is none.
func (e *Estimator) Last() time.Time { return e.last }

// Estimate returns the estimate of the rounds that are finished at the given
// time. Before the first round is finished it is made of the samples so far.
func (e *Estimator) Estimate(now time.Time) Estimate {
	e.closeRound(now)
	switch {
	case e.known > 0:
		return e.estimate
	case e.count > 0:
		rtt := e.openMedian()
		return Estimate{Round: max(1, e.finished), RTT: rtt, Value: rtt}
	}
	return Estimate{}
}

// closeRound finishes the open round unless the given time is in it. A sample
// that is late by less than a round counts for the open one; a clock that was
// set back opens a new round.
func (e *Estimator) closeRound(at time.Time) {
	if n := roundAt(at); e.count == 0 || n == e.open || n == e.open-1 {
		return
	}
	if e.known == window {
		copy(e.medians[:], e.medians[1:])
		e.known--
	}
	e.medians[e.known] = e.openMedian()
	e.known++
	e.sinceChange = min(e.sinceChange+1, window)
	e.finished++
	e.count = 0
	if e.pathChanged() {
		e.sinceChange = pathChangeRounds
	}
	e.estimate = Estimate{Round: e.finished, RTT: e.medians[e.known-1], Value: e.level(), Noise: e.noise()}
}

// level returns the median of the rounds since the path changed.
func (e *Estimator) level() float64 {
	var sorted [window]float64
	return medianOf(sorted[:copy(sorted[:], e.medians[e.known-e.sinceChange:e.known])])
}

// noise returns the second largest difference between successive rounds, or the
// largest while there are few.
func (e *Estimator) noise() float64 {
	var first, second float64
	for i := 1; i < e.known; i++ {
		d := math.Abs(e.medians[i] - e.medians[i-1])
		if d > first {
			first, second = d, first
		} else if d > second {
			second = d
		}
	}
	if e.known <= pathChangeRounds {
		return first
	}
	return second
}

// pathChanged reports whether the newest rounds are all above, or all below,
// the level by more than the noise explains.
func (e *Estimator) pathChanged() bool {
	if e.sinceChange <= pathChangeRounds+1 {
		return false
	}
	level, noise := e.level(), pathChangeNoise*e.noise()
	above, below := true, true
	for _, rtt := range e.medians[e.known-pathChangeRounds : e.known] {
		above = above && rtt > level+noise
		below = below && rtt < level-noise
	}
	return above || below
}

// openMedian returns the median of the open round.
func (e *Estimator) openMedian() float64 {
	sorted := e.samples
	return medianOf(sorted[:min(e.count, maxSamples)])
}

// medianOf sorts its argument, which must not be empty.
func medianOf(x []float64) float64 {
	slices.Sort(x)
	m := len(x) / 2
	if len(x)%2 == 1 {
		return x[m]
	}
	return (x[m-1] + x[m]) / 2
}
