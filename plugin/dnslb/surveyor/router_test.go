package surveyor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// fakePath is a path whose routers answer after as many milliseconds as they are away, and
// later each time but the second.
type fakePath struct {
	routers []string // by number from 1: the address; "": is silent
	rejects bool     // the last one answers whatever comes
	failure error    // of this machine

	mu     sync.Mutex
	ttls   []int
	times  []time.Time
	closed bool
}

func (p *fakePath) Probe(ctx context.Context, ttl int) (prober.Hop, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ttls, p.times = append(p.ttls, ttl), append(p.times, time.Now())
	if p.failure != nil {
		return prober.Hop{}, p.failure
	}
	number, last := ttl, false
	if p.rejects && ttl >= len(p.routers) {
		number, last = len(p.routers), true
	}
	if number > len(p.routers) || p.routers[number-1] == "" {
		<-ctx.Done()
		return prober.Hop{}, ctx.Err()
	}
	again := 0
	for _, t := range p.ttls[:len(p.ttls)-1] {
		if t == ttl {
			again++
		}
	}
	rtt := time.Duration(number)*time.Millisecond + []time.Duration{2 * time.Microsecond, 0, 5 * time.Microsecond}[again%3]
	return prober.Hop{Addr: netip.MustParseAddr(p.routers[number-1]), RTT: rtt, Last: last}, nil
}

func (p *fakePath) Close() { p.closed = true }

// routersOf returns the addresses of a path, but for the ones of some numbers.
func routersOf(count int, without ...int) []string {
	routers := make([]string, count)
	for i := range routers {
		if !slices.Contains(without, i+1) {
			routers[i] = netip.AddrFrom4([4]byte{203, 0, byte(i + 1), 1}).String()
		}
	}
	return routers
}

func TestMeasureRouter(t *testing.T) {
	reused := routersOf(12)
	reused[9], reused[10], reused[11] = "241.7.0.1", "10.0.0.1", "192.168.1.1"
	silentLast := routersOf(12, 12)
	files := os.NewSyscallError("socket", syscall.EMFILE)
	for _, tc := range []struct {
		name string
		path *fakePath
		open error
		want *surveymsg.Result // nil: none
		ttls []int             // nil: whatever
	}{
		{"the last of twelve", &fakePath{routers: routersOf(12)}, nil, result("203.0.12.1", 12, 12), []int{15, 16, 7, 11, 13, 14, 12, 12, 12}},
		{"of two", &fakePath{routers: routersOf(2)}, nil, result("203.0.2.1", 2, 2), []int{15, 16, 7, 8, 3, 4, 1, 2, 2, 2}},
		{"the only one", &fakePath{routers: routersOf(1)}, nil, result("203.0.1.1", 1, 1), []int{15, 16, 7, 8, 3, 4, 1, 2, 1, 1}},
		{"of many", &fakePath{routers: routersOf(20)}, nil, result("203.0.20.1", 20, 20), nil},
		{"of more than there can be", &fakePath{routers: routersOf(40)}, nil, result("203.0.30.1", 30, 30), nil},
		{"one on the way is silent", &fakePath{routers: routersOf(18, 15)}, nil, result("203.0.18.1", 18, 18), nil},
		{"the last one is silent", &fakePath{routers: silentLast}, nil, result("203.0.11.1", 11, 11), nil},
		{"addresses of many networks do not count", &fakePath{routers: reused}, nil, result("203.0.9.1", 9, 9), nil},
		{"a firewall rejects", &fakePath{routers: routersOf(9), rejects: true}, nil, result("203.0.9.1", 15, 9), []int{15, 15, 15}},
		{"silence", &fakePath{}, nil, &surveymsg.Result{Outcome: surveymsg.Silent}, []int{15, 16, 7, 8, 3, 4, 1, 2}},
		{"a failure of this machine", &fakePath{failure: files}, nil, nil, nil},
		{"no permission", &fakePath{failure: os.NewSyscallError("sendto", syscall.EPERM)}, nil, &surveymsg.Result{Outcome: surveymsg.Silent}, nil},
		{"no socket", nil, files, nil, nil},
		{"no route", nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, &surveymsg.Result{Outcome: surveymsg.Declined}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				probes := new(script)
				s := New(func() string { return zone })
				s.probe, s.limiter = probes.probe, rate.NewLimiter(100, 1)
				s.openPath = func(context.Context, prober.DNS, netip.Addr, netip.Addr) (path, error) { return tc.path, tc.open }
				every := 3 * time.Second
				got := s.measure(t.Context(), Settings{Node: "par1"}, zone, []surveymsg.Target{{Address: target, Every: every, Method: surveymsg.Router}})
				var want []surveymsg.Result
				if tc.want != nil {
					tc.want.Address = target
					want = append(want, *tc.want)
				}
				if !slices.Equal(got, want) || len(probes.sent) > 0 {
					t.Errorf("Expected %+v by no other method, got %+v, and by %v", want, got, probes.sent)
				}
				if tc.path == nil {
					return
				}
				if !tc.path.closed {
					t.Error("Expected the socket to be closed")
				}
				if len(tc.path.ttls) > searchPackets+packets-1 || tc.ttls != nil && !slices.Equal(tc.path.ttls, tc.ttls) {
					t.Errorf("Expected packets with the TTLs %v, and at most %d, got %v", tc.ttls, searchPackets+packets-1, tc.path.ttls)
				}
				for i := 1; i < len(tc.path.times); i++ {
					if pause := tc.path.times[i].Sub(tc.path.times[i-1]); pause < every {
						t.Errorf("Expected %s between packets, got %s", every, pause)
					}
				}
			})
		})
	}
}

func result(router string, ttl uint8, ms float64) *surveymsg.Result {
	return &surveymsg.Result{RTT: ms, Method: surveymsg.Router, Router: netip.MustParseAddr(router), TTL: ttl}
}

// TestRouterOfAnotherNetwork has two routers with the same number, of which one is nearer.
func TestRouterOfAnotherNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(func() string { return zone })
		s.limiter = rate.NewLimiter(100, 1)
		s.openPath = func(context.Context, prober.DNS, netip.Addr, netip.Addr) (path, error) { return new(twoPaths), nil }
		got := s.measure(t.Context(), Settings{Node: "par1"}, zone, []surveymsg.Target{{Address: target, Every: time.Second, Method: surveymsg.Router}})
		if len(got) != 1 || got[0].RTT != 8 || got[0].Router.String() != "203.0.113.9" {
			t.Errorf("Expected the latencies of one network, got %+v", got)
		}
	})
}

// twoPaths has one router, or one of another network every other time.
type twoPaths struct{ sent int }

func (p *twoPaths) Probe(context.Context, int) (prober.Hop, error) {
	p.sent++
	if p.sent%2 == 0 {
		return prober.Hop{Addr: netip.MustParseAddr("198.51.100.1"), RTT: time.Millisecond}, nil
	}
	return prober.Hop{Addr: netip.MustParseAddr("203.0.113.9"), RTT: 8 * time.Millisecond, Last: true}, nil
}

func (p *twoPaths) Close() {}
