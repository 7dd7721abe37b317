package dnslb

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// service4 returns a DNSLB with one service of servers a, b, c … at 192.0.2.1
// and on, and ranks it once by these latencies in milliseconds; negative: down.
func service4(o options, servers []settings, ms []float64) *DNSLB {
	c := config{Zones: []string{testZone}, inventory: inventory{servers: make(map[string]serverConfig)}, ttlLow: 20, ttlHigh: 60, Node: "par1"}
	svc := serviceConfig{name: "www." + testZone, options: o}
	for i, s := range servers {
		name := string(rune('a' + i))
		s.weight, s.tier = max(s.weight, 1), max(s.tier, 1)
		c.inventory.servers[name] = serverConfig{[]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}, s}
		svc.servers = append(svc.servers, labelsOf(name)...)
	}
	c.inventory.services = []serviceConfig{svc}
	d := newDNSLB(c, nil)
	d.state = newBlockState()
	snap := d.sources.snapshot()
	status := make([]latencyprobe.Status, len(ms))
	for i, v := range ms {
		status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: 1, RTT: v, Value: v}}
		if v < 0 {
			status[i] = latencyprobe.Status{State: latencyprobe.Down}
		}
	}
	snap.observed = observations{status: status}
	r := testRanker(d, snap, snap.observed)
	r.rankPools(snap.pools)
	d.snapshot.Store(snap)
	return d
}

// ask returns the last bytes of the addresses that a resolver is given.
func ask(t *testing.T, d *DNSLB, from string) (hosts []byte, m *dns.Msg) {
	t.Helper()
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: from})
	r := new(dns.Msg).SetQuestion("www."+testZone, dns.TypeA)
	r.SetEdns0(1232, false)
	if _, err := d.ServeDNS(context.Background(), w, r); err != nil {
		t.Fatal(err)
	}
	for _, rr := range w.Msg.Answer {
		hosts = append(hosts, rr.(*dns.A).A.To4()[3])
	}
	return hosts, w.Msg
}

// always is the TTL of answers, whichever server leads them.
func always(ttl uint32) func(int) uint32 { return func(int) uint32 { return ttl } }

func TestPolicy(t *testing.T) {
	one, two := options{answers: 1}, options{answers: 2}
	tests := []struct {
		name    string
		options options
		servers []settings
		ms      []float64
		want    string
	}{
		{"lowest", one, make([]settings, 3), []float64{30, 10, 20}, "[2]"},
		{"two answers", two, make([]settings, 3), []float64{30, 10, 20}, "[2 3]"},
		{"more answers than servers up", two, make([]settings, 3), []float64{-1, 10, -1}, "[2]"},
		{"bias", one, []settings{{}, {bias: 15 * time.Millisecond}, {}}, []float64{30, 10, 20}, "[3]"},
		{"drain", one, []settings{{}, {drain: true}, {}}, []float64{30, 10, 20}, "[3]"},
		{"drained, but the only ones up", one, []settings{{}, {drain: true}, {drain: true}}, []float64{-1, 30, 20}, "[3]"},
		{"tier", one, []settings{{}, {tier: 2}, {}}, []float64{30, 10, 20}, "[3]"},
		{"the next tier", one, []settings{{}, {tier: 2}, {tier: 3}}, []float64{-1, 30, 10}, "[2]"},
		{"tier before drain", one, []settings{{drain: true}, {tier: 2}, {tier: 3}}, []float64{10, 30, 20}, "[2]"},
		{"all down: the configured order", one, []settings{{drain: true}, {tier: 2}, {}}, []float64{-1, -1, -1}, "[3]"},
		{"within, one near", options{answers: 1, within: 5 * time.Millisecond}, make([]settings, 3), []float64{30, 10, 20}, "[2]"},
	}
	for _, tc := range tests {
		got, _ := ask(t, service4(tc.options, tc.servers, tc.ms), "198.51.100.1")
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s: expected %s, got %v", tc.name, tc.want, got)
		}
	}
}

// TestWithin checks that equally fast servers share the sites by weight, that a

// TestTTLOfSite checks that the TTL of an answer is that of the server which leads
// it, where sites have another one first.
func TestTTLOfSite(t *testing.T) {
	d := service4(options{answers: 1, within: 50 * time.Millisecond}, make([]settings, 2), []float64{10, 20})
	snap := d.snapshot.Load()
	for failing := range snap.targets {
		for i := range snap.targets {
			snap.observed.status[i].Failing = i == failing
		}
		testRanker(d, snap, snap.observed).rankPools(snap.pools)
		led := make(map[byte]bool)
		for site := range 40 {
			hosts, m := ask(t, d, fmt.Sprintf("198.51.%d.1", site))
			led[hosts[0]] = true
			want := d.ttlHigh
			if hosts[0] == byte(failing+1) {
				want = d.ttlLow
			}
			if got := m.Answer[0].Header().Ttl; got != want {
				t.Errorf("Expected TTL %d for server %d while %d is failing, got %d", want, hosts[0], failing+1, got)
			}
		}
		if len(led) != 2 {
			t.Errorf("Expected sites to be spread over both servers, got %v", led)
		}
	}
}

// site keeps its server, and that only the sites of a lost server move.
func TestWithin(t *testing.T) {
	o := options{answers: 2, within: 5 * time.Millisecond}
	servers := []settings{{weight: 1}, {weight: 2}, {weight: 1}, {weight: 1}}
	all := service4(o, servers, []float64{10, 12, 14, 30})
	less := service4(o, servers, []float64{-1, 12, 14, 30})
	const sites = 4000
	share := make(map[byte]int)
	for i := range sites {
		from := fmt.Sprintf("10.%d.%d.1", i/256, i%256)
		got, _ := ask(t, all, from)
		if len(got) != 2 || got[0] == got[1] || got[0] == 4 {
			t.Fatalf("Expected two addresses, the first of a near server, got %v", got)
		}
		share[got[0]]++
		if neighbour, _ := ask(t, all, fmt.Sprintf("10.%d.%d.254", i/256, i%256)); neighbour[0] != got[0] {
			t.Fatalf("Expected one server a site, got %d and %d", got[0], neighbour[0])
		}
		if after, _ := ask(t, less, from); got[0] != 1 && after[0] != got[0] {
			t.Fatalf("Expected a site of server %d to stay when server 1 dies, got %d", got[0], after[0])
		}
	}
	for host, want := range map[byte]float64{1: 0.25, 2: 0.5, 3: 0.25} {
		if got := float64(share[host]) / sites; got < want-0.04 || got > want+0.04 {
			t.Errorf("Expected server %d to have %.2f of the sites, got %.2f", host, want, got)
		}
	}
}

func TestAllDown(t *testing.T) {
	down := []float64{-1, -1}
	explained := func(m *dns.Msg) bool {
		o := m.IsEdns0()
		return o != nil && len(o.Option) == 1 && o.Option[0].Option() == dns.EDNS0EDE
	}
	d := service4(options{answers: 1}, make([]settings, 2), down)
	if got, m := ask(t, d, "198.51.100.1"); fmt.Sprint(got) != "[1]" || !explained(m) || m.Answer[0].Header().Ttl != 20 {
		t.Errorf("Expected the configured order, explained, at the low TTL, got %v", m)
	}
	d.allDown = allDown{refuse: true}
	if got, m := ask(t, d, "198.51.100.1"); got != nil || m.Rcode != dns.RcodeRefused || !explained(m) {
		t.Errorf("Expected to be refused, explained, got %v", m)
	}
	d.allDown = allDown{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8::99")}}
	if got, m := ask(t, d, "198.51.100.1"); fmt.Sprint(got) != "[99]" || !explained(m) {
		t.Errorf("Expected the address for that case, got %v", m)
	}
	d.allDown.addrs = d.allDown.addrs[1:]
	if got, m := ask(t, d, "198.51.100.1"); got != nil || m.Rcode != dns.RcodeSuccess || len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 20 || !explained(m) {
		t.Errorf("Expected NODATA with SOA, explained, at the low TTL, where there is no address of the family, got %v", m)
	}
}

// TestHeldDown checks that a server which works, but is held down, is better than
// one that does not work, and worse than any that is up.
func TestHeldDown(t *testing.T) {
	d := service4(options{answers: 1}, []settings{{}, {}, {}, {drain: true}}, []float64{10, 30, 20, 5})
	snap := d.snapshot.Load()
	r := testRanker(d, snap, snap.observed)
	d.allDown = allDown{refuse: true}
	const up, down, held = "up", "down", "held"
	for i, step := range []struct {
		servers [4]string
		want    string
		ttl     uint32
	}{
		{[4]string{up, up, up, up}, "[1]", 60},
		{[4]string{held, up, up, up}, "[3]", 60},
		{[4]string{held, down, down, up}, "[4]", 60}, // drained, but up
		{[4]string{held, down, down, down}, "[1]", 20},
		{[4]string{held, held, down, held}, "[1]", 20},
		{[4]string{down, held, held, held}, "[3]", 20},
		{[4]string{down, down, down, held}, "[4]", 20},
		{[4]string{down, down, down, down}, "[]", 0}, // refused
		{[4]string{down, held, down, down}, "[2]", 20},
		{[4]string{held, up, down, down}, "[2]", 60},
	} {
		for j, is := range step.servers {
			s := &r.observed.status[j]
			s.State, s.Held = latencyprobe.Down, is == held
			if is == up {
				s.State = latencyprobe.Up
			}
		}
		r.rankPools(snap.pools)
		got, m := ask(t, d, "198.51.100.1")
		if fmt.Sprint(got) != step.want || len(m.Answer) > 0 && m.Answer[0].Header().Ttl != step.ttl {
			t.Errorf("Step %d, %v: Expected %s with TTL %d, got %v", i, step.servers, step.want, step.ttl, m)
		}
	}
}

func TestObserve(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	d.Node, d.observe, d.Next = "", true, test.NextHandler(dns.RcodeRefused, nil)
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	if rcode, _ := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion("www."+testZone, dns.TypeA)); rcode != dns.RcodeRefused {
		t.Errorf("Expected the next plugin to answer, got %d", rcode)
	}
}

func BenchmarkPick(b *testing.B) {
	d := service4(options{answers: 1, within: 50 * time.Millisecond}, make([]settings, 5), []float64{10, 11, 12, 13, 14})
	a := d.snapshot.Load().pools[0].answer.Load()
	addr := &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1)}
	b.ReportAllocs()
	for b.Loop() {
		a.pick(func() uint64 { return resolver.SiteOf(addr.AddrPort().Addr().Unmap()).Hash() })
	}
}

// TestAllDownTogether checks that servers which are lost by one event are answered
// as they were ranked, whichever was found out last, until one is up; and that one
// that was lost long before is not.
func TestAllDownTogether(t *testing.T) {
	now := time.Now()
	d := service4(options{answers: 2, within: 5 * time.Millisecond}, make([]settings, 4), []float64{30, 10, 12, 5})
	snap := d.snapshot.Load()
	r := testRanker(d, snap, snap.observed)
	lose := func(server int, ago time.Duration) {
		s := &r.observed.status[server]
		s.State, s.Since = latencyprobe.Down, now.Add(-ago)
		r.rankPools(snap.pools)
	}
	given := func() map[string]int {
		got := make(map[string]int)
		for site := range 100 {
			hosts, _ := ask(t, d, fmt.Sprintf("10.0.%d.1", site))
			got[fmt.Sprint(hosts)]++
		}
		return got
	}
	lose(3, time.Hour)
	before := given()
	if len(before) != 2 || before["[2 3]"] == 0 || before["[3 2]"] == 0 {
		t.Fatalf("Expected two servers that share the sites, got %v", before)
	}
	lose(1, 40*time.Second)
	lose(2, 20*time.Second)
	lose(0, 0)
	if got := given(); !snap.pools[0].answer.Load().allDown || !maps.Equal(got, before) {
		t.Errorf("Expected %v, as before, got %v", before, got)
	}

	// It stays when nothing is known any more of how fast they were, and when the
	// servers are others.
	for i := range r.observed.status {
		r.observed.status[i].Estimate = ranking.Estimate{}
	}
	r.rankPools(snap.pools)
	if got := given(); !maps.Equal(got, before) {
		t.Errorf("Expected %v, as before, without estimates, got %v", before, got)
	}
	d.state.setSnapshot(snap, d)
	d.inventory.servers["e"] = machine("192.0.2.5")
	d.inventory.services[0].servers = labelsOf("c", "e", "b", "a")
	next := d.sources.build()
	d.state.setSnapshot(next, d)
	for i := range next.observed.status {
		next.observed.status[i] = latencyprobe.Status{State: latencyprobe.Down}
	}
	r.snapshot, r.observed = next, next.observed
	r.rankPools(next.pools)
	d.snapshot.Store(next)
	if got := given(); !maps.Equal(got, before) {
		t.Errorf("Expected %v, as before, of other servers, got %v", before, got)
	}
}
