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

func TestAddress(t *testing.T) {
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
		if got := Address(&writer{addr: tc.addr}); got.String() != tc.want {
			t.Errorf("Expected %s for %s, got %s", tc.want, tc.addr, got)
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
		a, b := SiteOf(netip.MustParseAddr(tc.a)), SiteOf(netip.MustParseAddr(tc.b))
		if (a == b) != tc.same || (a.Hash() == b.Hash()) != tc.same {
			t.Errorf("Expected %s and %s in one site: %v, got %s and %s", tc.a, tc.b, tc.same, a.Prefix(), b.Prefix())
		}
	}
}

func TestSitePrefix(t *testing.T) {
	for addr, want := range map[string]string{
		"203.0.113.7": "203.0.113.0/24", "0.0.0.1": "0.0.0.0/24", "255.255.255.255": "255.255.255.0/24",
		"2001:db8:1:2::3": "2001:db8:1::/48", "::1": "::/48", "ffff:ffff:ffff:ffff::1": "ffff:ffff:ffff::/48",
	} {
		site := SiteOf(netip.MustParseAddr(addr))
		if got := site.Prefix().String(); site == 0 || got != want {
			t.Errorf("Expected site %s for %s, got %s", want, addr, got)
		}
	}
}

// All versions must choose alike.
func TestRendezvousChoicesStayTheSame(t *testing.T) {
	candidates := []struct {
		name   string
		weight float64
	}{{"par1", 1}, {"fra1", 2}, {"nyc1", 1}, {"192.0.2.7", 5}, {"2001:db8::7", 1}}
	tests := []struct {
		addr          string
		hash          uint64
		best          string
		score         uint64
		weighted      string
		weightedScore float64
	}{
		{"192.0.2.1", 0xfae99f7dd953a14e, "par1", 0xee9393943d3f2935, "par1", 14.18690170876082},
		{"198.51.100.7", 0xa492bd8fe198132f, "fra1", 0xe21a93bb8b8fe026, "fra1", 16.10524005662411},
		{"203.0.113.99", 0xb551c7016396e99c, "2001:db8::7", 0xe1942f4c0dedca84, "2001:db8::7", 7.904657568276134},
		{"2001:db8:1::1", 0xcfa61e387c36259c, "fra1", 0x9046909ec991a3e3, "fra1", 3.487651577056862},
		{"2001:db8:2::1", 0x3e290e277cf16cb8, "192.0.2.7", 0xf8b77427987ed2c9, "192.0.2.7", 173.23046146365368},
		{"10.1.2.3", 0x733169db0e871a67, "par1", 0xe6a8946c934ba2ba, "par1", 9.593327458247055},
		{"10.1.3.3", 0xe577c13c7085fc14, "192.0.2.7", 0xbc0803a6142b81b7, "192.0.2.7", 16.203832496146156},
		{"10.1.4.3", 0xc3ae996ed2a89864, "2001:db8::7", 0xf73acf625468cb85, "192.0.2.7", 76.32803879187905},
	}
	for _, tc := range tests {
		t.Run(tc.addr, func(t *testing.T) {
			site := SiteOf(netip.MustParseAddr(tc.addr)).Hash()
			if site != tc.hash {
				t.Errorf("Expected hash %#x, got %#x", tc.hash, site)
			}
			var best, weighted string
			var score uint64
			var weightedScore float64
			for _, c := range candidates {
				if s := Score(site, Hash(c.name)); s > score {
					best, score = c.name, s
				}
				if s := WeightedScore(site, Hash(c.name), c.weight); s > weightedScore {
					weighted, weightedScore = c.name, s
				}
			}
			if best != tc.best || score != tc.score {
				t.Errorf("Expected %s with score %#x, got %s with %#x", tc.best, tc.score, best, score)
			}
			if weighted != tc.weighted || weightedScore != tc.weightedScore {
				t.Errorf("Expected %s with weighted score %v, got %s with %v", tc.weighted, tc.weightedScore, weighted, weightedScore)
			}
		})
	}
}
