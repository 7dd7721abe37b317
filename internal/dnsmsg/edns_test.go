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

// received returns a query with options of any data, as a server receives it. It is
// nil if package dns refuses the message.
func received(t *testing.T, options ...dns.EDNS0) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	m.SetEdns0(1232, true)
	m.IsEdns0().Option = options
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	r := new(dns.Msg)
	if r.Unpack(packet) != nil {
		return nil
	}
	return r
}

// TestOctetsOfSubnet checks that the data of a client subnet must be as long as the
// prefix needs (RFC 7871, section 6), whatever other options there are.
func TestOctetsOfSubnet(t *testing.T) {
	beside := map[string][]dns.EDNS0{
		"alone":       nil,
		"cookie":      {&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}},
		"NSID":        {&dns.EDNS0_NSID{Code: dns.EDNS0NSID}},
		"NSID data":   {&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "616263"}},
		"lease":       {&dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: 1}},
		"long lease":  {&dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: 1, KeyLease: 1}},
		"algorithms":  {&dns.EDNS0_DAU{Code: dns.EDNS0DAU, AlgCode: []uint8{8, 13}}},
		"expire":      {&dns.EDNS0_EXPIRE{Code: dns.EDNS0EXPIRE, Empty: true}},
		"keepalive":   {&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}},
		"padding":     {&dns.EDNS0_PADDING{Padding: make([]byte, 31)}},
		"error":       {&dns.EDNS0_EDE{InfoCode: 1, ExtraText: "text\x00"}},
		"zone":        {&dns.EDNS0_ZONEVERSION{LabelCount: 2, Version: "1234"}},
		"unknown":     {&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1, 2, 3}}, &dns.EDNS0_LOCAL{Code: 100}},
		"three":       {&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}}, &dns.EDNS0_PADDING{Padding: make([]byte, 9)}},
		"two cookies": {&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708090a0b0c0d0e0f10"}},
	}
	for _, tc := range []struct {
		name string
		data []byte
		want bool
	}{
		{"IPv4", []byte{0, 1, 24, 0, 198, 51, 100}, false},
		{"IPv4, 17 bits", []byte{0, 1, 17, 0, 198, 51, 128}, false},
		{"IPv4, length 0", []byte{0, 1, 0, 0}, false},
		{"IPv4 host", []byte{0, 1, 32, 0, 198, 51, 100, 7}, false},
		{"IPv6", []byte{0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 1}, false},
		{"family 0", []byte{0, 0, 0, 0}, false},
		{"IPv4, one octet too few", []byte{0, 1, 24, 0, 198, 51}, true},
		{"IPv4, no octets", []byte{0, 1, 24, 0}, true},
		{"IPv4, one octet too many", []byte{0, 1, 24, 0, 198, 51, 100, 0}, true},
		{"IPv4, 17 bits, one octet too many", []byte{0, 1, 16, 0, 198, 51, 0}, true},
		{"IPv4, length 0 with octets", []byte{0, 1, 0, 0, 0}, true},
		{"IPv4 host, octets of IPv6", append([]byte{0, 1, 32, 0, 198, 51, 100, 7}, make([]byte, 12)...), true},
		{"IPv6, one octet too few", []byte{0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0}, true},
		{"IPv6, one octet too many", []byte{0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 1, 0}, true},
		{"IPv6, too many for any", append([]byte{0, 2, 128, 0, 0x20, 1}, make([]byte, 40)...), true},
		{"family 0 with octets", []byte{0, 0, 0, 0, 0, 0}, true},
	} {
		subnet := &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: tc.data}
		for name, others := range beside {
			for _, options := range [][]dns.EDNS0{append([]dns.EDNS0{subnet}, others...), append(slices.Clone(others), subnet)} {
				if got := MalformedSubnet(received(t, options...)); got != tc.want {
					t.Errorf("%s, %s: Expected %v, got %v", tc.name, name, tc.want, got)
				}
			}
		}
	}

	t.Run("no subnet", func(t *testing.T) {
		for name, options := range beside {
			if MalformedSubnet(received(t, options...)) {
				t.Errorf("%s: Expected no error", name)
			}
		}
	})
	t.Run("not received", func(t *testing.T) { // as plugins ask each other
		r := received(t).Copy()
		r.Extra = nil
		r.SetEdns0(1232, false)
		r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}}}
		if MalformedSubnet(r) {
			t.Error("Expected no error")
		}
	})
	t.Run("allocations", func(t *testing.T) {
		r := received(t, &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 24, 0, 198, 51, 100}}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
		if n := testing.AllocsPerRun(10, func() { MalformedSubnet(r) }); n > 0 {
			t.Errorf("Expected no allocations, got %v", n)
		}
	})
}
