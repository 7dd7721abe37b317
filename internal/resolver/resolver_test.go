package resolver

import (
	"net"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/plugin/test"
)

type writer struct {
	test.ResponseWriter
	addr net.Addr
}

func (w *writer) RemoteAddr() net.Addr { return w.addr }

type proxied string

func (p proxied) Network() string { return "udp" }
func (p proxied) String() string  { return string(p) }

func TestAddr(t *testing.T) {
	tests := []struct {
		addr net.Addr
		want string
	}{
		{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53}, "192.0.2.1"},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53}, "192.0.2.1"},
		{&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 53, Zone: "eth0"}, "fe80::1"},
		{&net.UDPAddr{IP: net.ParseIP("64:ff9b::c000:201"), Port: 53}, "192.0.2.1"},
		{proxied("[2001:db8::1]:53"), "2001:db8::1"},
		{proxied("192.0.2.1:53"), "192.0.2.1"},
		{proxied("nonsense"), "invalid IP"},
	}
	for _, tc := range tests {
		if got := Addr(&writer{addr: tc.addr}); got.String() != tc.want {
			t.Errorf("%s: expected %s, got %s", tc.addr, tc.want, got)
		}
	}
}

func TestSite(t *testing.T) {
	tests := []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.254", true},
		{"192.0.2.1", "192.0.3.1", false},
		{"2001:db8:1::1", "2001:db8:1:ffff::1", true},
		{"2001:db8:1::1", "2001:db8:2::1", false},
	}
	for _, tc := range tests {
		if got := Site(netip.MustParseAddr(tc.a)) == Site(netip.MustParseAddr(tc.b)); got != tc.same {
			t.Errorf("%s and %s: expected same site %v, got %v", tc.a, tc.b, tc.same, got)
		}
	}
}
