package prober

import (
	"os"
	"testing"
)

func TestICMP(t *testing.T) {
	if err := ICMPAllowed(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	rtt, err := probeLoopback(t, "", "icmp")
	expectRTT(t, rtt, err, 1)
	if rtt, err = probeLoopback(t, "127.0.0.9", "icmp"); err != nil {
		t.Errorf("Expected an answer to the source address, got %s, %v", rtt, err)
	}
}
