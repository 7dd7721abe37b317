// Package history keeps the latencies of the last hour or day in little memory:
// of each slot of time the lowest, the median and the highest one, and how many
// attempts had none. It is pure: whoever has a Series passes the time.
package history

import (
	"math"
	"slices"
	"time"
)

// maxValues is how many latencies of the open slot the median is made of. A target
// is probed once a second at most, which makes 30 in a slot of an hour, and a pool
// is ranked 60 times in a slot of a day.
const maxValues = 64

// Series is a history. Slots count from the first value, by the monotonic clock: a
// clock that is set does not move them. It is not safe for concurrent use.
type Series struct {
	width time.Duration // of a slot
	size  int64         // of the ring, when the history is as long as it gets
	start time.Time     // of slot 0; zero: there is no value yet
	ring  []slot        // closed slots: slot n is at n modulo size
	open  int64         // number of the slot that values are added to

	values [maxValues]code // of the open slot, the newest ones
	count  int             // of all values of the open slot
	low    code
	high   code
	lost   uint8
	all    uint8
}

// NewHour returns an empty history of an hour in slots of 30 seconds.
func NewHour() *Series { return &Series{width: 30 * time.Second, size: 120} }

// NewDay returns an empty history of a day in slots of 5 minutes.
func NewDay() *Series { return &Series{width: 5 * time.Minute, size: 288} }

// ringStep is by how many slots a ring grows, so that a history takes no memory for
// times that have not come yet.
const ringStep = 12

// slot is a slot that is closed. It has 8 bytes, since there are many.
type slot struct {
	low, median, high code
	lost, all         uint8 // the most that fit, if there were more
}

// code is the logarithm of a latency, so that it has two bytes: 1 µs to 73 minutes, with
// an error of 0.02 % at most. 0: there is none.
type code uint16

const codesPerDoubling = 2048

func encode(latency time.Duration) code {
	us := max(float64(latency)/float64(time.Microsecond), 1)
	return code(min(1+math.Round(codesPerDoubling*math.Log2(us)), math.MaxUint16))
}

// milliseconds returns the latency, 0 if there is none.
func (c code) milliseconds() float64 {
	if c == 0 {
		return 0
	}
	ms := math.Exp2(float64(c-1)/codesPerDoubling) / 1000
	digits := math.Pow(10, 3-math.Floor(math.Log10(ms))) // those that are exact
	return math.Round(ms*digits) / digits
}

// Add adds a latency.
func (s *Series) Add(at time.Time, latency time.Duration) {
	s.advance(at)
	c := encode(latency)
	if s.count == 0 || c < s.low {
		s.low = c
	}
	s.high = max(s.high, c)
	s.values[s.count%maxValues] = c
	s.count++
	s.attempt(0)
}

// AddLoss adds an attempt that had no latency.
func (s *Series) AddLoss(at time.Time) {
	s.advance(at)
	s.attempt(1)
}

func (s *Series) attempt(lost uint8) {
	if s.all < math.MaxUint8 {
		s.all++
		s.lost += lost
	}
}

// advance closes the open slot if it has ended. A value from before the open slot
// counts in that: it was added late.
func (s *Series) advance(at time.Time) {
	if s.start.IsZero() {
		s.start = at
	}
	n := int64(at.Sub(s.start) / s.width)
	if n <= s.open {
		return
	}
	s.set(s.open, s.current())
	for skipped := max(s.open+1, n-s.size); skipped < n; skipped++ {
		s.set(skipped, slot{})
	}
	s.open, s.count, s.low, s.high, s.lost, s.all = n, 0, 0, 0, 0, 0
}

// set makes x the closed slot n.
func (s *Series) set(n int64, x slot) {
	at := n % s.size
	if at >= int64(len(s.ring)) {
		grown := make([]slot, min(at+ringStep-at%ringStep, s.size))
		copy(grown, s.ring)
		s.ring = grown
	}
	s.ring[at] = x
}

// current returns the open slot as if it were closed.
func (s *Series) current() slot {
	out := slot{low: s.low, high: s.high, lost: s.lost, all: s.all}
	if n := min(s.count, maxValues); n > 0 {
		sorted := s.values
		slices.Sort(sorted[:n])
		out.median = sorted[n/2]
	}
	return out
}

// Clone returns a history that goes on by itself from the same past.
func (s *Series) Clone() *Series {
	c := *s
	c.ring = slices.Clone(s.ring)
	return &c
}

// Slot is what a history has of one slot of time. Latencies are in milliseconds; 0:
// there was none.
type Slot struct {
	Min    float64 `json:"min_ms,omitempty"`
	Median float64 `json:"median_ms,omitempty"`
	Max    float64 `json:"max_ms,omitempty"`
	Lost   int     `json:"lost,omitempty"` // attempts that had no latency
	All    int     `json:"all,omitempty"`  // attempts, 255 at most
}

// Past is what a history has of the time until now.
type Past struct {
	From  time.Time `json:"from"`   // when the first slot began
	Width float64   `json:"slot_s"` // in seconds
	Slots []Slot    `json:"slots"`  // oldest first, at most an hour or a day; the last one is open
}

// Past returns the slots up to a time. There are none before the first value.
func (s *Series) Past(now time.Time) Past {
	p := Past{From: now, Width: s.width.Seconds(), Slots: []Slot{}}
	if s.start.IsZero() {
		return p
	}
	last := max(int64(now.Sub(s.start)/s.width), s.open)
	first := max(0, last-s.size+1)
	p.From = now.Add(time.Duration(first)*s.width - now.Sub(s.start))
	for n := first; n <= last; n++ {
		var x slot
		switch {
		case n == s.open:
			x = s.current()
		case n < s.open && n > s.open-s.size:
			x = s.ring[n%s.size]
		}
		p.Slots = append(p.Slots, Slot{
			x.low.milliseconds(), x.median.milliseconds(), x.high.milliseconds(), int(x.lost), int(x.all),
		})
	}
	return p
}
