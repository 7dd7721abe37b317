package history

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func TestSlotsHaveMinimumMedianAndMaximum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewDay()
		if past := s.Past(time.Now()); len(past.Slots) != 0 {
			t.Errorf("Expected no slots before the first value, got %v", past.Slots)
		}
		began := time.Now()
		for _, ms := range []int{30, 10, 20, 500, 15} {
			s.Add(time.Now(), time.Duration(ms)*time.Millisecond)
			time.Sleep(time.Minute)
		}
		s.AddLoss(time.Now()) // five minutes after the first value
		time.Sleep(11 * time.Minute)
		s.Add(time.Now(), time.Millisecond)

		past := s.Past(time.Now())
		want := []Slot{{Min: 10, Median: 20, Max: 500, All: 5}, {Lost: 1, All: 1}, {}, {Min: 1, Median: 1, Max: 1, All: 1}}
		if past.Width != 300 || !past.From.Equal(began) || !slices.EqualFunc(past.Slots, want, about) {
			t.Errorf("Expected slots of 300 s from %v: %v, got %v s, %v: %v", began, want, past.Width, past.From, past.Slots)
		}
	})
}

// about reports whether two slots are the same but for the rounding of latencies.
func about(a, b Slot) bool {
	same := func(x, y float64) bool { return math.Abs(x-y) <= y/1000 }
	return same(a.Min, b.Min) && same(a.Median, b.Median) && same(a.Max, b.Max) && a.Lost == b.Lost && a.All == b.All
}

// TestPastIsThatOfAllValues compares the slots with all values, of a target that is
// probed at random times and pauses now and then.
func TestPastIsThatOfAllValues(t *testing.T) {
	type value struct {
		at  time.Duration
		rtt time.Duration // 0: lost
	}
	random := rand.New(rand.NewPCG(1, 2))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	for range 50 {
		s, start := NewHour(), time.Now()
		var values []value
		var at time.Duration
		for range 3000 {
			v := value{at, time.Duration(math.Exp(random.Float64()*14) * float64(time.Microsecond))}
			if random.IntN(10) == 0 {
				v.rtt = 0
				s.AddLoss(start.Add(at))
			} else {
				s.Add(start.Add(at), v.rtt)
			}
			values = append(values, v)
			at += time.Second + upTo(4*time.Second)
			if random.IntN(300) == 0 {
				at += upTo(90 * time.Minute)
			}
		}
		now := at + upTo(5*time.Minute)
		past := s.Past(start.Add(now))
		if len(past.Slots) != 120 {
			t.Fatalf("Expected an hour of 120 slots, got %d", len(past.Slots))
		}
		from := past.From.Sub(start)
		if covered := now - from; covered <= 59*time.Minute+29*time.Second || covered > time.Hour {
			t.Fatalf("Expected slots of the last hour, got those since %v ago", covered)
		}
		for i, got := range past.Slots {
			begin := from + time.Duration(i)*30*time.Second
			var rtts []time.Duration
			var want Slot
			for _, v := range values {
				if v.at < begin || v.at >= begin+30*time.Second {
					continue
				}
				want.All++
				if v.rtt == 0 {
					want.Lost++
				} else {
					rtts = append(rtts, v.rtt)
				}
			}
			if slices.Sort(rtts); len(rtts) > 0 {
				ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
				want.Min, want.Median, want.Max = ms(rtts[0]), ms(rtts[len(rtts)/2]), ms(rtts[len(rtts)-1])
			}
			if !about(got, want) {
				t.Fatalf("Expected slot %d to be %+v, got %+v", i, want, got)
			}
		}
	}
}

// TestClockStepMovesNothing sets the wall clock, as NTP may: slots follow the
// monotonic one, and their times are by the clock of whoever reads.
func TestClockStepMovesNothing(t *testing.T) {
	start := time.Now()
	for _, step := range []time.Duration{-26 * time.Hour, -time.Minute, time.Minute, 26 * time.Hour} {
		s := NewDay()
		s.Add(start, 10*time.Millisecond)
		s.Add(start.Add(6*time.Minute), 20*time.Millisecond)
		stepped := stepWallClock(start.Add(7*time.Minute), step)
		if d := stepped.Sub(start); d != 7*time.Minute {
			t.Fatalf("Expected a step of the wall clock alone, got %v", d)
		}
		s.Add(stepped, 30*time.Millisecond)
		past := s.Past(stepped)
		want := []Slot{{Min: 10, Median: 10, Max: 10, All: 1}, {Min: 20, Median: 30, Max: 30, All: 2}}
		if !slices.EqualFunc(past.Slots, want, about) {
			t.Errorf("Step by %v: expected %v, got %v", step, want, past.Slots)
		}
		if from := start.Add(step); !past.From.Round(0).Equal(from.Round(0)) {
			t.Errorf("Step by %v: expected slots from %v, got %v", step, from.Round(0), past.From.Round(0))
		}
	}
}

// stepWallClock returns what a clock shows that was set by step: another time of day, the
// same monotonic time. Only a layout of time.Time can tell them apart.
func stepWallClock(t time.Time, step time.Duration) time.Time {
	seconds := int64(step / time.Second)
	*(*uint64)(unsafe.Pointer(&t)) += uint64(seconds) << 30
	return t
}

func TestCodesAreNearLatencies(t *testing.T) {
	for latency := time.Microsecond; latency <= time.Hour; latency += latency/7 + 1 {
		got := encode(latency).milliseconds()
		if want := latency.Seconds() * 1000; math.Abs(got-want) > want/1000 {
			t.Errorf("Expected %v ms, got %v", want, got)
		}
	}
	for latency, want := range map[time.Duration]float64{-time.Second: 0.001, 0: 0.001, 1000 * time.Hour: encode(73 * time.Minute).milliseconds()} {
		if got := encode(latency).milliseconds(); math.Abs(got-want) > want/10 {
			t.Errorf("Expected %v ms for %v, got %v", want, latency, got)
		}
	}
}

func TestManyValuesInOneSlot(t *testing.T) {
	s, at := NewHour(), time.Now()
	for i := range 1000 {
		s.Add(at, time.Duration(i+1)*time.Millisecond)
		s.AddLoss(at)
	}
	x := s.Past(at).Slots[0]
	if !about(x, Slot{Min: 1, Median: 969, Max: 1000, Lost: 127, All: 255}) {
		t.Errorf("Expected the extremes of all values and the median of the newest, got %+v", x)
	}
}

func TestCloneGoesOnByItself(t *testing.T) {
	s, at := NewHour(), time.Now()
	s.Add(at, time.Millisecond)
	c := s.Clone()
	c.Add(at.Add(time.Minute), 2*time.Millisecond)
	s.AddLoss(at.Add(time.Minute))
	first := Slot{Min: 1, Median: 1, Max: 1, All: 1}
	if got := s.Past(at.Add(time.Minute)).Slots; !slices.EqualFunc(got, []Slot{first, {}, {Lost: 1, All: 1}}, about) {
		t.Errorf("Expected the original without the values of its clone, got %+v", got)
	}
	if got := c.Past(at.Add(time.Minute)).Slots; !slices.EqualFunc(got, []Slot{first, {}, {Min: 2, Median: 2, Max: 2, All: 1}}, about) {
		t.Errorf("Expected the clone with the values of the original before, got %+v", got)
	}
}

// BenchmarkMemory tells the bytes that a history takes.
func BenchmarkMemory(b *testing.B) {
	for name, create := range map[string]func() *Series{"hour": NewHour, "day": NewDay} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink = create()
			}
		})
	}
}

var sink *Series

// BenchmarkAdd adds a value each second: 30 in a slot, which is closed then.
func BenchmarkAdd(b *testing.B) {
	s, at := NewHour(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(time.Second)
		s.Add(at, 17*time.Millisecond)
	}
}
