package edns

import (
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func TestComplete(t *testing.T) {
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
		{"no EDNS", false, nil, "why", nil},
		{"nothing to say", true, nil, "", nil},
		{"an error", true, nil, "why", []uint16{dns.EDNS0EDE}},
		{"a subnet", true, []dns.EDNS0{subnet}, "", []uint16{dns.EDNS0SUBNET}},
		{"two subnets", true, []dns.EDNS0{subnet, subnet}, "", nil},
		{"a subnet with bits behind its length", true, []dns.EDNS0{with(1, 20, "203.0.127.0")}, "why", []uint16{dns.EDNS0EDE}},
		{"IPv6", true, []dns.EDNS0{with(2, 48, "2001:db8:1::")}, "", []uint16{dns.EDNS0SUBNET}},
		{"IPv6 with bits behind its length", true, []dns.EDNS0{with(2, 47, "2001:db8:1::")}, "", nil},
		{"nobody's subnet", true, []dns.EDNS0{with(1, 0, "0.0.0.0")}, "", []uint16{dns.EDNS0SUBNET}},
		{"nobody's subnet, of no family", true, []dns.EDNS0{with(0, 0, "0.0.0.0")}, "", []uint16{dns.EDNS0SUBNET}},
		{"a scope in a query", true, []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 24, Address: subnet.Address}}, "", nil},
		{"both, and a cookie", true, []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE}, subnet}, "why", []uint16{dns.EDNS0SUBNET, dns.EDNS0EDE}},
	}
	for _, tc := range tests {
		r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
		if tc.edns {
			r.SetEdns0(1232, true)
			r.IsEdns0().Option = tc.options
		}
		m := new(dns.Msg).SetReply(r)
		for range 2 {
			Complete(m, r, dns.ExtendedErrorCodeOther, tc.text)
		}
		var got []uint16
		if o := m.IsEdns0(); o != nil {
			if !o.Do() || len(m.Extra) != 1 {
				t.Errorf("%s: expected one OPT record with DO, got %v", tc.name, m)
			}
			for _, option := range o.Option {
				got = append(got, option.Option())
				s, ok := option.(*dns.EDNS0_SUBNET)
				asked := func(o dns.EDNS0) bool { return o.String() == s.String() }
				if ok && (s.SourceScope != 0 || !slices.ContainsFunc(tc.options, asked)) {
					t.Errorf("%s: expected the same with scope 0, got %v", tc.name, s)
				}
			}
		}
		if len(got) != len(tc.want) || len(got) > 0 && (got[0] != tc.want[0] || got[len(got)-1] != tc.want[len(tc.want)-1]) {
			t.Errorf("%s: expected options %v, got %v", tc.name, tc.want, got)
		}
	}
}

// TestText checks that the text of an error pushes no record out of a message.
func TestText(t *testing.T) {
	for n, want := range map[int]string{15: "all servers are down", 16: ""} {
		r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeAAAA)
		r.SetEdns0(512, false)
		m := new(dns.Msg).SetReply(r)
		for range n {
			m.Answer = append(m.Answer, &dns.AAAA{
				Hdr: dns.RR_Header{Name: "www.example.org.", Rrtype: dns.TypeAAAA, Class: dns.ClassINET}, AAAA: net.ParseIP("2001:db8::1"),
			})
		}
		Complete(m, r, dns.ExtendedErrorCodeOther, "all servers are down")
		if got := m.IsEdns0().Option[0].(*dns.EDNS0_EDE).ExtraText; got != want {
			t.Errorf("%d records: expected the text %q, got %q", n, want, got)
		}
		if m.Truncate(512); m.Truncated {
			t.Errorf("%d records: expected all to fit", n)
		}
	}
}
