package explain

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestTXT checks that a line comes over the wire as it was.
func TestTXT(t *testing.T) {
	for _, line := range []string{"", "one", `a "b" \c`, strings.Repeat("x", 255), strings.Repeat("y", 256), strings.Repeat(`"`, 600)} {
		m := new(dns.Msg)
		m.Answer = []dns.RR{TXT("_explain.example.org.", line)}
		wire, err := m.Pack()
		if err != nil {
			t.Errorf("%q: Expected a message, got %v", line, err)
			continue
		}
		if err := m.Unpack(wire); err != nil {
			t.Errorf("%q: Expected a message, got %v", line, err)
			continue
		}
		got := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(strings.Join(m.Answer[0].(*dns.TXT).Txt, ""))
		if got != line || m.Answer[0].Header().Ttl != ttl {
			t.Errorf("Expected %q, got %v", line, m.Answer[0])
		}
	}
}

func TestSubject(t *testing.T) {
	subnet := func(family uint16, mask uint8, ip string) *dns.EDNS0_SUBNET {
		return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: mask, Address: net.ParseIP(ip)}
	}
	tests := []struct {
		name   string
		option dns.EDNS0
		want   string
	}{
		{"IPv4", subnet(1, 24, "203.0.113.0"), "203.0.113.0"},
		{"IPv6", subnet(2, 48, "2001:db8::"), "2001:db8::"},
		{"IPv4 as IPv6, as it was written", subnet(2, 128, "::ffff:203.0.113.7"), "::ffff:203.0.113.7"},
		{"of nobody", subnet(1, 0, "0.0.0.0"), ""},
		{"another option", &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, ""},
	}
	for _, tc := range tests {
		m := new(dns.Msg)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{tc.option}
		got, ok := Subject(m)
		if ok != (tc.want != "") || ok && got.String() != tc.want {
			t.Errorf("%s: Expected '%s', got %s, %v", tc.name, tc.want, got, ok)
		}
		Scope(m)
		if s, ok := tc.option.(*dns.EDNS0_SUBNET); ok && s.SourceScope != s.SourceNetmask {
			t.Errorf("%s: Expected the scope to be the subnet, got %v", tc.name, s)
		}
	}
	if _, ok := Subject(new(dns.Msg)); ok {
		t.Error("Expected no subject without EDNS")
	}
	Scope(new(dns.Msg))
}

func TestAllows(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if !Allows(networks, netip.MustParseAddr("192.0.2.7")) || Allows(networks, netip.MustParseAddr("198.51.100.7")) || Allows(nil, netip.MustParseAddr("192.0.2.7")) {
		t.Error("Expected those in the networks, and nobody else, to be allowed")
	}
}
