package latencyprobe

import (
	"runtime/metrics"
	"time"
)

const (
	// A sample without the kernel's clock is late if, while it was taken, more
	// than lateShare of the goroutines that became ready waited for longer than
	// lateError of the sample to run: it would be off by as much, about.
	lateShare = 0.05
	lateError = 0.025
	// Below this no scheduler keeps its word, and no ranking depends on it.
	minLate = 500 * time.Microsecond
)

// scheduling is how long goroutines waited to run, since the process started.
type scheduling struct {
	sample [1]metrics.Sample
}

// observe reads it.
func observe() *scheduling {
	s := new(scheduling)
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	return s
}

// late reports whether a sample that began at s and took rtt is late.
func (s *scheduling) late(rtt time.Duration) bool {
	now := observe()
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return false // not a runtime that tells
	}
	return lateBetween(s.sample[0].Value.Float64Histogram(), now.sample[0].Value.Float64Histogram(), rtt)
}

func lateBetween(before, after *metrics.Float64Histogram, rtt time.Duration) bool {
	limit := max(time.Duration(lateError*float64(rtt)), minLate).Seconds()
	var all, long uint64
	for i, n := range after.Counts {
		n -= before.Counts[i]
		all += n
		if after.Buckets[i] >= limit {
			long += n
		}
	}
	return float64(long) > lateShare*float64(all)
}
