package setupcheck

import (
	"net"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/reuseport"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// TestFree checks that an address that shares its port is found in use, by the
// protocols that a transport needs.
func TestFree(t *testing.T) {
	udp := func(addr string) string {
		t.Helper()
		l, err := reuseport.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.LocalAddr().String()
	}
	tcp := func() string {
		t.Helper()
		l, err := reuseport.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().String()
	}
	oneUDP, oneTCP, both := udp("127.0.0.1:0"), tcp(), tcp()
	udp(both)
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free4 := unused.Addr().String()
	_ = unused.Close()

	for _, tc := range []struct{ name, transport, address, want string }{
		{"free", transport.DNS, free4, ""},
		{"UDP alone", transport.DNS, oneUDP, "over UDP: end it first"},
		{"UDP does not matter", transport.TLS, oneUDP, ""},
		{"TCP", transport.TLS, oneTCP, "over TCP: end it first"},
		{"TCP does not matter", transport.QUIC, oneTCP, ""},
		{"both", transport.DNS, both, "another process serves " + both},
		{"no address of this machine", transport.DNS, "192.0.2.1:53", ""}, // CoreDNS says so
	} {
		err := free(tc.transport, tc.address)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: Expected %q, got: %v", tc.name, tc.want, err)
		}
	}
}
