package dnslb

import (
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

// TestStandIn checks whom a deputy chooses by what the node has seen and by what
// it sees itself. Servers 1, 2 and 3 are 10, 20 and 30 ms from the node, and in
// the opposite order from the deputy.
func TestStandIn(t *testing.T) {
	const own = 0 // the answer of the deputy's own ranking
	tests := []struct {
		name      string
		old       time.Duration // of the view
		aged      []int         // servers whose estimates there are older than a view is used
		first     byte          // there; 0: not told
		downThere []int
		downHere  []int
		unknown   bool // the view has other servers
		want      byte
	}{
		{name: "as the node", want: 1},
		{name: "down here", downHere: []int{1}, want: 2},
		{name: "down there", downThere: []int{1}, want: 2},
		{name: "down there, the next view is about to come", downThere: []int{1}, old: 20*time.Second + ranking.Round + 30*time.Second, want: 2},
		{name: "down there some time ago", downThere: []int{1}, old: trustTime, want: 1},
		{name: "down there, and the others here", downThere: []int{1}, downHere: []int{2, 3}, want: 1},
		{name: "down there or here, all", downThere: []int{1, 2}, downHere: []int{3}, want: 1},
		{name: "all down there", downThere: []int{1, 2, 3}, want: 1},
		{name: "estimates of long ago", aged: []int{1, 2, 3}, want: 1},
		{name: "estimates of long ago, but that of the worst", aged: []int{1, 2}, old: peerview.Lifetime - time.Second, want: 1},
		{name: "another one is first there", first: 2, want: 2},
		{name: "another one is first there, but down here", first: 2, downHere: []int{2}, want: 1},
		{name: "another one is first there, since that was down", first: 2, downThere: []int{1}, old: trustTime, want: 2},
		{name: "another one is first there, all are down there", first: 2, downThere: []int{1, 2, 3}, want: 2},
		{name: "one is first there that is no server of the service", first: 9, want: 1},
		{name: "other servers", unknown: true, want: own},
		{name: "all down here", downHere: []int{1, 2, 3}, want: own},
	}
	for _, tc := range tests {
		ms := []float64{30, 20, 10}
		d := service4(options{answers: 1}, make([]settings, 3), ms)
		snap, now := d.snapshot.Load(), time.Now()
		r := &ranker{DNSLB: d, snapshot: snap, observed: observations{status: make([]latencyprobe.Status, 3)}}
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
			for _, down := range tc.downThere {
				if down == server {
					seen.State = latencyprobe.Down
				}
			}
			for _, down := range tc.downHere {
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
				t.Errorf("%s: expected the deputy's own answer, got %v", tc.name, got.addrs)
			}
			continue
		}
		if first := got.addrs[0].As4()[3]; first != tc.want || got == p.answer.Load() {
			t.Errorf("%s: expected server %d, got %v", tc.name, tc.want, got.addrs)
		}

		// The view ends.
		r.rankForPrincipals()
		if p.answerFor(1) != p.answer.Load() {
			t.Errorf("%s: expected the deputy's own answer when there is no view any more", tc.name)
		}
	}
}

// TestSwitchAsDeputy checks that a change for the resolvers of another node is
// told as that.
func TestSwitchAsDeputy(t *testing.T) {
	for _, answers := range []int{1, 2} {
		switchAsDeputy(t, options{answers: answers})
	}
}

func switchAsDeputy(t *testing.T, o options) {
	d := service4(o, make([]settings, 2), []float64{30, 20})
	d.Node = "lon1"
	d.ready.Store(true)
	log, r := logtest.Capture(t), &ranker{DNSLB: d, snapshot: d.snapshot.Load(), observed: d.snapshot.Load().observed}
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
	log.Expect(t, "lon1: as deputy of par1, www.svc.gslb.example.org. A: first is now b 192.0.2.2 (10.0 ms), before a 192.0.2.1 (90.0 ms): lower")
	rank(3, 90, 10)
	log.Expect(t)
	ranked = map[peerview.Service]peerview.Ranking{{Name: "www." + testZone, IPv4: true}: {Order: []netip.Addr{addr("192.0.2.1")}}}
	rank(4, 12, 10)
	log.Expect(t, "lon1: as deputy of par1, www.svc.gslb.example.org. A: first is now a 192.0.2.1 (12.0 ms), before b 192.0.2.2 (10.0 ms): followed")
	if lower, own := counted("par1", ranking.Lower)-lower, counted("lon1", ranking.Lower)-own; lower != 1 || own != 0 {
		t.Errorf("Expected one change for the other node, got %v, and %v for the own one", lower, own)
	}
}

// TestRankedThere checks that a deputy answers the addresses that the node answers,
// and spreads sites over the same servers, as far as it sees them as up. Drained are
// servers at the node alone.
func TestRankedThere(t *testing.T) {
	ms := []float64{10, 13, 11, 30}
	const near = 5 * time.Millisecond
	for _, tc := range []struct {
		name    string
		options options
		tiers   []int
		drain   []int
		down    int // at the deputy
		want    []byte
		near    []byte
	}{
		{"two", options{answers: 2}, nil, nil, 0, []byte{1, 3}, nil},
		{"one drained there", options{answers: 2}, nil, []int{1}, 0, []byte{3, 2}, nil},
		{"all but one drained there", options{answers: 2}, nil, []int{1, 2, 3}, 0, []byte{4}, nil},
		{"one down here", options{answers: 2}, nil, nil, 3, []byte{1, 2}, nil},
		{"the first down here", options{answers: 2}, nil, nil, 1, []byte{3, 2}, nil},
		{"one drained there, the first down here", options{answers: 2}, nil, []int{1}, 3, []byte{2, 4}, nil},
		{"a lower tier drained there", options{answers: 2}, []int{1, 2, 1, 2}, []int{1, 3}, 0, []byte{2, 4}, nil},
		{"a lower tier drained there, one", options{answers: 1}, []int{1, 2, 1, 2}, []int{1, 3}, 0, []byte{2}, nil},
		{"a lower tier drained there, and the first down here", options{answers: 1}, []int{1, 2, 1, 2}, []int{1, 3}, 2, []byte{4}, nil},
		{"equally fast", options{answers: 2, within: near}, nil, nil, 0, []byte{1, 3, 2, 4}, []byte{1, 2, 3}},
		{"equally fast, one drained there", options{answers: 2, within: near}, nil, []int{1}, 0, []byte{3, 2, 4}, []byte{2, 3}},
		{"equally fast, one down here", options{answers: 2, within: near}, nil, nil, 3, []byte{1, 2, 4}, []byte{1, 2}},
		{"equally fast, the first down here", options{answers: 2, within: near}, nil, nil, 1, []byte{3, 2, 4}, []byte{2, 3}},
	} {
		there, here := make([]settings, len(ms)), make([]settings, len(ms))
		for i, tier := range tc.tiers {
			there[i].tier, here[i].tier = tier, tier
		}
		for _, server := range tc.drain {
			there[server-1].drain = true
		}
		par := service4(tc.options, there, ms).snapshot.Load()
		v := &peerview.View{Node: "par1", Made: time.Now(), Targets: make(map[peerview.Target]peerview.Measurement)}
		for i, target := range par.targets {
			v.Targets[peerview.Target{Addr: target.Addr, Probe: target.Probe}] = peerview.Measurement{Server: target.Name, Estimate: par.observed.status[i].Estimate, At: time.Now(), State: latencyprobe.Up}
		}
		v.Rankings = map[peerview.Service]peerview.Ranking{{Name: "www." + testZone, IPv4: true}: par.pools[0].ranking()}

		d := service4(tc.options, here, []float64{90, 80, 70, 60})
		r := &ranker{DNSLB: d, snapshot: d.snapshot.Load(), observed: d.snapshot.Load().observed}
		if tc.down > 0 {
			r.observed.status[tc.down-1].State = latencyprobe.Down
		}
		r.rankForPrincipal(1, v, time.Now())
		got := r.snapshot.pools[0].answerFor(1)
		var addrs, near []byte
		for _, a := range got.addrs {
			addrs = append(addrs, a.As4()[3])
		}
		for _, c := range got.tied {
			near = append(near, c.addr.As4()[3])
		}
		if !slices.Equal(addrs, tc.want) || !slices.Equal(near, tc.near) {
			t.Errorf("%s: expected %v and %v equally fast, got %v and %v", tc.name, tc.want, tc.near, addrs, near)
		}
	}
}
