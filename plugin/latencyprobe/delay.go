package latencyprobe

import (
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// A sample that the kernel has not timed counts as delayed if, while it was
	// taken, more than delayedShare of the goroutines that became ready waited
	// longer than delayError times the sample to run: about that is its error.
	delayedShare = 0.05
	delayError   = 0.025
	// minDelay is the least wait that counts: no scheduler is more exact, and no
	// ranking depends on less.
	minDelay = 500 * time.Microsecond
)

// readings are what the scheduler says before and after a sample. Each has 3 KB, which
// package metrics uses again.
type readings struct{ before, after [1]metrics.Sample }

var latencyReadings = sync.Pool{New: func() any { return new(readings) }}

// readSchedulerLatency returns a histogram of how long goroutines waited to run
// since the process started, in seconds. The next reading into the same sample
// overwrites it. Tests replace it.
var readSchedulerLatency = func(sample *[1]metrics.Sample) *metrics.Float64Histogram {
	sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(sample[:])
	if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return new(metrics.Float64Histogram) // this version of Go does not have the histogram
	}
	return sample[0].Value.Float64Histogram()
}

// delayedBetween reports whether the Go scheduler delayed a sample that took rtt
// between two readings.
func delayedBetween(before, after *metrics.Float64Histogram, rtt time.Duration) bool {
	limit := max(time.Duration(delayError*float64(rtt)), minDelay).Seconds()
	var all, long uint64
	for i, n := range after.Counts {
		n -= before.Counts[i]
		all += n
		if after.Buckets[i] >= limit {
			long += n
		}
	}
	return float64(long) > delayedShare*float64(all)
}
