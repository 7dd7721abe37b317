package peerview

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// exampleView has servers with names and without, in both families.
func exampleView(now time.Time) *View {
	return &View{Node: "par1", Serial: 17, Made: now.Add(-3 * time.Second), Deputies: []string{"lon1", strings.Repeat("n", 60), strings.Repeat("y", 63), strings.Repeat("c", 63), strings.Repeat("1", 63)}, Targets: map[Target]Measurement{
		{addr("192.0.2.1"), ""}:                       {"fra", ranking.Estimate{Round: 17, RTT: 12.345, Value: 12.345, Noise: 0.51}, now.Add(-5 * time.Second), latencyprobe.Up},
		{addr("2001:db8::1"), ""}:                     {"fra", ranking.Estimate{Round: 2, RTT: 200, Value: 200}, now.Add(-60 * time.Second), latencyprobe.Down},
		{addr("192.0.2.1"), "mail=b äü\"\\"}:          {"fra", ranking.Estimate{Round: 1, RTT: 1, Value: 1}, now, latencyprobe.Up},
		{addr("192.0.2.9"), ""}:                       {"192.0.2.9", ranking.Estimate{}, time.Time{}, latencyprobe.Unknown},
		{addr("2001:db8::9"), "web"}:                  {"2001:db8::9", ranking.Estimate{}, time.Time{}, latencyprobe.Down},
		{addr("192.0.2.3"), strings.Repeat("x", 300)}: {"long", ranking.Estimate{Round: 1, RTT: 1, Value: 1}, now, latencyprobe.Up},
	}, Rankings: map[Service]Ranking{
		{"www." + testCut, true}:           {[]netip.Addr{addr("192.0.2.9"), addr("192.0.2.1")}, nil},
		{"www." + testCut, false}:          {[]netip.Addr{addr("2001:db8::9")}, nil},
		{testCut, true}:                    {[]netip.Addr{addr("192.0.2.1")}, nil},
		{"*.www.example.org.", true}:       {[]netip.Addr{addr("192.0.2.3"), addr("192.0.2.1"), addr("192.0.2.9")}, []netip.Addr{addr("192.0.2.3"), addr("192.0.2.9")}},
		{"_ranked._udp." + testCut, false}: {[]netip.Addr{addr("2001:db8::1")}, nil},
	}}
}

// transferred returns the records of a view as they come over the wire.
func transferred(t testing.TB, v *View, now time.Time) []dns.RR {
	t.Helper()
	soa := v.soa(testZone, nameserver)
	m := new(dns.Msg)
	m.Answer = append([]dns.RR{soa}, v.records(testCut, nameserver, now)...)
	m.Answer = append(m.Answer, soa)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	return m.Answer
}

var updateGolden = flag.Bool("update", false, "write the golden file")

// TestViewMatchesGoldenFile checks that the wire form stays as other versions
// read it.
func TestViewMatchesGoldenFile(t *testing.T) {
	now := time.Date(2026, time.January, 30, 11, 20, 6, 0, time.UTC)
	var b strings.Builder
	for _, rr := range transferred(t, exampleView(now), now) {
		b.WriteString(rr.String() + "\n")
	}
	path := filepath.Join("testdata", "view.golden")
	if *updateGolden {
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("Expected\n%s\ngot\n%s", want, b.String())
	}

	var records []dns.RR
	parser := dns.NewZoneParser(bytes.NewReader(want), ".", path)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		records = append(records, rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := readView(records, now); err != nil {
		t.Errorf("Expected to read the golden file, got %v", err)
	}
}

func readView(records []dns.RR, now time.Time) (*View, error) {
	r := newReader("par1", testCut, now)
	for _, rr := range records {
		if err := r.add(rr); err != nil {
			return nil, err
		}
	}
	return r.end()
}

// TestViewSurvivesTransfer checks that what is read is what was written, with
// ages by the clock of the reader.
func TestViewSurvivesTransfer(t *testing.T) {
	now := time.Now()
	want := exampleView(now)
	other := now.Add(-time.Hour) // clock of the reader
	got, err := readView(transferred(t, want, now), other)
	if err != nil {
		t.Fatal(err)
	}
	close := func(a, b time.Time) bool { return a.Sub(b).Abs() < 100*time.Millisecond }
	if got.Serial != 17 || got.Node != "par1" || !close(got.Made, other.Add(-3*time.Second)) || !slices.Equal(got.Deputies, want.Deputies) || len(got.Targets) != len(want.Targets) {
		t.Errorf("Unexpected view %+v", got)
	}
	if !reflect.DeepEqual(got.Rankings, want.Rankings) {
		t.Errorf("Expected the rankings %v, got %v", want.Rankings, got.Rankings)
	}
	for target, w := range want.Targets {
		g, ok := got.Targets[target]
		if !ok {
			t.Errorf("Expected %v", target)
			continue
		}
		if !w.At.IsZero() {
			if !close(g.At, w.At.Add(-time.Hour)) {
				t.Errorf("%v: expected the age %v, got %v", target, now.Sub(w.At), other.Sub(g.At))
			}
			g.At = w.At
		}
		if g != w {
			t.Errorf("%v: expected %+v, got %+v", target, w, g)
		}
	}
}

// TestOversizeRankingsAreLeftOut checks that deputies rank services by the
// estimates whose record would be too long: those with too many servers, and
// with a name that a character-string cannot hold as it is. The rest fits into
// a transfer.
func TestOversizeRankingsAreLeftOut(t *testing.T) {
	v := &View{Node: "par1", Rankings: map[Service]Ranking{
		{`a\b.` + testCut, true}: {Order: []netip.Addr{addr("192.0.2.1")}},
		{strings.Repeat(strings.Repeat("x", 63)+".", 4) + "example.org.", true}: {Order: []netip.Addr{addr("192.0.2.1")}},
	}}
	var most []netip.Addr
	for i := range maxRanked {
		most = append(most, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, byte(16 + i>>8), byte(i)}))
	}
	v.Rankings[Service{"more." + testCut, false}] = Ranking{Order: append(most, addr("2001:db8::1"))}
	if got := v.rankingTexts(testCut); len(got) > 0 {
		t.Errorf("Expected no records, got %q", got)
	}
	for i := range 20 {
		v.Rankings[Service{fmt.Sprintf("%d.%s", i, strings.Repeat("x", 60)+"."+strings.Repeat("x", 60)+"."+strings.Repeat("x", 60)+".example.org."), false}] = Ranking{most, most}
	}
	var packed packer
	if err := dnsmsg.WriteTransfer(&packed, new(dns.Msg).SetAxfr(testZone), v.soa(testZone, "."), slices.Values(v.records(testCut, ".", time.Now()))); err != nil || packed.messages == 0 {
		t.Errorf("Expected to send it in several messages, got %d, %v", packed.messages, err)
	}
}

// packer fails for a message that cannot be sent.
type packer struct {
	test.ResponseWriter
	messages int
}

func (p *packer) WriteMsg(m *dns.Msg) error {
	p.messages++
	_, err := m.Pack()
	return err
}

func TestIsViewName(t *testing.T) {
	for name, want := range map[string]bool{
		testZone: true, "fra." + testZone: true, `a\.b._view.` + testCut: true, `a\\._view.` + testCut: true,
		testCut: false, "_view." + testCut: false, "x_view." + testCut: false, "par1._view.example.org.": false,
		`a\._view.` + testCut: false, `b.a\._view.` + testCut: false, `a\\\._view.` + testCut: false,
	} {
		if got := IsViewName(name, testCut); got != want {
			t.Errorf("%s: expected %v, got %v", name, want, got)
		}
	}
}

func TestReaderErrors(t *testing.T) {
	now := time.Now()
	tests := []struct{ change, err string }{
		{"fra." + testZone + ` 0 IN TXT "192.0.2.300 state=up"`, "invalid address"},
		{"fra." + testZone + ` 0 IN TXT ""`, "the record is empty"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.1 value=NaN"`, "invalid number"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.1 value=-1"`, "invalid number"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.1 value=1e300"`, "invalid number"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.77 value=1 round=1"`, "without an age"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.1 state=well"`, "unknown state"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.1 probe=%zz"`, "probe"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.1 state=up"`, "twice"},
		{testZone + ` 0 IN TXT "v=2 age=1"`, `unknown version "v=2", expected "v=1": update the node with the older program`},
		{testZone + ` 0 IN TXT "` + strings.Repeat("x", 200) + `"`, `unknown version "xxxxxxxxxxxxxxxxxxxx", expected`},
		{testZone + ` 0 IN TXT ""`, `unknown version "", expected`},
		{testZone + ` 0 IN TXT "v=1 age=1 later=x words"`, ""},
		{"_later." + testZone + ` 0 IN TXT "no address"`, ""},
		{"fra._later." + testZone + ` 0 IN TXT "no address"`, ""},
		{"_later.fra." + testZone + ` 0 IN TXT "no address"`, "invalid address"},
		{testZone + ` 0 IN TXT "v=1 age=x"`, "invalid number"},
		{testZone + ` 0 IN TXT "v=1 age=1 deputies=lon1,fra1.x"`, "invalid deputy 'fra1.x'"},
		{`www.example.org. 0 IN TXT "192.0.2.1"`, "not in the zone"},
		{testZone + ` 0 IN SOA . . 1 1 1 1 1`, "3 SOA records"},
		{"fra." + testZone + ` 0 IN SOA . . 1 1 1 1 1`, "SOA record at"},
		{"fra." + testZone + ` 0 IN TXT "192.0.2.77 later=1 words state=up"`, ""},
		{"fra." + testZone + ` 0 IN A 192.0.2.1`, ""},
		{"_ranked." + testZone + ` 0 IN TXT "mail" "192.0.2.1" "192.0.2.2"`, ""},
		{"_ranked." + testZone + ` 0 IN TXT "mail.example.org." "~2001:db8::1" "~2001:db8::2"`, ""},
		{"_ranked." + testZone + ` 0 IN TXT "www" "192.0.2.9"`, "twice"},
		{"_ranked." + testZone + ` 0 IN TXT "mail" "192.0.2.9" "~192.0.2.9"`, "twice"},
		{"_ranked." + testZone + ` 0 IN TXT "mail" "192.0.2.9" "2001:db8::1"`, "of another address family"},
		{"_ranked." + testZone + ` 0 IN TXT "mail"`, "service with 0 servers"},
		{"_ranked." + testZone + ` 0 IN TXT "mail"` + strings.Repeat(` "192.0.2.1"`, maxRanked+1), "service with 301 servers"},
		{"_ranked." + testZone + ` 0 IN TXT "mail" "www"`, "invalid address"},
		{"_ranked." + testZone + ` 0 IN TXT "mail" "fe80::1%eth0"`, "invalid address"},
	}
	for _, tc := range tests {
		rr, err := dns.NewRR(tc.change)
		if err != nil {
			t.Fatal(err)
		}
		records := transferred(t, exampleView(now), now)
		records = append(records[:len(records)-1:len(records)-1], rr, records[len(records)-1])
		_, err = readView(records, now)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: expected an error with %q, got %v", tc.change, tc.err, err)
		}
	}
	records := transferred(t, exampleView(now), now)
	if _, err := readView(records[:len(records)-1], now); err == nil {
		t.Error("Expected an error for a transfer that is cut off")
	}
	if _, err := readView([]dns.RR{records[0], records[0]}, now); err == nil {
		t.Error("Expected an error for a view without an age")
	}
}

// TestViewOfPromisedSizeFits checks that a view of the documented size can be
// read, and that a larger one is refused.
func TestViewOfPromisedSizeFits(t *testing.T) {
	const servers = 100_000
	now := time.Now()
	v := &View{Node: "par1", Made: now, Targets: make(map[Target]Measurement), Rankings: make(map[Service]Ranking)}
	for i := range servers {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		known := Measurement{fmt.Sprintf("server%d", i), ranking.Estimate{Round: 1000, Value: 123.456, Noise: 10.5}, now, latencyprobe.Up}
		v.Targets[Target{netip.AddrFrom16(b), ""}] = known
		v4, v6 := netip.AddrFrom4([4]byte{10, b[13], b[14], b[15]}), netip.AddrFrom16(b)
		v.Targets[Target{v4, ""}] = known
		service := fmt.Sprintf("service%d.%s", i, testCut)
		v.Rankings[Service{service, true}] = Ranking{Order: []netip.Addr{v4}}
		v.Rankings[Service{service, false}] = Ranking{Order: []netip.Addr{v6}}
	}
	soa := v.soa(testZone, ".")
	records := append(append([]dns.RR{soa}, v.records(testCut, ".", now)...), soa)
	if _, err := readView(records, now); err != nil {
		t.Errorf("Expected to read the view of %d servers, got %v", servers, err)
	}
	var size counter
	if err := dnsmsg.WriteTransfer(&size, new(dns.Msg).SetAxfr(testZone), soa, slices.Values(records[1:len(records)-1])); err != nil || size.bytes > maxBytes/2 {
		t.Errorf("Expected at most half of %d bytes, got %d, %v", maxBytes, size.bytes, err)
	}
	if _, err := readView(slices.Repeat([]dns.RR{soa}, maxRecords+1), now); err == nil || !strings.Contains(err.Error(), "more than 500000 records") {
		t.Errorf("Expected an error that tells the limit, got %v", err)
	}
}

// counter counts the bytes of the messages that are written.
type counter struct {
	test.ResponseWriter
	bytes int
}

func (c *counter) WriteMsg(m *dns.Msg) error { c.bytes += m.Len(); return nil }

// FuzzView checks that whatever a record says ends as an error or as something
// that can be written and read again.
func FuzzView(f *testing.F) {
	now := time.Now()
	for target, s := range exampleView(now).Targets {
		f.Add(s.text(target, now))
	}
	f.Add("v=1 age=3 near=f00 deputies=lon1,nyc1")
	f.Add("www 192.0.2.1 ~192.0.2.2")
	f.Fuzz(func(t *testing.T, text string) {
		r := newReader("par1", testCut, now)
		_ = r.readApex(strings.Fields(text))
		if r.readRanking(strings.Fields(text)) == nil {
			again := newReader("par1", testCut, now)
			for _, texts := range r.view.rankingTexts(testCut) {
				if err := again.readRanking(texts); err != nil {
					t.Fatalf("Expected to read %q again, got %v", texts, err)
				}
			}
			for s, ranked := range again.view.Rankings {
				if !reflect.DeepEqual(r.view.Rankings[s], ranked) {
					t.Fatalf("Expected %v of %v, got %v", r.view.Rankings[s], s, ranked)
				}
			}
		}
		if r.readTarget("fra", strings.Fields(text)) != nil {
			return
		}
		for target, s := range r.view.Targets {
			if v := s.Estimate.Value; math.IsNaN(v) || v < 0 || v > milliseconds(maxEstimate) {
				t.Fatalf("Unexpected estimate %v", v)
			}
			again := newReader("par1", testCut, now)
			if err := again.readTarget("fra", strings.Fields(s.text(target, now))); err != nil {
				t.Fatalf("Expected to read %q again, got %v", s.text(target, now), err)
			}
			if _, ok := again.view.Targets[target]; !ok {
				t.Fatalf("Expected %v again", target)
			}
		}
	})
}

// BenchmarkView writes and reads the view of 10,000 servers and 100,000
// services in both families.
func BenchmarkView(b *testing.B) {
	now := time.Now()
	v := &View{Node: "par1", Made: now, Targets: make(map[Target]Measurement), Rankings: make(map[Service]Ranking)}
	for i := range 100_000 {
		name, a := fmt.Sprintf("service%d.%s", i, testCut), [16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i % 10_000 >> 8), 15: byte(i % 10_000)}
		for _, addr := range []netip.Addr{netip.AddrFrom16(a), netip.AddrFrom4([4]byte{10, 0, a[14], a[15]})} {
			v.Targets[Target{addr, ""}] = Measurement{fmt.Sprintf("server%d", i), ranking.Estimate{Round: 17, Value: 12.345, Noise: 0.5}, now, latencyprobe.Up}
			v.Rankings[Service{name, addr.Is4()}] = Ranking{Order: []netip.Addr{addr}}
		}
	}
	soa := v.soa(testZone, ".")
	records := append(append([]dns.RR{soa}, v.records(testCut, ".", now)...), soa)
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			v.records(testCut, ".", now)
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := readView(records, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
