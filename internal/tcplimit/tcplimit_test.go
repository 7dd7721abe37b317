package tcplimit

import (
	"maps"
	"slices"
	"testing"

	"github.com/coredns/caddy"
)

// TestEnableCollectsPorts checks that the limits are for the ports of all server
// blocks of a Corefile, and not of the last one alone.
func TestEnableCollectsPorts(t *testing.T) {
	root := caddy.NewTestController("dns", "")
	for i, keys := range [][]string{{"dns://example.org.:1053"}, {"dns://example.net.:2053"}, {"tls://example.com.:853"}} {
		c := *root
		c.ServerBlockKeys, c.ServerBlockIndex = keys, i
		if err := Enable(&c); err != nil {
			t.Fatal(err)
		}
	}
	p, _ := root.Get(portsKey{}).(ports)
	if got, want := slices.Sorted(maps.Keys(p)), []uint16{853, 1053, 2053}; !slices.Equal(got, want) {
		t.Errorf("Expected ports %v, got %v", want, got)
	}
}

func TestPortsOfServerBlocks(t *testing.T) {
	p := make(ports)
	for _, keys := range [][]string{
		{"dns://example.org.:53", "dns://example.net.:1053"},
		{"tls://example.org.:853", "dns://2.0.192.in-addr.arpa.:53"},
		{"example.com", "tls://example.com"},                                  // as they are before CoreDNS completes them
		{"https://.:443", "grpc://.:5443", "quic://.:8853", "https3://.:443"}, // CoreDNS limits these
	} {
		if err := p.add(keys); err != nil {
			t.Error(err)
		}
	}
	if got, want := slices.Sorted(maps.Keys(p)), []uint16{53, 853, 1053}; !slices.Equal(got, want) {
		t.Errorf("Expected ports %v, got %v", want, got)
	}
	for _, key := range []string{"dns://example.org.:65536"} {
		if err := p.add([]string{key}); err == nil {
			t.Errorf("%s: Expected an error", key)
		}
	}
}
