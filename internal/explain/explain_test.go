package explain

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestRecordsFitIntoOneMessage(t *testing.T) {
	lines := make([]string, 3000)
	for i := range lines {
		lines[i] = strings.Repeat("x", 300)
	}
	for n, want := range map[int]int{0: 0, 1: 1, 190: 190, 3000: 192} {
		m := &dns.Msg{Compress: true, Answer: Records("_explain.example.org.", lines[:n])}
		m.SetQuestion("_explain.example.org.", dns.TypeTXT)
		wire, err := m.Pack()
		if err != nil || len(wire) > dns.MaxMsgSize-1000 || len(m.Answer) != want {
			t.Errorf("Expected %d records for %d lines, got %d in %d bytes, %v", want, n, len(m.Answer), len(wire), err)
		}
		for _, rr := range m.Answer {
			if rr.Header().Ttl != ttl {
				t.Errorf("Expected TTL %d, got %v", ttl, rr)
			}
		}
	}
	rrs := Records("_explain.example.org.", lines)
	if got := rrs[len(rrs)-1].(*dns.TXT).Txt[0]; got != "left out, as the message is full: 2809 lines" {
		t.Errorf("Expected the number of missing lines, got %q", got)
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
		{"IPv4-mapped, as it is in the option", subnet(2, 128, "::ffff:203.0.113.7"), "::ffff:203.0.113.7"},
		{"length 0", subnet(1, 0, "0.0.0.0"), ""},
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
		SetScope(m)
		if s, ok := tc.option.(*dns.EDNS0_SUBNET); ok && s.SourceScope != s.SourceNetmask {
			t.Errorf("%s: Expected the scope to be the subnet, got %v", tc.name, s)
		}
	}
	if _, ok := Subject(new(dns.Msg)); ok {
		t.Error("Expected no subject without EDNS")
	}
	SetScope(new(dns.Msg))
}

func TestAllowed(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if !Allowed(networks, netip.MustParseAddr("192.0.2.7")) || Allowed(networks, netip.MustParseAddr("198.51.100.7")) || Allowed(nil, netip.MustParseAddr("192.0.2.7")) {
		t.Error("Expected clients in the networks, and no others, to be allowed")
	}
}
