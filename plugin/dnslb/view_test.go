package dnslb

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const testView = "par1._view." + testZone

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// exampleView has servers with names and without, in both families.
func exampleView(now time.Time) *view {
	return &view{node: "par1", serial: 17, made: now.Add(-3 * time.Second), near: digest(nil), deputies: []string{"lon1", strings.Repeat("n", 60), strings.Repeat("y", 63), strings.Repeat("c", 63), strings.Repeat("1", 63)}, targets: map[viewTarget]seenThere{
		{addr("192.0.2.1"), ""}:                       {"fra", ranking.Estimate{Round: 17, RTT: 12.345, Value: 12.345, Noise: 0.51}, now.Add(-5 * time.Second), latencyprobe.Up},
		{addr("2001:db8::1"), ""}:                     {"fra", ranking.Estimate{Round: 2, RTT: 200, Value: 200}, now.Add(-60 * time.Second), latencyprobe.Down},
		{addr("192.0.2.1"), "mail=b äü\"\\"}:          {"fra", ranking.Estimate{Round: 1, RTT: 1, Value: 1}, now, latencyprobe.Up},
		{addr("192.0.2.9"), ""}:                       {"192.0.2.9", ranking.Estimate{}, time.Time{}, latencyprobe.Unknown},
		{addr("2001:db8::9"), "web"}:                  {"2001:db8::9", ranking.Estimate{}, time.Time{}, latencyprobe.Down},
		{addr("192.0.2.3"), strings.Repeat("x", 300)}: {"long", ranking.Estimate{Round: 1, RTT: 1, Value: 1}, now, latencyprobe.Up},
	}, ranked: map[viewService]rankedThere{
		{"www." + testZone, true}:           {[]netip.Addr{addr("192.0.2.9"), addr("192.0.2.1")}, nil},
		{"www." + testZone, false}:          {[]netip.Addr{addr("2001:db8::9")}, nil},
		{testZone, true}:                    {[]netip.Addr{addr("192.0.2.1")}, nil},
		{"*.www.example.org.", true}:        {[]netip.Addr{addr("192.0.2.3"), addr("192.0.2.1"), addr("192.0.2.9")}, []netip.Addr{addr("192.0.2.3"), addr("192.0.2.9")}},
		{"_ranked._udp." + testZone, false}: {[]netip.Addr{addr("2001:db8::1")}, nil},
	}}
}

// zoneOf returns the records of a view as they come over the wire.
func zoneOf(t testing.TB, v *view, now time.Time) []dns.RR {
	t.Helper()
	soa := v.soa(testView, "par1.lb.gslb.example.org.")
	m := new(dns.Msg)
	m.Answer = append([]dns.RR{soa}, v.records(testView, "par1.lb.gslb.example.org.", now)...)
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

func readView(records []dns.RR, now time.Time) (*view, error) {
	r := newViewReader("par1", testView, now)
	for _, rr := range records {
		if err := r.add(rr); err != nil {
			return nil, err
		}
	}
	return r.end()
}

// TestView checks that what is read is what was written, with ages by the clock
// of the reader.
func TestView(t *testing.T) {
	now := time.Now()
	want := exampleView(now)
	other := now.Add(-time.Hour) // the reader's clock
	got, err := readView(zoneOf(t, want, now), other)
	if err != nil {
		t.Fatal(err)
	}
	near := func(a, b time.Time) bool { return a.Sub(b).Abs() < 100*time.Millisecond }
	if got.serial != 17 || got.node != "par1" || !near(got.made, other.Add(-3*time.Second)) || got.near != want.near || !slices.Equal(got.deputies, want.deputies) || len(got.targets) != len(want.targets) {
		t.Errorf("Unexpected view %+v", got)
	}
	if !reflect.DeepEqual(got.ranked, want.ranked) {
		t.Errorf("Expected the rankings %v, got %v", want.ranked, got.ranked)
	}
	for target, w := range want.targets {
		g, ok := got.targets[target]
		if !ok {
			t.Errorf("Expected %v", target)
			continue
		}
		if !w.at.IsZero() {
			if !near(g.at, w.at.Add(-time.Hour)) {
				t.Errorf("%v: expected the age %v, got %v", target, now.Sub(w.at), other.Sub(g.at))
			}
			g.at = w.at
		}
		if g != w {
			t.Errorf("%v: expected %+v, got %+v", target, w, g)
		}
	}
}

// TestViewLeavesOut checks that what does not fit into its record is left out, so that
// the service is ranked by the estimates: a name that a character-string cannot hold
// as it stands, and too many servers. As many as are told fit into a transfer.
func TestViewLeavesOut(t *testing.T) {
	v := &view{ranked: map[viewService]rankedThere{
		{`a\b.` + testZone, true}: {order: []netip.Addr{addr("192.0.2.1")}},
		{strings.Repeat(strings.Repeat("x", 63)+".", 4) + "example.org.", true}: {order: []netip.Addr{addr("192.0.2.1")}},
	}}
	var most []netip.Addr
	for i := range maxRanked {
		most = append(most, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, byte(16 + i>>8), byte(i)}))
	}
	v.ranked[viewService{"more." + testZone, false}] = rankedThere{order: append(most, addr("2001:db8::1"))}
	if got := v.rankings(testZone); len(got) > 0 {
		t.Errorf("Expected no records, got %q", got)
	}
	for i := range 20 {
		v.ranked[viewService{fmt.Sprintf("%d.%s", i, strings.Repeat("x", 60)+"."+strings.Repeat("x", 60)+"."+strings.Repeat("x", 60)+".example.org."), false}] = rankedThere{most, most}
	}
	var packed packer
	if err := writeTransfer(&packed, new(dns.Msg).SetAxfr(testView), v.records(testView, ".", time.Now())); err != nil || packed.messages == 0 {
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

// TestDigest checks that the digest is the one that is documented, whatever the
// order is.
func TestDigest(t *testing.T) {
	var list []registration.Prefix
	for _, text := range []string{"2001:db8::/32", "198.51.100.0/24", "!198.51.100.128/25"} {
		p, err := parsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	// printf '%s\n' 2001:db8::/32 198.51.100.0/24 '!198.51.100.128/25' | LC_ALL=C sort | sha256sum | cut -c -16
	const want = "bb62999dcf8fc7a5"
	if got := digest(list); got != want {
		t.Errorf("Expected %s, got %s", want, got)
	}
	slices.Reverse(list)
	if got := digest(list); got != want {
		t.Errorf("Expected the same in another order, got %s", got)
	}
	list[0].Negated = !list[0].Negated
	if digest(list) == want || digest(list[1:]) == want {
		t.Error("Expected another one for other prefixes")
	}
}

func TestIsView(t *testing.T) {
	for name, want := range map[string]bool{
		testView: true, "fra." + testView: true, `a\.b._view.` + testZone: true, `a\\._view.` + testZone: true,
		testZone: false, "_view." + testZone: false, "x_view." + testZone: false, "par1._view.example.org.": false,
		`a\._view.` + testZone: false, `b.a\._view.` + testZone: false, `a\\\._view.` + testZone: false,
	} {
		if got := isView(name, testZone); got != want {
			t.Errorf("%s: expected %v, got %v", name, want, got)
		}
	}
}

func TestViewErrors(t *testing.T) {
	now := time.Now()
	tests := []struct{ change, err string }{
		{"fra." + testView + ` 0 IN TXT "192.0.2.300 state=up"`, "no address"},
		{"fra." + testView + ` 0 IN TXT ""`, "empty"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.1 value=NaN"`, "no number"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.1 value=-1"`, "no number"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.1 value=1e300"`, "no number"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.77 value=1 round=1"`, "without an age"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.1 state=well"`, "neither"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.1 probe=%zz"`, "probe"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.1 state=up"`, "twice"},
		{testView + ` 0 IN TXT "v=2 age=1"`, "v=1"},
		{testView + ` 0 IN TXT "v=1 age=x"`, "no number"},
		{`www.example.org. 0 IN TXT "192.0.2.1"`, "not in the zone"},
		{testView + ` 0 IN SOA . . 1 1 1 1 1`, "3 SOA records"},
		{"fra." + testView + ` 0 IN SOA . . 1 1 1 1 1`, "SOA record at"},
		{"fra." + testView + ` 0 IN TXT "192.0.2.77 later=1 words state=up"`, ""},
		{"fra." + testView + ` 0 IN A 192.0.2.1`, ""},
		{"_ranked." + testView + ` 0 IN TXT "mail" "192.0.2.1" "192.0.2.2"`, ""},
		{"_ranked." + testView + ` 0 IN TXT "mail.example.org." "~2001:db8::1" "~2001:db8::2"`, ""},
		{"_ranked." + testView + ` 0 IN TXT "www" "192.0.2.9"`, "twice"},
		{"_ranked." + testView + ` 0 IN TXT "mail" "192.0.2.9" "~192.0.2.9"`, "twice"},
		{"_ranked." + testView + ` 0 IN TXT "mail" "192.0.2.9" "2001:db8::1"`, "another family"},
		{"_ranked." + testView + ` 0 IN TXT "mail"`, "a service with 0 servers"},
		{"_ranked." + testView + ` 0 IN TXT "mail"` + strings.Repeat(` "192.0.2.1"`, maxRanked+1), "a service with 301 servers"},
		{"_ranked." + testView + ` 0 IN TXT "mail" "www"`, "no address"},
		{"_ranked." + testView + ` 0 IN TXT "mail" "fe80::1%eth0"`, "no address"},
	}
	for _, tc := range tests {
		rr, err := dns.NewRR(tc.change)
		if err != nil {
			t.Fatal(err)
		}
		records := zoneOf(t, exampleView(now), now)
		records = append(records[:len(records)-1:len(records)-1], rr, records[len(records)-1])
		_, err = readView(records, now)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: expected an error with %q, got %v", tc.change, tc.err, err)
		}
	}
	records := zoneOf(t, exampleView(now), now)
	if _, err := readView(records[:len(records)-1], now); err == nil {
		t.Error("Expected an error for a transfer that is cut off")
	}
	if _, err := readView([]dns.RR{records[0], records[0]}, now); err == nil {
		t.Error("Expected an error for a view without an age")
	}
}

// TestViewLimits checks that what is promised of the limits fits, and that more
// does not.
func TestViewLimits(t *testing.T) {
	const servers = 100_000
	now := time.Now()
	v := &view{node: "par1", made: now, targets: make(map[viewTarget]seenThere), ranked: make(map[viewService]rankedThere)}
	for i := range servers {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		known := seenThere{fmt.Sprintf("server%d", i), ranking.Estimate{Round: 1000, Value: 123.456, Noise: 10.5}, now, latencyprobe.Up}
		v.targets[viewTarget{netip.AddrFrom16(b), ""}] = known
		v4, v6 := netip.AddrFrom4([4]byte{10, b[13], b[14], b[15]}), netip.AddrFrom16(b)
		v.targets[viewTarget{v4, ""}] = known
		service := fmt.Sprintf("service%d.%s", i, testZone)
		v.ranked[viewService{service, true}] = rankedThere{order: []netip.Addr{v4}}
		v.ranked[viewService{service, false}] = rankedThere{order: []netip.Addr{v6}}
	}
	soa := v.soa(testView, ".")
	records := append(append([]dns.RR{soa}, v.records(testView, ".", now)...), soa)
	if _, err := readView(records, now); err != nil {
		t.Errorf("Expected to read the view of %d servers, got %v", servers, err)
	}
	var size counter
	if err := writeTransfer(&size, new(dns.Msg).SetAxfr(testView), records); err != nil || size.bytes > maxViewSize/2 {
		t.Errorf("Expected at most half of %d bytes, got %d, %v", maxViewSize, size.bytes, err)
	}
	if _, err := readView(slices.Repeat([]dns.RR{soa}, maxViewRecords+1), now); err == nil || !strings.Contains(err.Error(), "more than 500000 records") {
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
	for target, s := range exampleView(now).targets {
		f.Add(s.text(target, now))
	}
	f.Add("v=1 age=3 near=f00 deputies=lon1,nyc1")
	f.Add("www 192.0.2.1 ~192.0.2.2")
	f.Fuzz(func(t *testing.T, text string) {
		r := newViewReader("par1", testView, now)
		_ = r.readHead(strings.Fields(text))
		if r.readRanking(strings.Fields(text)) == nil {
			again := newViewReader("par1", testView, now)
			for _, texts := range r.view.rankings(testZone) {
				if err := again.readRanking(texts); err != nil {
					t.Fatalf("Expected to read %q again, got %v", texts, err)
				}
			}
			for s, ranked := range again.view.ranked {
				if !reflect.DeepEqual(r.view.ranked[s], ranked) {
					t.Fatalf("Expected %v of %v, got %v", r.view.ranked[s], s, ranked)
				}
			}
		}
		if r.readTarget("fra", strings.Fields(text)) != nil {
			return
		}
		for target, s := range r.view.targets {
			if v := s.estimate.Value; math.IsNaN(v) || v < 0 || v > milliseconds(maxEstimate) {
				t.Fatalf("Unexpected estimate %v", v)
			}
			again := newViewReader("par1", testView, now)
			if err := again.readTarget("fra", strings.Fields(s.text(target, now))); err != nil {
				t.Fatalf("Expected to read %q again, got %v", s.text(target, now), err)
			}
			if _, ok := again.view.targets[target]; !ok {
				t.Fatalf("Expected %v again", target)
			}
		}
	})
}

// BenchmarkView writes, reads and looks up the view of 10,000 servers and 100,000
// services in both families.
func BenchmarkView(b *testing.B) {
	now := time.Now()
	v := &view{node: "par1", made: now, targets: make(map[viewTarget]seenThere), ranked: make(map[viewService]rankedThere)}
	var pools []*pool
	for i := range 100_000 {
		name, a := fmt.Sprintf("service%d.%s", i, testZone), [16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i % 10_000 >> 8), 15: byte(i % 10_000)}
		for _, addr := range []netip.Addr{netip.AddrFrom16(a), netip.AddrFrom4([4]byte{10, 0, a[14], a[15]})} {
			v.targets[viewTarget{addr, ""}] = seenThere{fmt.Sprintf("server%d", i), ranking.Estimate{Round: 17, Value: 12.345, Noise: 0.5}, now, latencyprobe.Up}
			v.ranked[viewService{name, addr.Is4()}] = rankedThere{order: []netip.Addr{addr}}
			pools = append(pools, &pool{services: []string{name}, members: []*member{{addr: addr}}})
		}
	}
	soa := v.soa(testView, ".")
	records := append(append([]dns.RR{soa}, v.records(testView, ".", now)...), soa)
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			v.records(testView, ".", now)
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := readView(records, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("chosen", func(b *testing.B) {
		for b.Loop() {
			v.chosen(pools)
		}
	})
}
