package latencyprobe

import (
	"slices"
	"time"
)

const (
	keptSamples = 128
	keptTime    = 10 * time.Minute
)

// samples holds the newest samples of a target, the oldest overwritten first.
type samples struct {
	ring [keptSamples]sample
	n    int // ever added
}

// sample is one probe: 8 bytes, since there may be many.
type sample struct {
	at  uint32  // milliseconds since epoch; it may wrap around
	rtt float32 // seconds; negative: lost
}

// epoch is the time from which samples count theirs.
var epoch = time.Now()

func stamp(t time.Time) uint32 { return uint32(t.Sub(epoch).Milliseconds()) } // #nosec G115 -- differences are taken modulo 2^32

func (s *samples) add(at time.Time, rtt time.Duration, ok bool) {
	x := sample{stamp(at), float32(rtt.Seconds())}
	if !ok {
		x.rtt = -1
	}
	s.ring[s.n%keptSamples] = x
	s.n++
}

func (s *samples) statistics(now time.Time) Statistics {
	var (
		rtts  []float32
		out   Statistics
		moved float32
		pairs int
	)
	for i := max(0, s.n-keptSamples); i < s.n; i++ {
		x := s.ring[i%keptSamples]
		if time.Duration(stamp(now)-x.at)*time.Millisecond > keptTime {
			continue
		}
		out.Samples++
		if x.rtt < 0 {
			out.Loss++
			continue
		}
		if n := len(rtts); n > 0 {
			moved += max(x.rtt-rtts[n-1], rtts[n-1]-x.rtt)
			pairs++
		}
		rtts = append(rtts, x.rtt)
	}
	if out.Samples > 0 {
		out.Loss /= float64(out.Samples)
	}
	if len(rtts) == 0 {
		return out
	}
	if pairs > 0 {
		out.Jitter = duration(moved / float32(pairs))
	}
	slices.Sort(rtts)
	at := func(q float64) time.Duration { return duration(rtts[int(q*float64(len(rtts)-1)+0.5)]) }
	out.Min, out.P25, out.Median, out.P95 = at(0), at(0.25), at(0.5), at(0.95)
	return out
}

func duration(seconds float32) time.Duration {
	return time.Duration(float64(seconds) * float64(time.Second)).Round(time.Microsecond) // what a float32 knows
}
