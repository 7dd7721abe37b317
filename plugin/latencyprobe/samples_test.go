package latencyprobe

import (
	"testing"
	"time"
)

func TestStatistics(t *testing.T) {
	var s samples
	now := epoch.Add(time.Hour)
	if got := s.statistics(now); got != (Statistics{}) {
		t.Errorf("Expected nothing, got %+v", got)
	}
	s.add(now.Add(-maxSampleAge-time.Minute), time.Second) // too old
	for i := range 100 {
		s.add(now, time.Duration(i+1)*time.Millisecond)
	}
	s.addLoss(now)
	close := func(d, want time.Duration) bool { return (d - want).Abs() < time.Millisecond/100 }
	got := s.statistics(now)
	if got.Samples != 101 || !close(got.Min, time.Millisecond) || !close(got.Jitter, time.Millisecond) || got.Loss < 0.0099 || got.Loss > 0.01 {
		t.Errorf("Unexpected %+v", got)
	}
	if got.P25 < 24*time.Millisecond || got.P25 > 27*time.Millisecond || got.Median < 50*time.Millisecond || got.Median > 52*time.Millisecond || got.P95 < 94*time.Millisecond || got.P95 > 96*time.Millisecond {
		t.Errorf("Unexpected percentiles %+v", got)
	}
	for range maxSamples {
		s.add(now, time.Millisecond)
	}
	if got := s.statistics(now); got.Samples != maxSamples || !close(got.P95, time.Millisecond) {
		t.Errorf("Expected only the newest samples, got %+v", got)
	}
}
