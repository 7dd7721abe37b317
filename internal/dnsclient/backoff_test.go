package dnsclient

import (
	"testing"
	"time"
)

func TestBackoffIsBounded(t *testing.T) {
	for range 1000 {
		for failures := 1; failures < 100; failures++ {
			if d := Backoff(failures); d < time.Second || d > maxBackoff+time.Second {
				t.Fatalf("Expected %s to %s after %d failures, got %s", time.Second, maxBackoff+time.Second, failures, d)
			}
		}
	}
}
