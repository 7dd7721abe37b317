package dnsmsg

import (
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func TestSetOptions(t *testing.T) {
	with := func(family uint16, length uint8, address string) dns.EDNS0 {
		return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: length, Address: net.ParseIP(address)}
	}
	subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{198, 51, 100, 0}}
	tests := []struct {
		name    string
		edns    bool
		options []dns.EDNS0
		text    string
		want    []uint16
	}{
		{"no EDNS", false, nil, "a reason", nil},
		{"no option", true, nil, "", nil},
		{"error", true, nil, "a reason", []uint16{dns.EDNS0EDE}},
		{"subnet", true, []dns.EDNS0{subnet}, "", []uint16{dns.EDNS0SUBNET}},
		{"IPv6", true, []dns.EDNS0{with(2, 48, "2001:db8:1::")}, "", []uint16{dns.EDNS0SUBNET}},
		{"length 0", true, []dns.EDNS0{with(1, 0, "0.0.0.0")}, "", []uint16{dns.EDNS0SUBNET}},
		{"length 0 and family 0", true, []dns.EDNS0{with(0, 0, "0.0.0.0")}, "", []uint16{dns.EDNS0SUBNET}},
		{"cookie, subnet and error", true, []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE}, subnet}, "a reason", []uint16{dns.EDNS0SUBNET, dns.EDNS0EDE}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
			if tc.edns {
				r.SetEdns0(1232, true)
				r.IsEdns0().Option = tc.options
			}
			m := new(dns.Msg).SetReply(r)
			for range 2 {
				SetOptions(m, r, dns.ExtendedErrorCodeOther, tc.text)
			}
			var got []uint16
			if opt := m.IsEdns0(); opt != nil {
				if !opt.Do() || len(m.Extra) != 1 {
					t.Errorf("Expected one OPT record with DO, got %v", m)
				}
				for _, option := range opt.Option {
					got = append(got, option.Option())
				}
			}
			for s := range Options[*dns.EDNS0_SUBNET](m) {
				isEcho := func(o dns.EDNS0) bool { return o.String() == s.String() }
				if s.SourceScope != 0 || !slices.ContainsFunc(tc.options, isEcho) {
					t.Errorf("Expected the subnet of the query with scope 0, got %v", s)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("Expected options %v, got %v", tc.want, got)
			}
		})
	}
}

// A server that does not use client subnets has none in its replies.
func TestSetError(t *testing.T) {
	r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	r.SetEdns0(1232, true)
	r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}}}
	m := new(dns.Msg).SetReply(r)
	if SetError(m, r, 0, ""); m.IsEdns0() != nil {
		t.Errorf("Expected no option, got %v", m)
	}
	SetError(m, r, dns.ExtendedErrorCodeOther, "a reason")
	if opt := m.IsEdns0(); opt == nil || len(opt.Option) != 1 || opt.Option[0].Option() != dns.EDNS0EDE {
		t.Errorf("Expected the error alone, got %v", m)
	}
}

// RFC 7871, sections 6 and 7.1.3.
func TestMalformedSubnet(t *testing.T) {
	with := func(family uint16, length, scope uint8, address string) dns.EDNS0 {
		return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: length, SourceScope: scope, Address: net.ParseIP(address)}
	}
	good := with(1, 24, 0, "198.51.100.0")
	for _, tc := range []struct {
		name    string
		options []dns.EDNS0
		want    bool
	}{
		{"none", nil, false},
		{"IPv4", []dns.EDNS0{good}, false},
		{"IPv6", []dns.EDNS0{with(2, 48, 0, "2001:db8:1::")}, false},
		{"length 0", []dns.EDNS0{with(1, 0, 0, "0.0.0.0")}, false},
		{"length 0 and family 0", []dns.EDNS0{with(0, 0, 0, "0.0.0.0")}, false},
		{"a host", []dns.EDNS0{with(1, 32, 0, "198.51.100.7")}, false},
		{"two", []dns.EDNS0{good, good}, true},
		{"bits beyond the length", []dns.EDNS0{with(1, 20, 0, "203.0.127.0")}, true},
		{"bits beyond the length, IPv6", []dns.EDNS0{with(2, 47, 0, "2001:db8:1::")}, true},
		{"a scope", []dns.EDNS0{with(1, 24, 24, "198.51.100.0")}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
			r.SetEdns0(1232, true)
			r.IsEdns0().Option = tc.options
			if got := MalformedSubnet(r); got != tc.want {
				t.Errorf("Expected %v, got %v", tc.want, got)
			}
		})
	}
}

func TestEchoSubnet(t *testing.T) {
	asked := func() *dns.EDNS0_SUBNET {
		return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}}
	}
	signature := func() dns.RR { return &dns.TSIG{Hdr: dns.RR_Header{Name: "k.", Rrtype: dns.TypeTSIG}} }
	answered := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, SourceScope: 20, Address: net.IP{198, 51, 100, 7}}
	for name, tc := range map[string]struct {
		extra []dns.RR
		want  uint8 // scope
		other int   // options
	}{
		"no OPT record":         {nil, 0, 0},
		"no OPT record, signed": {[]dns.RR{signature()}, 0, 0},
		"another option":        {[]dns.RR{&dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{new(dns.EDNS0_EDE)}}, signature()}, 0, 1},
		"another subnet":        {[]dns.RR{&dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{answered}}}, 20, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := &dns.Msg{Extra: tc.extra}
			EchoSubnet(m, asked())
			want := asked()
			want.SourceScope = tc.want
			if opt := m.IsEdns0(); opt == nil || len(opt.Option) != tc.other+1 || Subnet(m) == nil || Subnet(m).String() != want.String() {
				t.Errorf("Expected %v and %d other options, got %v", want, tc.other, m)
			}
			if n := len(tc.extra); n > 0 && tc.extra[n-1].Header().Rrtype == dns.TypeTSIG && m.IsTsig() == nil {
				t.Errorf("Expected the TSIG record to be the last, got %v", m)
			}
		})
	}
}

func TestErrorTextTruncatesNoReply(t *testing.T) {
	for n, want := range map[int]string{15: "all servers are down", 16: ""} {
		r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeAAAA)
		r.SetEdns0(512, false)
		m := new(dns.Msg).SetReply(r)
		for range n {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: Header("www.example.org.", dns.TypeAAAA, 0), AAAA: net.ParseIP("2001:db8::1")})
		}
		SetOptions(m, r, dns.ExtendedErrorCodeOther, "all servers are down")
		if got := m.IsEdns0().Option[0].(*dns.EDNS0_EDE).ExtraText; got != want {
			t.Errorf("Expected the text %q beside %d records, got %q", want, n, got)
		}
		if m.Truncate(512); m.Truncated {
			t.Errorf("Expected all of %d records to fit", n)
		}
	}
}

func TestNormalizeEDNS(t *testing.T) {
	for asked, want := range map[uint16]uint16{512: 512, 1232: 1232, 1233: 1232, 65535: 1232} {
		r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		r.SetEdns0(asked, true)
		r.IsEdns0().Hdr.Ttl |= 0x7fff
		NormalizeEDNS(r)
		if got := r.IsEdns0(); got.UDPSize() != want || got.Hdr.Ttl != 0x8000 {
			t.Errorf("Expected %d bytes of %d and the DO flag alone, got %v", want, asked, got)
		}
	}
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	if NormalizeEDNS(r); r.IsEdns0() != nil {
		t.Error("Expected a query without EDNS to stay without")
	}
}
