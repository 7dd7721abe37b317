package surveymsg

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const zone = "gslb.example.org."

// wire returns a message as its receiver has it.
func wire(t testing.TB, m *dns.Msg) *dns.Msg {
	t.Helper()
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := new(dns.Msg)
	if err := out.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWorkParsesToSameWork(t *testing.T) {
	w := Work{Next: 10 * time.Second, Targets: []Target{
		{Address: netip.MustParseAddr("192.0.2.7"), Every: 3 * time.Second},
		{Address: netip.MustParseAddr("2001:db8::7"), Every: time.Second, Method: TCP},
		{Address: netip.MustParseAddr("203.0.113.1"), Every: time.Second, Node: "lon1"},
		{Address: netip.MustParseAddr("198.51.100.7"), Every: time.Second, Method: Router},
	}}
	m := new(dns.Msg).SetQuestion(NodeName("par1", zone), dns.TypeTXT)
	m.Answer = w.Records("par1._survey.gslb.example.org.")
	if got, err := ParseWork(wire(t, m).Answer); err != nil || !reflect.DeepEqual(got, w) {
		t.Errorf("Expected %+v, got %+v, %v", w, got, err)
	}
}

func TestParseWork(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"v=1 next=5", ""},
		{"v=1 192.0.2.7", ""},
		{"v=1 192.0.2.7 every=2 method=quic later=1 word", ""},
		{"v=2 192.0.2.7", `unknown version "v=2"`},
		{"v=1", "record with 1 words"},
		{"", "record with 0 words"},
		{"v=1 next=-1", "invalid time '-1'"},
		{"v=1 next=3601", "expected 0 to 3600 seconds"},
		{"v=1 192.0.2.7 every=x", "invalid time 'x'"},
		{"v=1 192.0.2.7 node=a.b", "invalid node 'a.b'"},
		{"v=1 224.0.0.1", "invalid address '224.0.0.1'"},
		{"v=1 fe80::1%eth0", "invalid address"},
		{"v=1 www", "invalid address 'www'"},
	} {
		_, err := ParseWork([]dns.RR{&dns.TXT{Txt: []string{tc.text}}})
		if got := fmt.Sprint(err); (err == nil) != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%q: Expected %q, got %v", tc.text, tc.want, err)
		}
	}
	many := Work{}
	for i := range MaxTargets + 1 {
		many.Targets = append(many.Targets, Target{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
	}
	if _, err := ParseWork(many.Records(".")); err == nil {
		t.Error("Expected an error for too many targets")
	}
}

func TestReportParsesToSameResults(t *testing.T) {
	results := []Result{
		{Address: netip.MustParseAddr("192.0.2.7"), RTT: 12.345, Method: ICMP},
		{Address: netip.MustParseAddr("2001:db8::7"), RTT: 0.001, Method: DNS},
		{Address: netip.MustParseAddr("192.0.2.8"), Outcome: Silent},
		{Address: netip.MustParseAddr("192.0.2.9"), Outcome: Declined},
		{Address: netip.MustParseAddr("192.0.2.10"), RTT: 7.25, Method: Router, Router: netip.MustParseAddr("203.0.113.9"), TTL: 12},
		{Address: netip.MustParseAddr("2001:db8::8"), RTT: 0.001, Method: Router, Router: netip.MustParseAddr("2001:db8:9::1"), TTL: 255},
	}
	m := wire(t, Report("par1", zone, results))
	if !IsReport(m, zone) {
		t.Error("Expected a report")
	}
	node, err := ReporterOf(m, zone)
	if node != "par1" || err != nil {
		t.Errorf("Expected par1, got %q, %v", node, err)
	}
	if got, err := ParseReport(m); err != nil || !reflect.DeepEqual(got, results) {
		t.Errorf("Expected %+v, got %+v, %v", results, got, err)
	}
	reg := &registration.Registration{Zone: zone, Node: "par1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
	if r, err := reg.Message(); err != nil || IsReport(r, zone) {
		t.Errorf("Expected a registration to be no report, got %v, %v", r, err)
	}
}

func TestParseReportRefuses(t *testing.T) {
	const name = "par1._survey.gslb.example.org. 0 IN "
	txt := func(text string) []string { return []string{name + `TXT "` + text + `"`} }
	var many []string
	for i := range maxReports + 1 {
		many = append(many, fmt.Sprintf(name+`TXT "v=1 192.0.2.%d silent"`, i))
	}
	for _, tc := range []struct {
		name    string
		records []string
		rcode   int
	}{
		{"NaN", txt("v=1 192.0.2.7 rtt=NaN method=icmp"), dns.RcodeFormatError},
		{"infinite", txt("v=1 192.0.2.7 rtt=Inf method=icmp"), dns.RcodeFormatError},
		{"negative", txt("v=1 192.0.2.7 rtt=-1 method=icmp"), dns.RcodeFormatError},
		{"zero", txt("v=1 192.0.2.7 rtt=0.0 method=icmp"), dns.RcodeFormatError},
		{"huge", txt("v=1 192.0.2.7 rtt=10000.1 method=icmp"), dns.RcodeFormatError},
		{"exponent", txt("v=1 192.0.2.7 rtt=1e3 method=icmp"), dns.RcodeFormatError},
		{"hexadecimal", txt("v=1 192.0.2.7 rtt=0x1p3 method=icmp"), dns.RcodeFormatError},
		{"long", txt("v=1 192.0.2.7 rtt=1.0000000000000000000 method=icmp"), dns.RcodeFormatError},
		{"no method", txt("v=1 192.0.2.7 rtt=1"), dns.RcodeFormatError},
		{"method of silence", txt("v=1 192.0.2.7 silent method=icmp"), dns.RcodeFormatError},
		{"unknown method", txt("v=1 192.0.2.7 rtt=1 method=quic"), dns.RcodeFormatError},
		{"two outcomes", txt("v=1 192.0.2.7 rtt=1 silent method=icmp"), dns.RcodeFormatError},
		{"router as a method", txt("v=1 192.0.2.7 rtt=1 method=router"), dns.RcodeFormatError},
		{"router without a latency", txt("v=1 192.0.2.7 silent router=203.0.113.9 ttl=9"), dns.RcodeFormatError},
		{"router without a TTL", txt("v=1 192.0.2.7 silent router=203.0.113.9 router-rtt=1"), dns.RcodeFormatError},
		{"latency without a router", txt("v=1 192.0.2.7 silent router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"three times a TTL", txt("v=1 192.0.2.7 silent ttl=9 ttl=9 ttl=9"), dns.RcodeFormatError},
		{"router of what answered", txt("v=1 192.0.2.7 rtt=1 method=icmp router=203.0.113.9 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router of what was declined", txt("v=1 192.0.2.7 declined router=203.0.113.9 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router with an infinite latency", txt("v=1 192.0.2.7 silent router=203.0.113.9 router-rtt=Inf ttl=9"), dns.RcodeFormatError},
		{"router with a negative latency", txt("v=1 192.0.2.7 silent router=203.0.113.9 router-rtt=-1 ttl=9"), dns.RcodeFormatError},
		{"private router", txt("v=1 192.0.2.7 silent router=10.0.0.1 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router of a carrier", txt("v=1 192.0.2.7 silent router=100.64.0.1 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router within a cloud", txt("v=1 192.0.2.7 silent router=241.7.0.1 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router of this network", txt("v=1 192.0.2.7 silent router=0.1.2.3 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router on the loopback", txt("v=1 192.0.2.7 silent router=127.0.0.1 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"router on the link", txt("v=1 192.0.2.7 silent router=fe80::1 router-rtt=1 ttl=9"), dns.RcodeFormatError},
		{"TTL of 0", txt("v=1 192.0.2.7 silent router=203.0.113.9 router-rtt=1 ttl=0"), dns.RcodeFormatError},
		{"TTL of 256", txt("v=1 192.0.2.7 silent router=203.0.113.9 router-rtt=1 ttl=256"), dns.RcodeFormatError},
		{"no outcome", txt("v=1 192.0.2.7 later=1"), dns.RcodeFormatError},
		{"no address", txt("v=1 silent rtt=1"), dns.RcodeFormatError},
		{"no host", txt("v=1 0.0.0.0 silent"), dns.RcodeFormatError},
		{"empty", txt(""), dns.RcodeFormatError},
		{"another version", txt("v=2 192.0.2.7 silent"), dns.RcodeNotImplemented},
		{"twice", append(txt("v=1 192.0.2.7 silent"), txt("v=1 192.0.2.7 rtt=1 method=tcp")...), dns.RcodeFormatError},
		{"another type", []string{name + "A 192.0.2.7"}, dns.RcodeRefused},
		{"too many", many, dns.RcodeRefused},
	} {
		m := new(dns.Msg).SetUpdate(zone)
		for _, record := range tc.records {
			rr, err := dns.NewRR(record)
			if err != nil {
				t.Fatal(err)
			}
			m.Ns = append(m.Ns, rr)
		}
		_, err := ParseReport(wire(t, m))
		var e *registration.Error
		if !errors.As(err, &e) || e.Rcode != tc.rcode || e.Text == "" {
			t.Errorf("%s: Expected %s, got %v", tc.name, dns.RcodeToString[tc.rcode], err)
		}
	}
	deletion := new(dns.Msg).SetUpdate(zone)
	deletion.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: NodeName("par1", zone)}}})
	if _, err := ParseReport(wire(t, deletion)); err == nil {
		t.Error("Expected an error for a deletion")
	}
}

func TestReporterOf(t *testing.T) {
	for names, want := range map[string]int{
		"par1._survey.gslb.example.org.":                                dns.RcodeSuccess,
		"PAR1._Survey.gslb.example.org.":                                dns.RcodeSuccess,
		"_survey.gslb.example.org.":                                     dns.RcodeRefused,
		"a.par1._survey.gslb.example.org.":                              dns.RcodeRefused,
		"par1.lb.gslb.example.org.":                                     dns.RcodeRefused,
		"par1._survey.gslb.example.org. nyc1._survey.gslb.example.org.": dns.RcodeRefused,
		"par1._survey.gslb.example.org. par1._survey.example.net.":      dns.RcodeNotZone,
	} {
		m := new(dns.Msg)
		for name := range strings.FieldsSeq(names) {
			m.Ns = append(m.Ns, &dns.TXT{Hdr: dns.RR_Header{Name: name}})
		}
		_, err := ReporterOf(m, zone)
		var e *registration.Error
		if want == dns.RcodeSuccess && err != nil || want != dns.RcodeSuccess && (!errors.As(err, &e) || e.Rcode != want) {
			t.Errorf("%s: Expected %s, got %v", names, dns.RcodeToString[want], err)
		}
	}
}

func TestIsRouterAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"203.0.113.9": true, "1.0.0.1": true, "223.255.255.1": true, "192.0.1.1": true, "100.63.255.1": true, "100.128.0.1": true, "2001:db8::1": true, "3fff::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "100.127.255.254": false, "127.0.0.1": false, "169.254.0.1": false,
		"172.16.0.1": false, "192.0.0.1": false, "192.168.0.1": false, "224.0.0.1": false, "240.0.0.1": false, "241.7.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:203.0.113.9": false, "64:ff9b::a00:1": false, "64:ff9b:1::1": false, "fd00::1": false, "fe80::1": false, "fe80::1%eth0": false,
		"2001:db8::1%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := IsRouterAddress(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: Expected %t, got %t", text, want, got)
		}
	}
	if IsRouterAddress(netip.Addr{}) {
		t.Error("Expected no address not to be one of a router")
	}
}

// TestOldReadersSeeSilence checks that a latency of a router is in words KEY=VALUE that
// readers of earlier versions do not know, and that work for such a latency is.
func TestOldReadersSeeSilence(t *testing.T) {
	text := Result{Address: netip.MustParseAddr("192.0.2.7"), RTT: 7, Method: Router, Router: netip.MustParseAddr("203.0.113.9"), TTL: 9}.text()
	rest, ok := strings.CutPrefix(text, "192.0.2.7 silent ")
	for word := range strings.FieldsSeq(rest) {
		key, _, assigned := strings.Cut(word, "=")
		ok = ok && assigned && !slices.Contains([]string{"rtt", "method", "silent", "declined"}, key)
	}
	if !ok {
		t.Errorf("Expected words that mean silence to all readers, got %q", text)
	}
	work := Work{Targets: []Target{{Address: netip.MustParseAddr("192.0.2.7"), Method: Router}}}.Records(".")
	if text := work[1].String(); !strings.Contains(text, " measure=router") || strings.Contains(text, "method=") {
		t.Errorf("Expected a word that earlier versions do not know, got %s", text)
	}
}

// FuzzParseReport checks that whatever is taken is within the limits, and the same
// when it is sent again.
func FuzzParseReport(f *testing.F) {
	for _, results := range [][]Result{
		{{Address: netip.MustParseAddr("192.0.2.7"), RTT: 12.345, Method: ICMP}, {Address: netip.MustParseAddr("2001:db8::7"), Outcome: Silent}},
		{{Address: netip.MustParseAddr("192.0.2.8"), Outcome: Declined}}, nil,
		{{Address: netip.MustParseAddr("192.0.2.9"), RTT: 7.25, Method: Router, Router: netip.MustParseAddr("203.0.113.9"), TTL: 12}},
	} {
		packed, err := Report("par1", zone, results).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			return
		}
		node, err := ReporterOf(m, zone)
		var e *registration.Error
		if err != nil {
			if !errors.As(err, &e) || e.Rcode == dns.RcodeSuccess || e.Text == "" {
				t.Fatalf("Expected an *Error with a code and a text, got %#v", err)
			}
			return
		}
		results, err := ParseReport(m)
		if err != nil {
			if !errors.As(err, &e) || e.Rcode == dns.RcodeSuccess || e.Text == "" {
				t.Fatalf("Expected an *Error with a code and a text, got %#v", err)
			}
			return
		}
		if len(results) > maxReports {
			t.Fatalf("Expected at most %d results, got %d", maxReports, len(results))
		}
		for i, r := range results {
			if !r.Address.IsValid() || r.Outcome == Measured && (!(r.RTT > 0) || r.RTT > maxRTT) || r.Outcome != Measured && r.RTT != 0 {
				t.Fatalf("Expected a result within the limits, got %+v", r)
			}
			if r.Method == Router && (!IsRouterAddress(r.Router) || r.TTL == 0) || r.Method != Router && (r.Router.IsValid() || r.TTL != 0) {
				t.Fatalf("Expected a router with its TTL, or none, got %+v", r)
			}
			results[i].RTT = math.Round(r.RTT*1000) / 1000
			if r.RTT > 0 {
				results[i].RTT = max(results[i].RTT, 0.001)
			}
		}
		if len(results) == 0 {
			return
		}
		again, err := ParseReport(wire(t, Report(node, zone, results)))
		if err != nil || !reflect.DeepEqual(again, results) {
			t.Fatalf("Expected %+v, got %+v, %v", results, again, err)
		}
	})
}

// FuzzParseWork checks that work which is taken is within the limits.
func FuzzParseWork(f *testing.F) {
	f.Add("v=1 192.0.2.7 every=3 method=icmp node=par1")
	f.Add("v=1 next=10")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWork([]dns.RR{&dns.TXT{Txt: []string{text}}})
		if err != nil {
			return
		}
		for _, target := range w.Targets {
			if !registration.IsNodeAddress(target.Address) || target.Every < 0 || target.Every > maxWait || w.Next > maxWait {
				t.Fatalf("Expected work within the limits, got %+v", w)
			}
		}
	})
}
