package dnslb

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestDeputyAnswersByView checks which server a deputy chooses by the view of its
// principal and by the health that it sees itself. Servers 1, 2 and 3 are 10, 20
// and 30 ms from the principal, and in the opposite order from the deputy.
func TestDeputyAnswersByView(t *testing.T) {
	const own = 0 // the answer of the deputy's own ranking
	tests := []struct {
		name      string
		old       time.Duration // of the view
		aged      []int         // servers whose estimates are older than a view is followed
		first     byte          // in the view; 0: not in it
		downAtPar []int
		downAtLon []int // the deputy
		unknown   bool  // the view has other servers
		want      byte
	}{
		{name: "as the principal", want: 1},
		{name: "down at the deputy", downAtLon: []int{1}, want: 2},
		{name: "down at the principal", downAtPar: []int{1}, want: 2},
		{name: "down at the principal, shortly before the next view", downAtPar: []int{1}, old: 20*time.Second + ranking.Round + 30*time.Second, want: 2},
		{name: "down at the principal some time ago", downAtPar: []int{1}, old: trustTime, want: 1},
		{name: "down at the principal, the others at the deputy", downAtPar: []int{1}, downAtLon: []int{2, 3}, want: 1},
		{name: "all down, at one of them", downAtPar: []int{1, 2}, downAtLon: []int{3}, want: 1},
		{name: "all down at the principal", downAtPar: []int{1, 2, 3}, want: 1},
		{name: "old estimates", aged: []int{1, 2, 3}, want: 1},
		{name: "old estimates, but for the slowest", aged: []int{1, 2}, old: peerview.Lifetime - time.Second, want: 1},
		{name: "another first server", first: 2, want: 2},
		{name: "another first server, down at the deputy", first: 2, downAtLon: []int{2}, want: 1},
		{name: "another first server, since the fastest was down", first: 2, downAtPar: []int{1}, old: trustTime, want: 2},
		{name: "another first server, all down at the principal", first: 2, downAtPar: []int{1, 2, 3}, want: 2},
		{name: "an unknown first server", first: 9, want: 1},
		{name: "other servers", unknown: true, want: own},
		{name: "all down at the deputy", downAtLon: []int{1, 2, 3}, want: own},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			ms := []float64{30, 20, 10}
			d := service4(options{answers: 1}, make([]settings, 3), ms)
			snap, now := d.snapshot.Load(), time.Now()
			r := testRanker(d, snap, observations{status: make([]latencyprobe.Status, 3)})
			v := &peerview.View{Node: "par1", Made: now.Add(-tc.old), Targets: make(map[peerview.Target]peerview.Measurement)}
			for i, target := range snap.targets {
				server := int(target.Addr.As4()[3])
				e := ranking.Estimate{Round: 1, RTT: ms[server-1], Value: ms[server-1]}
				r.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: e}
				e.Value = 10 * float64(server)
				seen := peerview.Measurement{Server: target.Name, Estimate: e, At: now.Add(-tc.old), State: latencyprobe.Up}
				if slices.Contains(tc.aged, server) {
					seen.At = now.Add(-2 * peerview.Lifetime)
				}
				for _, down := range tc.downAtPar {
					if down == server {
						seen.State = latencyprobe.Down
					}
				}
				for _, down := range tc.downAtLon {
					if down == server {
						r.observed.status[i].State = latencyprobe.Down
					}
				}
				if !tc.unknown {
					v.Targets[peerview.Target{Addr: target.Addr, Probe: target.Probe}] = seen
				}
			}
			p := snap.pools[0]
			if tc.first > 0 {
				v.Rankings = map[peerview.Service]peerview.Ranking{{Name: p.services[0], IPv4: true}: {Order: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, tc.first})}}}
			}
			r.rankForPrincipal(1, v, now)
			got := p.answerFor(1)
			if tc.want == own {
				if got != p.answer.Load() {
					t.Errorf("Expected the deputy's own answer, got %v", got.addrs)
				}
				return
			}
			if first := got.addrs[0].As4()[3]; first != tc.want || got == p.answer.Load() {
				t.Errorf("Expected server %d, got %v", tc.want, got.addrs)
			}

			// Without a view.
			r.rankForPrincipals(r.block.views())
			if p.answerFor(1) != p.answer.Load() {
				t.Error("Expected the deputy's own answer without a view")
			}
		})
	}
}

// TestSwitchForPrincipalIsLogged checks that a switch for the resolvers of a
// principal is logged and counted as such.
func TestSwitchForPrincipalIsLogged(t *testing.T) {
	for _, answers := range []int{1, 2} {
		testSwitchForPrincipal(t, options{answers: answers})
	}
}

func testSwitchForPrincipal(t *testing.T, o options) {
	t.Helper()
	d := service4(o, make([]settings, 2), []float64{30, 20})
	d.Node = "lon1"
	d.ready.Store(true)
	log, r := logtest.Capture(t), testRanker(d, d.snapshot.Load(), d.snapshot.Load().observed)
	counted := func(of string, cause ranking.Cause) float64 {
		return testutil.ToFloat64(switches.WithLabelValues(testZone, "lon1", of, string(cause)))
	}
	var ranked map[peerview.Service]peerview.Ranking
	lower, own := counted("par1", ranking.Lower), counted("lon1", ranking.Lower)
	rank := func(round uint64, ms ...float64) {
		v := &peerview.View{Node: "par1", Made: time.Now(), Targets: make(map[peerview.Target]peerview.Measurement), Rankings: ranked}
		for i, target := range r.snapshot.targets {
			e := ranking.Estimate{Round: round, RTT: ms[i], Value: ms[i]}
			v.Targets[peerview.Target{Addr: target.Addr, Probe: target.Probe}] = peerview.Measurement{Server: target.Name, Estimate: e, At: time.Now(), State: latencyprobe.Up}
		}
		r.rankForPrincipal(1, v, time.Now())
	}
	rank(1, 10, 90)
	log.Expect(t)
	rank(2, 90, 10)
	log.Expect(t, "lon1: as deputy of par1: Switched www.svc.gslb.example.org. A to b 192.0.2.2 (10.0 ms) from a 192.0.2.1 (90.0 ms): lower")
	rank(3, 90, 10)
	log.Expect(t)
	ranked = map[peerview.Service]peerview.Ranking{{Name: "www." + testZone, IPv4: true}: {Order: []netip.Addr{addr("192.0.2.1")}}}
	rank(4, 12, 10)
	log.Expect(t, "lon1: as deputy of par1: Switched www.svc.gslb.example.org. A to a 192.0.2.1 (12.0 ms) from b 192.0.2.2 (10.0 ms): followed")
	if lower, own := counted("par1", ranking.Lower)-lower, counted("lon1", ranking.Lower)-own; lower != 1 || own != 0 {
		t.Errorf("Expected one switch for the principal, got %v, and none for the deputy itself, got %v", lower, own)
	}
}

// TestDeputyAnswersLikePrincipal checks that a deputy answers the addresses that
// its principal answers, and spreads sites over the same servers, as far as these
// are up. Servers are drained at the principal only.
func TestDeputyAnswersLikePrincipal(t *testing.T) {
	ms := []float64{10, 13, 11, 30}
	const within = 5 * time.Millisecond
	for _, tc := range []struct {
		name    string
		options options
		tiers   []int
		drain   []int
		down    int // at the deputy
		want    []byte
		tied    []byte
	}{
		{"two", options{answers: 2}, nil, nil, 0, []byte{1, 3}, nil},
		{"one drained", options{answers: 2}, nil, []int{1}, 0, []byte{3, 2}, nil},
		{"all but one drained", options{answers: 2}, nil, []int{1, 2, 3}, 0, []byte{4}, nil},
		{"one down", options{answers: 2}, nil, nil, 3, []byte{1, 2}, nil},
		{"the first down", options{answers: 2}, nil, nil, 1, []byte{3, 2}, nil},
		{"one drained, the first down", options{answers: 2}, nil, []int{1}, 3, []byte{2, 4}, nil},
		{"a lower tier drained", options{answers: 2}, []int{1, 2, 1, 2}, []int{1, 3}, 0, []byte{2, 4}, nil},
		{"a lower tier drained, one answer", options{answers: 1}, []int{1, 2, 1, 2}, []int{1, 3}, 0, []byte{2}, nil},
		{"a lower tier drained, the first down", options{answers: 1}, []int{1, 2, 1, 2}, []int{1, 3}, 2, []byte{4}, nil},
		{"tied", options{answers: 2, within: within}, nil, nil, 0, []byte{1, 3, 2, 4}, []byte{1, 2, 3}},
		{"tied, one drained", options{answers: 2, within: within}, nil, []int{1}, 0, []byte{3, 2, 4}, []byte{2, 3}},
		{"tied, one down", options{answers: 2, within: within}, nil, nil, 3, []byte{1, 2, 4}, []byte{1, 2}},
		{"tied, the first down", options{answers: 2, within: within}, nil, nil, 1, []byte{3, 2, 4}, []byte{2, 3}},
	} {
		atPar, atLon := make([]settings, len(ms)), make([]settings, len(ms))
		for i, tier := range tc.tiers {
			atPar[i].tier, atLon[i].tier = tier, tier
		}
		for _, server := range tc.drain {
			atPar[server-1].drain = true
		}
		par := service4(tc.options, atPar, ms).snapshot.Load()
		v := &peerview.View{Node: "par1", Made: time.Now(), Targets: make(map[peerview.Target]peerview.Measurement)}
		for i, target := range par.targets {
			v.Targets[peerview.Target{Addr: target.Addr, Probe: target.Probe}] = peerview.Measurement{Server: target.Name, Estimate: par.observed.status[i].Estimate, At: time.Now(), State: latencyprobe.Up}
		}
		v.Rankings = map[peerview.Service]peerview.Ranking{{Name: "www." + testZone, IPv4: true}: par.pools[0].ranking()}

		d := service4(tc.options, atLon, []float64{90, 80, 70, 60})
		r := testRanker(d, d.snapshot.Load(), d.snapshot.Load().observed)
		if tc.down > 0 {
			r.observed.status[tc.down-1].State = latencyprobe.Down
		}
		r.rankForPrincipal(1, v, time.Now())
		got := r.snapshot.pools[0].answerFor(1)
		var addrs, tied []byte
		for _, a := range got.addrs {
			addrs = append(addrs, a.As4()[3])
		}
		for _, c := range got.tied {
			tied = append(tied, c.addr.As4()[3])
		}
		if !slices.Equal(addrs, tc.want) || !slices.Equal(tied, tc.tied) {
			t.Errorf("%s: expected %v and %v tied, got %v and %v", tc.name, tc.want, tc.tied, addrs, tied)
		}
	}
}

// BenchmarkPeerRankings looks up 100,000 services in both families.
func BenchmarkPeerRankings(b *testing.B) {
	v := &peerview.View{Rankings: make(map[peerview.Service]peerview.Ranking)}
	var pools []*pool
	for i := range 100_000 {
		name, a := fmt.Sprintf("service%d.%s", i, testZone), [16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i % 10_000 >> 8), 15: byte(i % 10_000)}
		for _, addr := range []netip.Addr{netip.AddrFrom16(a), netip.AddrFrom4([4]byte{10, 0, a[14], a[15]})} {
			v.Rankings[peerview.Service{Name: name, IPv4: addr.Is4()}] = peerview.Ranking{Order: []netip.Addr{addr}}
			pools = append(pools, &pool{services: []string{name}, members: []*member{{addr: addr}}})
		}
	}
	for b.Loop() {
		peerRankings(v, pools)
	}
}
