package prober

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"testing"
)

// TestConcurrentICMP checks that echoes in flight at the same time do not take
// each other's answers.
func TestConcurrentICMP(t *testing.T) {
	if err := ICMPAllowed(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const echoes = 200
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	addr := netip.MustParseAddr("127.2.0.1")
	for range echoes {
		to := addr
		wg.Go(func() {
			if got, err := (ICMP{}).Probe(ctx, to, netip.Addr{}); err != nil || got.RTT <= 0 {
				t.Errorf("Expected %s to answer, got %s, %v", to, got.RTT, err)
			}
		})
		addr = addr.Next()
	}
	wg.Wait()
}

func TestICMP6(t *testing.T) {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("This machine has no IPv6")
	}
	conn, err := listenEcho(netip.IPv6Unspecified())
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, source := range []netip.Addr{{}, netip.IPv6Loopback()} {
		if got, err := (ICMP{}).Probe(ctx, netip.IPv6Loopback(), source); err != nil || got.RTT <= 0 {
			t.Errorf("From %s: expected an answer, got %s, %v", source, got.RTT, err)
		}
	}
}
