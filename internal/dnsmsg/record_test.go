package dnsmsg

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestTextSurvivesTheWire(t *testing.T) {
	for _, text := range []string{"", "one", `a "b" \c`, strings.Repeat("x", 255), strings.Repeat("y", 256), strings.Repeat(`"`, 600)} {
		m := &dns.Msg{Answer: []dns.RR{NewTXT(Header("example.org.", dns.TypeTXT, 0), text)}}
		wire, err := m.Pack()
		if err == nil {
			err = m.Unpack(wire)
		}
		if err != nil {
			t.Errorf("Expected a message for %q, got %v", text, err)
			continue
		}
		strs := m.Answer[0].(*dns.TXT).Txt
		if got := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(strings.Join(strs, "")); got != text {
			t.Errorf("Expected %q, got %q", text, got)
		}
		if n := max(1, (len(text)+254)/255); len(strs) != n {
			t.Errorf("Expected %q in %d strings, got %d", text, n, len(strs))
		}
	}
}

func TestTextInPresentationForm(t *testing.T) {
	rr := NewTXT(Header("example.org.", dns.TypeTXT, 0), strings.Repeat(`a "quoted\ text" `, 40))
	parsed, err := dns.NewRR(rr.String())
	if err != nil || parsed.String() != rr.String() || len(rr.Txt) != 3 {
		t.Errorf("Expected the record to parse as itself, got %v, %v", parsed, err)
	}
}

func TestTextWithoutEscapes(t *testing.T) {
	for in, want := range map[string]string{`a\"b\\c`: `a"b\c`, `\195\182`: "ö", `x\`: `x\`, `\9`: "9", "": ""} {
		if got := Text(&dns.TXT{Txt: []string{in}}); got != want {
			t.Errorf("%s: Expected %q, got %q", in, want, got)
		}
	}
}

func TestAddressRecords(t *testing.T) {
	v4, v6, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")
	addrs := []netip.Addr{v4, v6, other}
	for rrtype, want := range map[uint16][]netip.Addr{dns.TypeA: {v4, other}, dns.TypeAAAA: {v6}, dns.TypeTXT: nil} {
		var got []netip.Addr
		for _, rr := range AddressRecords(Header("www.example.org.", rrtype, 30), addrs) {
			if h := rr.Header(); *h != Header("www.example.org.", rrtype, 30) {
				t.Errorf("Expected a record of type %s, got %v", dns.Type(rrtype), rr)
			}
			addr, ok := Address(rr)
			if !ok {
				t.Errorf("Expected an address in %v", rr)
			}
			got = append(got, addr)
		}
		if !slices.Equal(got, want) {
			t.Errorf("Expected %s records of %v, got %v", dns.Type(rrtype), want, got)
		}
	}
	if got := AddressTypes(addrs); !slices.Equal(got, []uint16{dns.TypeA, dns.TypeAAAA}) {
		t.Errorf("Expected each type once, got %v", got)
	}
}

func TestRecordWithoutAddress(t *testing.T) {
	for _, rr := range []dns.RR{&dns.A{}, &dns.AAAA{}, &dns.AAAA{AAAA: []byte{192, 0, 2, 1}}, &dns.TXT{}} {
		if addr, ok := Address(rr); ok {
			t.Errorf("Expected no address in %v, got %v", rr, addr)
		}
	}
}

func TestLimitTTL(t *testing.T) {
	rr := &dns.NS{Hdr: Header("example.org.", dns.TypeNS, 60), Ns: "ns.example.org."}
	if got := LimitTTL(rr, 60); got != dns.RR(rr) {
		t.Errorf("Expected the record itself, got %v", got)
	}
	if got := LimitTTL(rr, 30); got.Header().Ttl != 30 || rr.Hdr.Ttl != 60 {
		t.Errorf("Expected a copy with TTL 30, got %v of %v", got, rr)
	}
}

// The limits are those of the programs that check delegations, within RFC 1912,
// section 2.2.
func TestSOATimers(t *testing.T) {
	for _, ttl := range []uint32{0, 30, 300, 86400} {
		soa := NewSOA("example.org.", "ns.example.org.", "hostmaster.example.org.", 1, ttl)
		if soa.Refresh < 14400 || soa.Refresh > 43200 {
			t.Errorf("Expected REFRESH of 4 to 12 hours, got %d", soa.Refresh)
		}
		if soa.Retry < 3600 || soa.Retry >= soa.Refresh {
			t.Errorf("Expected RETRY of an hour or more, and less than REFRESH, got %d", soa.Retry)
		}
		if soa.Expire < 1209600 || soa.Expire > 2419200 {
			t.Errorf("Expected EXPIRE of 2 to 4 weeks, got %d", soa.Expire)
		}
		if got := min(soa.Hdr.Ttl, soa.Minttl); got != ttl {
			t.Errorf("Expected negative answers to have a TTL of %d, got %d", ttl, got)
		}
	}
}
