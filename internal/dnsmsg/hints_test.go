package dnsmsg

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// TestWithHints checks the parameters of an SVCB record (RFC 9460).
func TestWithHints(t *testing.T) {
	four, six := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, []netip.Addr{netip.MustParseAddr("2001:db8::1")}
	for _, tc := range []struct {
		before, after string
		v4, v6        bool
	}{
		{"", "", false, false},
		{"", "ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1", true, true},
		{"port=8443 alpn=h2 ech=AAAA dohpath=/q{?dns}", "alpn=h2 port=8443 ipv4hint=192.0.2.1,192.0.2.2 ech=AAAA ipv6hint=2001:db8::1 dohpath=/q{?dns}", true, true},
		{"ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1", "ipv6hint=2001:db8::1", false, true},
		{"mandatory=alpn,ipv4hint alpn=h2 ipv4hint=203.0.113.1", "mandatory=alpn,ipv4hint alpn=h2 ipv4hint=192.0.2.1,192.0.2.2", true, false},
		{"mandatory=alpn,ipv4hint alpn=h2 ipv4hint=203.0.113.1", "mandatory=alpn alpn=h2 ipv6hint=2001:db8::1", false, true},
		{"mandatory=ipv4hint ipv4hint=203.0.113.1 key65280=x", "key65280=x", false, false},
	} {
		parse := func(params string) *dns.SVCB {
			rr, err := dns.NewRR("www.example.org. 60 IN SVCB 1 . " + params)
			if err != nil {
				t.Fatal(err)
			}
			return rr.(*dns.SVCB)
		}
		before := parse(tc.before)
		unchanged := before.String()
		got := dns.SVCB{Hdr: before.Hdr, Priority: 1, Target: "."}
		v4, v6 := four, six
		if !tc.v4 {
			v4 = nil
		}
		if !tc.v6 {
			v6 = nil
		}
		got.Value = WithHints(before.Value, v4, v6)
		if want := parse(tc.after); got.String() != want.String() {
			t.Errorf("%q: expected\n%v\ngot\n%v", tc.before, want, &got)
		}
		if before.String() != unchanged {
			t.Errorf("%q: expected the record to stay as it was, got %v", tc.before, before)
		}
	}
}
