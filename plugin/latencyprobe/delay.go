package latencyprobe

import (
	"runtime/metrics"
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

// schedulerLatency is a histogram of how long goroutines waited to run since
// the process started.
type schedulerLatency struct {
	sample [1]metrics.Sample
}

func readSchedulerLatency() *schedulerLatency {
	s := new(schedulerLatency)
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	return s
}

// delayed reports whether the Go scheduler delayed a sample that began when s
// was read and took rtt.
func (s *schedulerLatency) delayed(rtt time.Duration) bool {
	now := readSchedulerLatency()
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return false // this version of Go does not have the histogram
	}
	return delayedBetween(s.sample[0].Value.Float64Histogram(), now.sample[0].Value.Float64Histogram(), rtt)
}

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
