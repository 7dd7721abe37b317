package edns

import (
	"testing"

	"github.com/miekg/dns"
)

func TestComplete(t *testing.T) {
	subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 24, Address: []byte{198, 51, 100, 0}}
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
				if s, ok := option.(*dns.EDNS0_SUBNET); ok && (s.SourceScope != 0 || s.SourceNetmask != 24) {
					t.Errorf("%s: expected scope 0, got %v", tc.name, s)
				}
			}
		}
		if len(got) != len(tc.want) || len(got) > 0 && (got[0] != tc.want[0] || got[len(got)-1] != tc.want[len(tc.want)-1]) {
			t.Errorf("%s: expected options %v, got %v", tc.name, tc.want, got)
		}
	}
}
