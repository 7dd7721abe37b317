package corefile

import (
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

func TestZones(t *testing.T) {
	tests := []struct {
		keys []string
		want string
		err  string
	}{
		{[]string{"Example.org:1053", "tls://_x.example.net"}, "example.org. _x.example.net.", ""},
		{[]string{".:53"}, ".", ""},
		{[]string{"tls://b.:853", "dns://a.:53", "dns://b.:53"}, "b. a.", ""},
		{[]string{"192.0.2.0/24"}, "2.0.192.in-addr.arpa.", ""},
		{[]string{"xn--bcher-kva.example.org"}, "xn--bcher-kva.example.org.", ""},
		{[]string{"example.org", "bücher.example.org:53"}, "", "zone of this server block: invalid name 'bücher.example.org.': names in the DNS are ASCII, write 'xn--bcher-kva.example.org'"},
		{[]string{`\119ww.example.org`}, "", `invalid name '\119ww.example.org.': write 'www.example.org.'`},
	}
	for _, tc := range tests {
		c := caddy.NewTestController("dns", "dnslb")
		c.ServerBlockKeys = tc.keys
		zones, err := Zones(c)
		check(t, strings.Join(tc.keys, " "), strings.Join(zones, " "), tc.want, err, tc.err)
	}
}

func TestPlainPort(t *testing.T) {
	for _, tc := range []struct {
		keys string
		want uint16
	}{
		{"dns://a.:53", 53},
		{"dns://A.:1053", 1053},
		{"a.:1053", 1053},
		{"a", 53},
		{"tls://a.:853", 0},
		{"https://a.:443 quic://a.:853 grpc://a.:9000", 0},
		{"tls://a.:853 dns://a.:1053", 1053},
		{"dns://a.:1053 tls://a.:853", 1053},
		{"dns://a.:1053 dns://a.:1054", 1053},
		{"dns://a.:1054 dns://a.:1053", 1054},
		{"dns://a.:1053 dns://a.:53", 53},
		{"dns://b.:53 dns://a.:1053", 1053},
		{"tls://a.:853 dns://b.:53", 0},
	} {
		c := caddy.NewTestController("dns", "")
		c.ServerBlockKeys = strings.Fields(tc.keys)
		if got := PlainPort(c, "a."); got != tc.want {
			t.Errorf("%s: Expected port %d, got %d", tc.keys, tc.want, got)
		}
	}
}
