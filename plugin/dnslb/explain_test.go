package dnslb

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestExplainIsTheAnswer checks of random situations that what is explained is
// what is answered, and that the reasons fit together.
func TestExplainIsTheAnswer(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		servers := make([]settings, 1+rnd.IntN(5))
		ms := make([]float64, len(servers))
		for i := range servers {
			servers[i] = settings{weight: 1 + rnd.IntN(3), tier: 1 + rnd.IntN(2), drain: rnd.IntN(4) == 0, bias: time.Duration(rnd.IntN(3)) * 5 * time.Millisecond}
			ms[i] = 1 + 30*rnd.Float64()
			if rnd.IntN(3) == 0 {
				ms[i] = -1
			}
		}
		d := service4(options{answers: 1 + rnd.IntN(3), within: time.Duration(rnd.IntN(3)) * 10 * time.Millisecond}, servers, ms)
		switch rnd.IntN(3) {
		case 0:
			d.allDown.refuse = true
		case 1:
			d.allDown.addrs = []netip.Addr{netip.MustParseAddr("192.0.2.99")}
		}
		from := fmt.Sprintf("198.51.%d.1", rnd.IntN(256))
		hosts, m := ask(t, d, from)
		e, err := d.Explain("www."+testZone, dns.TypeA, netip.MustParseAddr(from))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, addr := range e.Answer.Addresses {
			got = append(got, addr.As4()[3])
		}
		if !slices.Equal(got, hosts) || e.Answer.Refused != (m.Rcode == dns.RcodeRefused) {
			t.Fatalf("Seed %d: expected %v, got %v, %+v", seed, hosts, got, e)
		}
		if len(hosts) > 0 && e.Answer.TTL != m.Answer[0].Header().Ttl {
			t.Errorf("Seed %d: expected TTL %d, got %d", seed, m.Answer[0].Header().Ttl, e.Answer.TTL)
		}
		if len(e.Servers) != len(servers) {
			t.Fatalf("Seed %d: expected %d servers, got %+v", seed, len(servers), e.Servers)
		}
		for i, s := range e.Servers {
			if down := ms[s.Address.As4()[3]-1] < 0; down != (s.State == "down") {
				t.Errorf("Seed %d: expected down %v, got %+v", seed, down, s)
			}
			if s.Eligible != (s.Why == "") {
				t.Errorf("Seed %d: expected a reason for whoever is not eligible, got %+v", seed, s)
			}
			if s.Answered != slices.Contains(e.Answer.Addresses, s.Address) {
				t.Errorf("Seed %d: expected the answered servers to be marked, got %+v", seed, s)
			}
			if s.Answered && !s.Eligible && e.Answer.Note == "" || s.Tied && !s.Eligible || s.Rank != 0 && s.Rank != i+1 {
				t.Errorf("Seed %d: unexpected %+v", seed, s)
			}
		}
	}
}

// explainable returns a DNSLB with two servers, of which the second is under an
// order, that explains itself to 198.51.100.0/24.
func explainable(t *testing.T) *DNSLB {
	t.Helper()
	d := service4(options{answers: 1}, []settings{{}, {bias: 5 * time.Millisecond}, {tier: 2}}, []float64{30, 10, -1})
	d.explainTo = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	d.watch = new(latencyprobe.Watch)
	o, err := serveroverride.Grammar.Parse(strings.Fields("drain b until 2100-01-01T00:00:00Z reason new disk"))
	if err != nil {
		t.Fatal(err)
	}
	status := d.snapshot.Load().observed.status
	next := build(&d.config, d.sources.inventory(), nil, []serverOverride{o})
	d.state.setSnapshot(d.snapshot.Load(), d)
	d.state.setSnapshot(next, d)
	next.observed = observations{status: status}
	r := testRanker(d, next, next.observed)
	r.rankPools(next.pools)
	d.snapshot.Store(next)
	return d
}

func txt(t *testing.T, d *DNSLB, qname, from, subnet string) *dns.Msg {
	t.Helper()
	r := new(dns.Msg).SetQuestion(qname, dns.TypeTXT)
	r.SetEdns0(1232, false)
	if subnet != "" {
		prefix := netip.MustParsePrefix(subnet)
		s := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(prefix.Bits()), Address: net.IP(prefix.Addr().AsSlice())}
		if prefix.Addr().Is6() {
			s.Family = 2
		}
		r.IsEdns0().Option = []dns.EDNS0{s}
	}
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: from})
	if _, err := d.ServeDNS(context.Background(), w, r); err != nil {
		t.Fatal(err)
	}
	// As on the wire.
	packed, err := w.Msg.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	return m
}

func told(m *dns.Msg) string {
	var out strings.Builder
	for _, rr := range m.Answer {
		out.WriteString(strings.Join(rr.(*dns.TXT).Txt, "") + "\n")
	}
	return out.String()
}

func TestExplainByDNS(t *testing.T) {
	d := explainable(t)
	const text = `www.svc.gslb.example.org. A for 198.51.100.1: 192.0.2.1, TTL 60
measured by par1, rule evidence, answers 1
1. a 192.0.2.1: 30.0 ms, noise 0.0 ms, loss 0.0 %, up, tier 1; answered
- b 192.0.2.2: 15.0 ms with bias 5.0 ms, noise 0.0 ms, loss 0.0 %, up, tier 1, drain, override: drain b until 2100-01-01T00:00:00Z reason new disk; not eligible: override
- c 192.0.2.3: not measured, down, tier 2; not eligible: down
last switch `
	m := txt(t, d, "_Explain.WWW."+testZone, "198.51.100.1", "")
	got := told(m)
	if !strings.HasPrefix(got, text) || !strings.HasSuffix(got, "to a 192.0.2.1 (30.0 ms) from b 192.0.2.2 (15.0 ms; drain b until 2100-01-01T00:00:00Z reason new disk): override\n") {
		t.Errorf("Expected\n%s, got\n%s", text, got)
	}
	if !m.Authoritative || m.Answer[0].Header().Ttl != 1 {
		t.Errorf("Expected an authoritative answer with a TTL of 1 s, got %v", m)
	}

	tests := []struct {
		name, qname, from, subnet string
		rcode                     int
		want                      string
	}{
		{"client subnet", "_explain.www." + testZone, "198.51.100.1", "203.0.113.7/32", 0, "www.svc.gslb.example.org. A for 203.0.113.7: "},
		{"client subnet, IPv6", "_explain.www." + testZone, "198.51.100.1", "2001:db8::/48", 0, "www.svc.gslb.example.org. A for 2001:db8::: "},
		{"client subnet that tells nothing", "_explain.www." + testZone, "198.51.100.1", "0.0.0.0/0", 0, "www.svc.gslb.example.org. A for 198.51.100.1: "},
		{"no service", "_explain.none." + testZone, "198.51.100.1", "", 0, "none.svc.gslb.example.org. is no service\n"},
		{"other network", "_explain.www." + testZone, "203.0.113.1", "198.51.100.1/32", dns.RcodeNameError, ""},
		{"other label", "_explained.www." + testZone, "198.51.100.1", "", dns.RcodeNameError, ""},
		{"summary", "_explain." + testZone, "198.51.100.1", "", 0, "svc.gslb.example.org. on node par1; not ready yet\n1 service, addresses of servers: 2 up, 1 down, 0 unknown\noverride: drain b until"},
	}
	for _, tc := range tests {
		m := txt(t, d, tc.qname, tc.from, tc.subnet)
		if got := told(m); m.Rcode != tc.rcode || !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("%s: expected RCODE %d and %q, got %v", tc.name, tc.rcode, tc.want, m)
		}
		for _, s := range subnets(m) {
			if tc.rcode == 0 && s.SourceScope != s.SourceNetmask {
				t.Errorf("%s: expected the scope of the subnet, got %v", tc.name, s)
			}
		}
	}

	// Who may ask learns that the name exists, so that no cache denies it.
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: "198.51.100.1"})
	if _, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion("_explain.www."+testZone, dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if w.Msg.Rcode != dns.RcodeSuccess || len(w.Msg.Answer) > 0 || len(w.Msg.Ns) != 1 {
		t.Errorf("Expected NODATA for another type, got %v", w.Msg)
	}

	const ofView = "\ndeputy of lon1, view made at 1970-01-01T00:00:00Z: "
	for _, tc := range []struct {
		targets []string
		want    string
	}{
		{[]string{"192.0.2.1", "192.0.2.3", "192.0.2.77"}, "2 of 3 targets in common"},
		{[]string{"192.0.2.77"}, "0 of 1 target in common, so its resolvers are answered by the deputy's own measurements"},
		{nil, "0 of 0 targets in common"},
	} {
		v := &peerview.View{Node: "lon1", Made: time.Unix(0, 0), Targets: make(map[peerview.Target]peerview.Measurement)}
		for _, a := range tc.targets {
			v.Targets[peerview.Target{Addr: addr(a)}] = peerview.Measurement{}
		}
		d.state.views = func() *peerview.Set { return peerview.NewSet([]*peerview.View{nil, v}, peerview.Slots{}) }
		if got := told(txt(t, d, "_explain."+testZone, "198.51.100.1", "")); !strings.Contains(got, ofView+tc.want+"\n") {
			t.Errorf("Expected %s, got\n%s", tc.want, got)
		}
	}

	d.explainTo = nil
	if m := txt(t, d, "_explain.www."+testZone, "198.51.100.1", ""); m.Rcode != dns.RcodeNameError {
		t.Errorf("Expected a name as any other without 'explain', got %v", m)
	}
}

// TestExplainAsDeputy checks that of a resolver of another node nothing is told
// as measured there that was measured here.
func TestExplainAsDeputy(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 90})
	d.Node, d.watch = "lon1", new(latencyprobe.Watch)
	now := time.Now()
	v := &peerview.View{Node: "par1", Made: now.Add(-12 * time.Second), Targets: make(map[peerview.Target]peerview.Measurement)}
	for i, ms := range []float64{70, 20} {
		target := d.snapshot.Load().targets[i]
		v.Targets[peerview.Target{Addr: target.Addr}] = peerview.Measurement{Server: target.Name, Estimate: ranking.Estimate{Round: 1, RTT: ms, Value: ms, Noise: 0.5}, At: v.Made, State: latencyprobe.Up}
	}
	r := testRanker(d, d.snapshot.Load(), d.snapshot.Load().observed)
	r.rankForPrincipal(1, v, now)
	m := nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=par1"})
	set := peerview.NewSet([]*peerview.View{nil, v}, peerview.NewSlots(m, func(string) int { return 1 }))
	d.state.views = func() *peerview.Set { return set }

	for from, want := range map[string]struct {
		made  time.Time
		lines string
		json  string
	}{
		"198.51.100.1": {v.Made, `www.svc.gslb.example.org. A for 198.51.100.1: 192.0.2.2, TTL 60
measured by par1 (this node is its deputy), in its view of 12s ago, rule margin, answers 1
map of DNS-B for 198.51.100.0/24: par1 (registration)
1. b 192.0.2.2: 20.0 ms, noise 0.5 ms, up, tier 1; answered
2. a 192.0.2.1: 70.0 ms, noise 0.5 ms, up, tier 1`, `"view_made":"`},
		"203.0.113.1": {time.Time{}, `www.svc.gslb.example.org. A for 203.0.113.1: 192.0.2.1, TTL 60
measured by lon1, rule evidence, answers 1
map of DNS-B for 200.0.0.0/5: no node, DNS-B chooses by hashing
1. a 192.0.2.1: 10.0 ms, noise 0.0 ms, loss 0.0 %, up, tier 1; answered
2. b 192.0.2.2: 90.0 ms, noise 0.0 ms, loss 0.0 %, up, tier 1`, `"loss":0`},
	} {
		e, err := d.Explain("www."+testZone, dns.TypeA, addr(from))
		if err != nil {
			t.Fatal(err)
		}
		if !e.ViewMade.Equal(want.made) {
			t.Errorf("%s: expected a view of %s, got %s", from, want.made, e.ViewMade)
		}
		if got := strings.Join(e.lines(), "\n"); got != want.lines {
			t.Errorf("Expected\n%s, got\n%s", want.lines, got)
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{`"loss":0`, `"view_made":"`} {
			if has := strings.Contains(string(text), word); has != (word == want.json) {
				t.Errorf("%s: expected %s: %v, got %s", from, word, !has, text)
			}
		}
		if has := strings.Contains(string(text), `"measured_at":"`); has == want.made.IsZero() {
			t.Errorf("%s: expected the age of an estimate where one was shared, got %s", from, text)
		}
	}
}

// TestStateIsThatOfTheNode checks that the state and the page show how the node ranks for
// its own resolvers, also if the map names another node for all addresses.
func TestStateIsThatOfTheNode(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 90})
	d.Node = "lon1"
	v := &peerview.View{Node: "par1", Made: time.Now(), Targets: make(map[peerview.Target]peerview.Measurement)}
	for i, ms := range []float64{70, 20} {
		target := d.snapshot.Load().targets[i]
		v.Targets[peerview.Target{Addr: target.Addr}] = peerview.Measurement{Server: target.Name, Estimate: ranking.Estimate{Round: 1, RTT: ms, Value: ms}, At: v.Made, State: latencyprobe.Up}
	}
	testRanker(d, d.snapshot.Load(), d.snapshot.Load().observed).rankForPrincipal(1, v, v.Made)
	m := nodemaptest.Table(t, map[string]string{"0.0.0.0/0": "default=par1"})
	set := peerview.NewSet([]*peerview.View{nil, v}, peerview.NewSlots(m, func(string) int { return 1 }))
	d.state.views = func() *peerview.Set { return set }

	if e, err := d.Explain("www."+testZone, dns.TypeA, addr("127.0.0.1")); err != nil || e.View != "par1" {
		t.Fatalf("Expected resolvers to be those of par1, got %+v, %v", e, err)
	}
	page, err := d.view(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Explanation{d.State().Rankings[0], page.(view).Shown[0].Families[0].Explanation} {
		if e.View != "lon1" || e.Deputy || e.Servers[0].Server != "a" || e.Servers[0].Estimate != 10 || len(e.Nodes) != 0 || e.Answer.Addresses[0] != addr("192.0.2.1") {
			t.Errorf("Expected the ranking of lon1, got %+v", e)
		}
	}
}

// TestSummaryAllDown checks that a summary counts and lists all services whose
// servers are all down, and that by DNS it names the first ones.
func TestSummaryAllDown(t *testing.T) {
	d := example("par1", nil)
	for _, p := range d.snapshot.Load().pools {
		a := *p.answer.Load()
		a.allDown = true
		p.answer.Store(&a)
	}
	d.explainTo = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	got := told(txt(t, d, "_explain."+testZone, "198.51.100.1", ""))
	all := d.Summary().AllDown
	if !slices.IsSorted(all) || len(all) != 6 || !slices.Contains(all, "www."+testZone+" AAAA") {
		t.Errorf("Expected six services and types, got %q", all)
	}
	_, line, _ := strings.Cut(got, "all servers are down for 6 services: ")
	if line, _, _ = strings.Cut(line, "\n"); strings.Count(line, testZone) != maxNamed {
		t.Errorf("Expected %d of six services to be named, got\n%s", maxNamed, got)
	}
}

// TestSummaryOfRegistrations checks that a node which is not registered says where,
// since when and why.
func TestSummaryOfRegistrations(t *testing.T) {
	at := time.Date(2026, 1, 30, 11, 20, 5, 0, time.UTC)
	lines := Summary{Registrations: []registrar.State{
		{DNSB: "192.0.2.1:53", Up: true, Since: at, LeaseLeft: 24 * time.Minute},
		{DNSB: "tls://192.0.2.2:853", Since: at, Error: `the server answered REFUSED: "x"`},
	}}.Lines()
	for _, want := range []string{
		"DNS-B 192.0.2.1:53: registered since 2026-01-30T11:20:05Z, lease left 24m0s",
		`DNS-B tls://192.0.2.2:853: not registered since 2026-01-30T11:20:05Z, lease left 0s: "the server answered REFUSED: \"x\""`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("Expected the line %q, got %q", want, lines)
		}
	}
}

// TestExplainTruncated checks that what is too long for UDP is asked for again
// over TCP, as the server does it.
func TestExplainTruncated(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 20), make([]float64, 20))
	d.explainTo = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	for _, tcp := range []bool{false, true} {
		r := new(dns.Msg).SetQuestion("_explain.www."+testZone, dns.TypeTXT)
		w := dnstest.NewRecorder(&test.ResponseWriter{TCP: tcp})
		if _, err := d.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r); err != nil {
			t.Fatal(err)
		}
		if w.Msg.Truncated == tcp {
			t.Errorf("Expected TC over UDP alone, got %v with TCP %v", w.Msg.Truncated, tcp)
		}
	}
}

// The sources of questions over UDP can be forged.
func TestLongExplanationsNeedTCP(t *testing.T) {
	small, large := example("par1", nil), service4(options{answers: 1}, make([]settings, longPool+1), make([]float64, longPool+1))
	many := example("par1", nil)
	snap := many.snapshot.Load()
	snap.targets = slices.Repeat(snap.targets, longSummary)
	for _, tc := range []struct {
		name  string
		d     *DNSLB
		qname string
		long  bool
	}{
		{"few servers", small, "www.", false},
		{"many servers", large, "www.", true},
		{"few targets", small, "", false},
		{"many targets", many, "", true},
		{"few servers of many targets", many, "www.", false},
		{"no service", many, "none.", false},
	} {
		tc.d.explainTo = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		for _, tcp := range []bool{false, true} {
			r := new(dns.Msg).SetQuestion("_explain."+tc.qname+testZone, dns.TypeTXT).SetEdns0(1232, false)
			var m *dns.Msg
			allocated := testing.AllocsPerRun(5, func() {
				w := dnstest.NewRecorder(&test.ResponseWriter{TCP: tcp})
				if _, err := tc.d.ServeDNS(context.Background(), w, r); err != nil {
					t.Fatal(err)
				}
				m = w.Msg
			})
			truncated := tc.long && !tcp
			if m.Truncated != truncated || (len(m.Answer) == 0) != truncated || truncated && allocated > 30 {
				t.Errorf("%s with TCP %v: Expected truncated %v, got %d lines and %v allocations, TC %v", tc.name, tcp, truncated, len(m.Answer), allocated, m.Truncated)
			}
		}
	}
}

// TestExplainLong checks that an explanation is never longer than a message.
func TestExplainLong(t *testing.T) {
	d := example("par1", nil)
	for i := range 100 {
		d.snapshot.Load().inForce = append(d.snapshot.Load().inForce, serverOverride{Text: fmt.Sprintf("drain s%d %s", i, strings.Repeat("\xff", 990))})
	}
	d.explainTo = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	r := new(dns.Msg).SetQuestion("_explain."+testZone, dns.TypeTXT).SetEdns0(1232, true)
	w := dnstest.NewRecorder(&test.ResponseWriter{TCP: true})
	if _, err := d.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r); err != nil {
		t.Fatal(err)
	}
	packed, err := w.Msg.Pack()
	if err != nil || w.Msg.Truncated || len(packed) < 58_000 {
		t.Errorf("Expected a full message, got %d bytes, TC %v, %v", len(packed), w.Msg.Truncated, err)
	}
	if last := w.Msg.Answer[len(w.Msg.Answer)-1].(*dns.TXT).Txt[0]; !strings.HasPrefix(last, "left out, as the message is full: ") {
		t.Errorf("Expected what is left out, got %q", last)
	}
}

// TestExplainBothFamilies checks that a service with both has both explained, and
// the form in JSON.
func TestExplainBothFamilies(t *testing.T) {
	d := example("par1", nil)
	d.explainTo = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	got := told(txt(t, d, "_explain.www."+testZone, "198.51.100.1", ""))
	for _, want := range []string{"www." + testZone + " A for", "www." + testZone + " AAAA for"} {
		if !strings.Contains(got, want) {
			t.Errorf("Expected %q, got\n%s", want, got)
		}
	}
	e, err := d.Explain("x.wild."+testZone, dns.TypeA, netip.MustParseAddr("64:ff9b::c633:6401"))
	if err != nil || e.Service != "*.wild."+testZone || e.Address.String() != "198.51.100.1" {
		t.Errorf("Expected the wildcard's service for the address in disguise, got %+v, %v", e, err)
	}
	if _, err := d.Explain("a.b.c."+testZone, dns.TypeAAAA, netip.Addr{}); err == nil || !strings.Contains(err.Error(), "no server with an AAAA record") {
		t.Errorf("Expected an error for a family without a server, got %v", err)
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"service":"*.wild.` + testZone + `"`, `"answer":{"addresses":["192.0.2.2"],"ttl":60`, `"servers":[{"server":"iad","address":"192.0.2.2","rank":1`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("Expected %s, got %s", want, text)
		}
	}
}

// TestExplainWhileRanking lets the race detector look.
func TestExplainWhileRanking(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 3), []float64{10, 20, 30})
	snap := d.snapshot.Load()
	r := testRanker(d, snap, snap.observed)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for round := range uint64(200) {
			for i := range snap.targets {
				d.state.mu.Lock()
				snap.observed.status[i] = latencyprobe.Status{State: latencyprobe.State(round % 3), Estimate: ranking.Estimate{Round: round, RTT: 1, Value: 1}}
				d.state.mu.Unlock()
			}
			r.rankPools(snap.pools)
		}
	}()
	for range 200 {
		if _, err := d.Explain("www."+testZone, dns.TypeA, netip.MustParseAddr("198.51.100.1")); err != nil {
			t.Fatal(err)
		}
		d.Summary()
	}
	<-done
}

// subnets returns the client subnets of a message.
func subnets(m *dns.Msg) []*dns.EDNS0_SUBNET {
	var all []*dns.EDNS0_SUBNET
	if o := m.IsEdns0(); o != nil {
		for _, option := range o.Option {
			if s, ok := option.(*dns.EDNS0_SUBNET); ok {
				all = append(all, s)
			}
		}
	}
	return all
}
