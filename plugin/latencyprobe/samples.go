package latencyprobe

import (
	"slices"
	"time"
)

const (
	maxSamples   = 128
	maxSampleAge = 10 * time.Minute
)

// samples holds the newest samples of a target, oldest first. It grows to what the
// interval of the target needs.
type samples []sample

// sample is the result of one probe. It has 8 bytes, since there may be many.
type sample struct {
	at  uint32  // milliseconds since epoch, modulo 2^32
	rtt float32 // seconds; negative: lost
}

const lost = -1

// epoch is the time from which samples count theirs.
var epoch = time.Now()

func sinceEpoch(t time.Time) uint32 {
	return uint32(t.Sub(epoch).Milliseconds()) // #nosec G115 -- differences are taken modulo 2^32
}

// age returns how long before now the sample was taken.
func (x sample) age(now time.Time) time.Duration {
	return time.Duration(sinceEpoch(now)-x.at) * time.Millisecond
}

func (s *samples) add(at time.Time, rtt time.Duration) {
	s.push(sample{sinceEpoch(at), float32(rtt.Seconds())})
}

func (s *samples) addLoss(at time.Time) {
	s.push(sample{sinceEpoch(at), lost})
}

func (s *samples) push(x sample) {
	if all := *s; len(all) == cap(all) {
		outdated := 0
		for outdated < len(all) && int32(x.at-all[outdated].at) > int32(maxSampleAge/time.Millisecond) { // #nosec G115 -- modulo 2^32
			outdated++
		}
		if outdated == 0 && len(all) == maxSamples {
			outdated = 1
		}
		*s = append(all[:0], all[outdated:]...)
	}
	*s = append(*s, x)
}

func (s samples) statistics(now time.Time) Statistics {
	var (
		rtts        []float32
		stats       Statistics
		differences float32
	)
	for _, x := range s {
		if x.age(now) > maxSampleAge {
			continue
		}
		stats.Samples++
		if x.rtt < 0 {
			stats.Loss++
			continue
		}
		if n := len(rtts); n > 0 {
			differences += max(x.rtt-rtts[n-1], rtts[n-1]-x.rtt)
		}
		rtts = append(rtts, x.rtt)
	}
	if stats.Samples > 0 {
		stats.Loss /= float64(stats.Samples)
	}
	if len(rtts) == 0 {
		return stats
	}
	if pairs := len(rtts) - 1; pairs > 0 {
		stats.Jitter = duration(differences / float32(pairs))
	}
	slices.Sort(rtts)
	quantile := func(q float64) time.Duration { return duration(rtts[int(q*float64(len(rtts)-1)+0.5)]) }
	stats.Min, stats.P25, stats.Median, stats.P95 = quantile(0), quantile(0.25), quantile(0.5), quantile(0.95)
	return stats
}

// duration rounds to microseconds, the precision of the float32.
func duration(seconds float32) time.Duration {
	return time.Duration(float64(seconds) * float64(time.Second)).Round(time.Microsecond)
}
