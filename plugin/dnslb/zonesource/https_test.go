package zonesource

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// TestPreparedHTTPS compares records with those that package dns packs.
func TestPreparedHTTPS(t *testing.T) {
	v4 := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	v6 := []netip.Addr{netip.MustParseAddr("2001:db8::1")}
	for _, params := range []string{
		"", "alpn=h2,h3", "port=8443 alpn=h2 ech=AAAA dohpath=/q{?dns} key65280=x", "ech=AAAA", "ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1 dohpath=/a{?dns}",
		"mandatory=alpn,ipv4hint alpn=h2 ipv4hint=203.0.113.1", "mandatory=ipv4hint ipv4hint=203.0.113.1", "mandatory=ipv6hint,ipv4hint ipv6hint=2001:db8::9 ipv4hint=203.0.113.1 no-default-alpn alpn=h3",
	} {
		rr := newRR(zoneName + " 60 IN HTTPS 1 . " + params).(*dns.HTTPS)
		unchanged := rr.String()
		h, ok := newHTTPS(rr)
		if !ok {
			t.Fatalf("Expected %v to be prepared", rr)
		}
		if got := h.Append([]byte("x")); !bytes.Equal(got[1:], packedRR(t, rr)) || got[0] != 'x' {
			t.Errorf("Expected the record of the zone %v, got %x", rr, got)
		}
		for i := range 4 {
			var four, six []netip.Addr
			if i&hasV4 != 0 {
				four = v4
			}
			if i&hasV6 != 0 {
				six = v6
			}
			want := *rr
			want.Hdr.Ttl, want.Value = 7, dnsmsg.WithHints(rr.Value, four, six)
			if got := h.AppendHinted(nil, 7, four, six); !bytes.Equal(got, packedRR(t, &want)) {
				t.Errorf("Expected %v, got %x", &want, got)
			}
		}
		if rr.String() != unchanged {
			t.Errorf("Expected %s to stay as it was, got %v", unchanged, rr)
		}
	}
	for _, text := range []string{"0 www.example.org.", "0 .", "1 www.example.org. alpn=h2"} {
		if _, ok := newHTTPS(newRR(zoneName + " 60 IN HTTPS " + text).(*dns.HTTPS)); ok {
			t.Errorf("Expected HTTPS %s not to be prepared", text)
		}
	}
}

func packedRR(t *testing.T, rr dns.RR) []byte {
	t.Helper()
	b := make([]byte, dns.MaxMsgSize)
	n, err := dns.PackRR(rr, b, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}
