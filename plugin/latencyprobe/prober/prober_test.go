package prober

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// patience is how long tests wait for what happens at once, but for the load of
// the machine.
const patience = time.Minute

// probeLoopback measures loopback once, by a method as it stands in a Corefile,
// and returns the latency.
func probeLoopback(t *testing.T, source string, method ...string) (time.Duration, error) {
	t.Helper()
	p, err := Parse(method)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var from netip.Addr
	if source != "" {
		from = netip.MustParseAddr(source)
	}
	got, err := p.Probe(ctx, loopback, from)
	return got.RTT, err
}

func expectRTT(t *testing.T, rtt time.Duration, err error, atLeast time.Duration) {
	t.Helper()
	if err != nil || rtt < atLeast || rtt > patience {
		t.Errorf("Expected at least %s, got %s, %v", atLeast, rtt, err)
	}
}

func expectReason(t *testing.T, err error, want Reason) {
	t.Helper()
	if got := ReasonOf(err); got != want {
		t.Errorf("Expected a failure of kind %q, got %q: %v", want, got, err)
	}
}
