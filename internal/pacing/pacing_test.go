package pacing

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPacerPauses(t *testing.T) {
	tests := []struct {
		name  string
		pacer *Pacer
		step  time.Duration
		steps int
		want  time.Duration // of pauses
	}{
		{"nobody waits", nil, 10 * time.Microsecond, 10_000, 0},
		{"few steps", new(Pacer), 10 * time.Microsecond, look - 1, 0},
		{"steps of 10 µs", new(Pacer), 10 * time.Microsecond, look * 100, 100 * pause},
		{"steps of 1 µs", new(Pacer), time.Microsecond, look * 101, (1 + 100/4) * pause},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				for range test.steps {
					time.Sleep(test.step)
					test.pacer.Step()
				}
				if got := time.Since(begin) - time.Duration(test.steps)*test.step; got != test.want {
					t.Errorf("Expected pauses of %v, got %v", test.want, got)
				}
			})
		})
	}
}
