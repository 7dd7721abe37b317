package setupcheck

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/reuseport"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// TestFree checks that an address that shares its port is found in use, by the
// protocols that a transport needs.
func TestFree(t *testing.T) {
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testport.Free(t)) }
	unused, oneUDP, oneTCP, both := address(), address(), address(), address()
	for _, address := range []string{oneUDP, both} {
		l, err := reuseport.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	for _, address := range []string{oneTCP, both} {
		l, err := reuseport.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}

	for _, tc := range []struct{ name, transport, address, want string }{
		{"free", transport.DNS, unused, ""},
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
