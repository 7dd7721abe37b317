package ranking

import (
	"math/rand/v2"
	"testing"
	"time"
)

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func ms(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }

func TestEstimateOfSamples(t *testing.T) {
	start := time.Unix(1700000000, 0) // the beginning of a round
	type sample struct {
		at  time.Duration
		rtt float64
	}
	tests := []struct {
		name    string
		samples []sample
		now     time.Duration
		want    Estimate
	}{
		{"never measured", nil, time.Hour, Estimate{}},
		{"before the first round has ended", []sample{{0, 10}, {time.Second, 12}}, 2 * time.Second, Estimate{Round: 1, RTT: 11, Value: 11}},
		{"one round", []sample{{0, 10}, {time.Second, 12}, {2 * time.Second, 90}}, 5 * time.Second, Estimate{Round: 1, RTT: 12, Value: 12}},
		{"the open round does not count", []sample{{0, 10}, {6 * time.Second, 20}}, 7 * time.Second, Estimate{Round: 1, RTT: 10, Value: 10}},
		{"two rounds", []sample{{0, 10}, {6 * time.Second, 20}}, 10 * time.Second, Estimate{Round: 2, RTT: 20, Value: 15, Noise: 10}},
		{"rounds without a success do not count", []sample{{0, 10}, {time.Minute, 20}}, 2 * time.Minute, Estimate{Round: 2, RTT: 20, Value: 15, Noise: 10}},
		{"fast probing does not make more rounds", []sample{{0, 10}, {time.Second, 10}, {2 * time.Second, 10}, {5 * time.Second, 20}, {6 * time.Second, 20}},
			10 * time.Second, Estimate{Round: 2, RTT: 20, Value: 15, Noise: 10}},
		{"a long silence drops earlier rounds", []sample{{0, 10}, {time.Hour, 20}}, time.Hour, Estimate{Round: 1, RTT: 20, Value: 20}},
		{"a long silence does not reset the round number", []sample{{0, 10}, {time.Hour, 20}}, time.Hour + Round, Estimate{Round: 2, RTT: 20, Value: 20}},
		{"a late sample counts for the open round", []sample{{5 * time.Second, 10}, {4 * time.Second, 20}}, 10 * time.Second, Estimate{Round: 1, RTT: 15, Value: 15}},
		{"the clock is set back", []sample{{time.Hour, 10}, {0, 20}}, Round, Estimate{Round: 2, RTT: 20, Value: 15, Noise: 10}},
	}
	for _, tc := range tests {
		var e Estimator
		for _, s := range tc.samples {
			e.Add(start.Add(s.at), ms(s.rtt))
		}
		for range 2 {
			if got := e.Estimate(start.Add(tc.now)); got != tc.want {
				t.Errorf("%s: expected %v, got %v", tc.name, tc.want, got)
			}
		}
	}
}

func TestThreeRoundsMakeNewLevel(t *testing.T) {
	var e Estimator
	now := time.Unix(1700000000, 0)
	add := func(rtt float64) Estimate {
		e.Add(now, ms(rtt))
		now = now.Add(Round)
		return e.Estimate(now)
	}
	for range 20 {
		add(10)
	}
	for i := range 2 {
		if got := add(100); got.Value != 10 || got.RTT != 100 {
			t.Errorf("Outlier %d: expected value 10 and RTT 100, got %v", i+1, got)
		}
	}
	if got := add(100); got.Value != 100 || got.Round != 23 {
		t.Errorf("Expected a new level after three rounds, got %v", got)
	}
}

func TestValueAndNoiseOfRounds(t *testing.T) {
	tests := []struct {
		name         string
		rounds       []float64
		value, noise float64
	}{
		{"one round", []float64{10}, 10, 0},
		{"two rounds", []float64{10, 12}, 11, 2},
		{"the newest nine rounds count", []float64{90, 1, 1, 1, 1, 2, 3, 3, 3, 3}, 2, 1},
		{"four outliers within nine", []float64{10, 50, 10, 50, 10, 50, 10, 50, 10}, 10, 40},
		{"a change is not noise", []float64{10, 11, 10, 11, 10, 11, 10, 30}, 10.5, 1},
		{"three rounds above the noise are a new path", []float64{10, 11, 10, 11, 10, 11, 30, 31, 30}, 30, 1},
		{"three rounds below the noise too", []float64{30, 31, 30, 31, 30, 31, 10, 11, 10}, 10, 1},
		{"three rounds within the noise are no new path", []float64{10, 14, 10, 14, 10, 14, 17, 17, 17}, 14, 4},
		{"three rounds on both sides are no new path", []float64{30, 30, 30, 30, 30, 30, 60, 10, 60}, 30, 50},
		{"too few rounds to detect a change", []float64{10, 30, 30, 30}, 30, 0},
	}
	for _, tc := range tests {
		var e Estimator
		now := time.Unix(1700000000, 0)
		for _, rtt := range tc.rounds {
			e.Add(now, ms(rtt))
			now = now.Add(Round)
		}
		if got := e.Estimate(now); got.Value != tc.value || got.Noise != tc.noise {
			t.Errorf("%s: expected value %v and noise %v, got %v", tc.name, tc.value, tc.noise, got)
		}
	}
}

func TestRoundKeepsNewestSamples(t *testing.T) {
	var e Estimator
	now := time.Unix(1700000000, 0)
	for range 1000 {
		e.Add(now, ms(50))
	}
	for range maxSamples {
		e.Add(now, ms(10))
	}
	if got := e.Estimate(now.Add(Round)); got.Value != 10 {
		t.Errorf("Expected the newest samples of the round, got %v", got)
	}
}

func BenchmarkEstimator(b *testing.B) {
	var e Estimator
	rnd := newRand()
	now := time.Unix(1700000000, 0)
	b.ReportAllocs()
	for b.Loop() {
		e.Add(now, ms(20+rnd.Float64()))
		now = now.Add(Round)
		e.Estimate(now)
	}
}
