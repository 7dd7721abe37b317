package peerview

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestDeputyLearnsNewPrefixes checks that it does when its principal has a
// view, however short ago it has asked DNS-B, and not before DNS-B has them.
func TestDeputyLearnsNewPrefixes(t *testing.T) {
	t.Parallel()
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "192.0.2.0/24", nil, 20, 10)
	const added = "203.0.113.1"
	begin := time.Now()
	lon.follow(t, func() { par.share(begin) })
	lon.expectView(t, "198.51.100.1", "par1")
	lon.expectView(t, "192.0.2.1", "")
	lon.expectView(t, added, "")

	par.settings.Prefixes = list("198.51.100.0/24", "203.0.113.0/24")
	par.Configure(par.settings)
	lon.follow(t, func() { par.share(begin.Add(minPublishInterval)) }) // nothing else is new
	lon.expectView(t, added, "")
	nodes.register("par1", registrar.Node{Addresses: []netip.Addr{addr("127.0.0.1")}, Prefixes: par.settings.Prefixes})
	lon.follow(t, func() {})
	lon.expectView(t, added, "par1")
}

// TestAnnouncedPrefixesAreConfirmed checks how often DNS-B is asked whether it
// has the prefixes that a view announces: until it has, or not for long.
func TestAnnouncedPrefixesAreConfirmed(t *testing.T) {
	const old = "198.51.100.0/24"
	tests := []struct {
		name      string
		announced string        // by the view
		then      []string      // what DNS-B has later
		after     time.Duration // of the view
		fails     bool          // DNS-B, until then
		least     int           // of questions
		most      int
	}{
		{"unknown, by an old version", "", nil, 0, false, 0, 0},
		{"the same", digest(list(old)), nil, 0, false, 0, 0},
		{"more", digest(list(old, "203.0.113.0/24")), []string{"203.0.113.0/24", old}, time.Second, false, 1, 1},
		{"a part less", digest(list(old, "!198.51.100.0/25")), []string{old, "!198.51.100.0/25"}, 20 * time.Second, false, 4, 5},
		{"none", digest(nil), []string{}, 20 * time.Second, true, 1, 20}, // at each fetch
		{"refused", digest(list("0.0.0.0/0")), nil, 0, false, 10, 12},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, asked := time.Now(), 0
				s := New(func(context.Context, string) (registrar.Node, error) {
					asked++
					switch {
					case tc.then != nil && time.Since(begin) >= tc.after:
						return registrar.Node{Prefixes: list(tc.then...)}, nil
					case tc.fails:
						return registrar.Node{}, errNoRoute
					}
					return registrar.Node{Prefixes: list(old)}, nil
				}, noTargets)
				defer s.Close()
				f := newFetcher(s, "par1", 1)
				f.peer.Prefixes, f.digest, f.lookedUp = list(old), digest(list(old)), begin
				time.Sleep(locateInterval)
				for range 1000 { // with a NOTIFY or without
					f.confirmPrefixes(t.Context(), &View{PrefixDigest: tc.announced})
					time.Sleep(time.Second)
				}
				if asked < tc.least || asked > tc.most {
					t.Errorf("Expected DNS-B to be asked %d to %d times, got %d", tc.least, tc.most, asked)
				}
				if got := fmt.Sprint(f.peer.Prefixes); tc.then != nil && got != fmt.Sprint(tc.then) {
					t.Errorf("Expected %v, got %s", tc.then, got)
				}
			})
		})
	}
}

// TestDismissalIsForThePrincipalToSay checks that a node that has died or was
// restarted dismisses nobody, and that a dismissed deputy follows the view for
// a while all the same.
func TestDismissalIsForThePrincipalToSay(t *testing.T) {
	const atPar = "198.51.100.1"
	tests := []struct {
		name    string
		happens func(par *testNode, at time.Time)
		why     string // of the dismissal; "": there is none
		result  string // of the fetch
	}{
		{"no deputy", func(par *testNode, _ time.Time) { par.reload() }, "the node has no deputies any more", "refused"},
		{"another deputy", func(par *testNode, at time.Time) {
			par.reload("fra1")
			par.share(at)
		}, "the node has other deputies now", "refused"},
		{"another deputy besides", func(par *testNode, at time.Time) {
			par.reload("fra1", "lon1")
			par.share(at)
		}, "", "new"},
		{"restarted", func(par *testNode, _ time.Time) { par.published.Store(nil) }, "", "failed"},
		{"refused without a signature", func(par *testNode, _ time.Time) { par.serving.Store(nil) }, "", "failed"},
		{"another node at the address", func(par *testNode, _ time.Time) {
			settings := par.settings
			settings.Node, settings.Deputies = "fra1", nil
			other := New(unreachable, noTargets)
			other.Configure(settings)
			par.serving.Store(other)
		}, "", "failed"},
	}
	const started = `Started following the view of node "par1" as its deputy "lon1"`
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			nodes := newRegistry()
			out := logtest.Capture(t)
			par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
			lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "192.0.2.0/24", nil, 20, 10)
			begin := time.Now()
			lon.follow(t, func() { par.share(begin) })
			lon.expectView(t, atPar, "par1")

			fetches := func() float64 { return testutil.ToFloat64(viewPulls.WithLabelValues("lon1", "par1", tc.result)) }
			before := fetches()
			tc.happens(par, begin.Add(minPublishInterval))
			lon.notified("par1") // as it fetches by itself after a while
			for i := 0; fetches() == before; i++ {
				if i == 2000 {
					t.Fatalf("Expected a fetch that is %s", tc.result)
				}
				time.Sleep(5 * time.Millisecond)
			}
			lon.expectView(t, atPar, "par1")
			lon.Close() // so that all is logged
			if tc.why == "" {
				out.Expect(t, started)
				return
			}
			out.Expect(t, started, `Node "par1" dismissed its deputy "lon1", which follows the views for another 5m0s, as resolvers hold referrals: `+tc.why)
		})
	}
}

// TestHowLongAViewIsFollowed checks that a dismissed deputy follows a view as
// long as resolvers have referrals that name it, unless it is a deputy again.
func TestHowLongAViewIsFollowed(t *testing.T) {
	dismissed, failed := dismissal("the node has other deputies now"), errNoRoute
	tests := []struct {
		name    string
		age     time.Duration // of the view at the first fetch
		fetches []error       // one minute apart
		left    time.Duration // after the last one
		why     string
	}{
		{"a deputy", 0, []error{nil, nil}, Lifetime - time.Minute, "the last view has expired"},
		{"the node has died", 0, []error{nil, failed, failed}, Lifetime - 2*time.Minute, "the last view has expired"},
		{"dismissed", 0, []error{dismissed}, referralTTL, "the node has dismissed its deputy"},
		{"dismissed some time ago", 0, []error{dismissed, dismissed, dismissed}, referralTTL - 2*time.Minute, "the node has dismissed its deputy"},
		{"dismissed, then dead", 0, []error{dismissed, failed}, referralTTL - time.Minute, "the node has dismissed its deputy"},
		{"dismissed by a view that is old", Lifetime - time.Minute, []error{dismissed}, time.Minute, "the last view has expired"},
		{"a deputy again", 0, []error{dismissed, nil}, Lifetime - time.Minute, "the last view has expired"},
		{"dismissed again", 0, []error{dismissed, nil, dismissed}, referralTTL, "the node has dismissed its deputy"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(unreachable, noTargets)
				defer s.Close()
				f := newFetcher(s, "par1", 1)
				if left, _ := f.remaining(dismissed); left > 0 {
					t.Errorf("Expected nothing to follow without a view, got %s", left)
				}
				f.accept(&View{Node: "par1", Made: time.Now().Add(-tc.age)})
				var left time.Duration
				var why string
				for i, err := range tc.fetches {
					if i > 0 {
						time.Sleep(time.Minute)
					}
					left, why = f.remaining(err)
				}
				if left != tc.left || !strings.Contains(why, tc.why) {
					t.Errorf("Expected %s until %s, got %s until %s", tc.left, tc.why, left, why)
				}
				f.discard(why)
				if !f.dismissedAt.IsZero() {
					t.Error("Expected the dismissal to be forgotten")
				}
			})
		})
	}
}

// TestFormerPrefixesAreFollowed checks that resolvers of a prefix which a
// principal has no more are answered by its view as long as they have
// referrals, unless another node has the prefix.
func TestFormerPrefixesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		s.Configure(Settings{Node: "lon1", Prefixes: list("192.0.2.0/24")})
		par, fra := newFetcher(s, "par1", 1), newFetcher(s, "fra1", 2)
		s.fetchers["par1"], s.fetchers["fra1"] = par, fra
		accept := func(f *fetcher, prefixes ...string) {
			f.peer.Prefixes = list(prefixes...)
			f.accept(&View{Node: f.node, Made: time.Now()})
		}
		expect := func(what string, want map[string]int) {
			t.Helper()
			for from, slot := range want {
				if got := s.Current().Prefixes.Slot(addr(from)); got != slot {
					t.Errorf("%s: expected %s in slot %d, got %d", what, from, slot, got)
				}
			}
		}
		accept(par, "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
		accept(fra, "233.252.0.0/24")
		accept(par, "198.51.100.0/25")
		accept(fra, "233.252.0.0/24", "203.0.113.0/24")
		expect("just lost", map[string]int{"198.51.100.1": 1, "198.51.100.200": 1, "203.0.113.1": 2, "2001:db8::1": 1, "192.0.2.1": Own, "192.0.3.1": Outside})

		time.Sleep(referralTTL - time.Second)
		par.expireFormer()
		expect("a little before the end", map[string]int{"198.51.100.200": 1})
		time.Sleep(time.Second)
		par.expireFormer()
		expect("at the end", map[string]int{"198.51.100.1": 1, "198.51.100.200": Outside, "203.0.113.1": 2, "2001:db8::1": Outside})

		accept(par, "192.0.3.0/24")
		par.discard("it is over")
		expect("without a view", map[string]int{"192.0.3.1": Outside, "198.51.100.1": Outside, "203.0.113.1": 2})
	})
}

// A principal that keeps changing its prefixes takes bounded memory.
func TestFormerPrefixesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		s.Configure(Settings{Node: "lon1"})
		f := newFetcher(s, "par1", 1)
		s.fetchers["par1"] = f
		prefix := func(i int) string { return fmt.Sprintf("10.%d.0.0/16", i) }
		const changes = 3 * maxFormer
		for i := range changes + 1 {
			f.peer.Prefixes = list(prefix(i))
			f.accept(&View{Node: "par1", Made: time.Now()})
		}
		for i, want := range map[int]int{changes: 1, changes - 1: 1, changes - maxFormer: 1, changes - maxFormer - 1: Outside, 0: Outside} {
			if got := s.Current().Prefixes.Slot(netip.MustParsePrefix(prefix(i)).Addr()); got != want {
				t.Errorf("Expected list %d of %d in slot %d, got %d", i, changes, want, got)
			}
		}
	})
}

// TestViewWithNothingInCommonIsLogged checks that a deputy tells how many
// targets a view has in common with it, and warns when there are none, but not
// of a moment.
func TestViewWithNothingInCommonIsLogged(t *testing.T) {
	out := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		var measured []latencyprobe.Target
		s := New(unreachable, func() []latencyprobe.Target { return measured })
		defer s.Close()
		s.Configure(Settings{Cut: testCut, Node: "lon1"})
		f := newFetcher(s, "par1", 1)
		check := func(d time.Duration) {
			for range d / fetchInterval {
				f.checkInCommon()
				time.Sleep(fetchInterval)
			}
		}
		same := latencyprobe.Target{Name: "fra", Addr: addr("192.0.2.1"), Probe: "mail"}
		other := same
		other.Probe = ""
		f.accept(&View{Node: "par1", Made: time.Now(), Targets: map[Target]Measurement{{same.Addr, "mail"}: {}, {addr("192.0.2.2"), "mail"}: {}}})
		out.Expect(t, `Started following the view of node "par1" as its deputy "lon1": 0 prefixes, 0 of 2 targets in common`)
		f.checkInCommon()
		measured = []latencyprobe.Target{same, other} // its services are loaded
		check(time.Hour)
		out.Expect(t)

		const text = `View of node "par1" has none of its 2 targets in common with its deputy "lon1", which answers by its own measurements: give both the same services`
		measured = []latencyprobe.Target{other} // a reload
		check(fetchInterval)
		out.Expect(t)
		check(reminder.Interval)
		out.Expect(t, text)
		check(reminder.Interval)
		out.Expect(t, text)
		measured = []latencyprobe.Target{same, other}
		check(time.Hour)
		out.Expect(t, `Recovered: view of node "par1" has 1 of its 2 targets in common with its deputy "lon1"`)

		f.accept(&View{Node: "par1", Made: time.Now()})
		check(time.Hour) // a view without targets
		out.Expect(t)
	})
}

// TestViewKeyRemoved checks that a view is not followed any more when a reload
// removes the key, and that the log says so; at the end of the process it says
// nothing.
func TestViewKeyRemoved(t *testing.T) {
	out := logtest.Capture(t)
	for _, removed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := New(unreachable, noTargets)
			settings := Settings{Cut: testCut, Node: "lon1", Key: viewKey(t, testSecret)}
			s.Configure(settings)
			f := newFetcher(s, "par1", 1)
			s.fetchers["par1"] = f
			f.accept(&View{Node: "par1", Made: time.Now()})
			out.Expect(t, `Started following the view of node "par1" as its deputy "lon1"`)
			s.goroutines.Go(f.run)
			synctest.Wait()
			if removed {
				settings.Key = dnsclient.Key{}
				s.Configure(settings)
				synctest.Wait()
				out.Expect(t, `Stopped following the view of node "par1" as its deputy "lon1": 'view-key' was removed`)
			}
			s.Close()
			out.Expect(t)
		})
	}
}

// TestSilentDeputyDelaysNoOther checks that a deputy which takes connections
// and does not answer delays the NOTIFY to no other.
func TestSilentDeputyDelaysNoOther(t *testing.T) {
	nodes := newRegistry()
	nodes.register("fra1", registrar.Node{Addresses: []netip.Addr{addr("127.0.0.3")}})
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"fra1", "lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "198.51.100.128/25", nil, 20, 10)
	_, asked := dnsbtest.ListenSilently(t, net.JoinHostPort("127.0.0.3", par.settings.Port))
	lon.follow(t, func() { par.share(time.Now()) })
	<-asked
	begin := time.Now()
	for i := range 3 {
		par.latency = []float64{float64(20 + 2*i), 10}
		lon.follow(t, func() { par.share(begin.Add(time.Duration(i+1) * minPublishInterval)) })
	}
	if took := time.Since(begin); took > dnsclient.Timeout/2 {
		t.Errorf("Expected the next views at once, got them after %s", took)
	}
}

// TestNotifyToEndingFetcherIsHeeded checks that no NOTIFY is lost on a fetcher
// that is about to end, because DNS-B has no such node or because of a reload.
func TestNotifyToEndingFetcherIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Sharing
		asked, taken := 0, false
		s = New(func(ctx context.Context, node string) (registrar.Node, error) {
			if asked++; asked == 1 {
				taken = s.notified(node)
				return registrar.Node{}, registrar.ErrUnknownNode
			}
			<-ctx.Done()
			time.Sleep(time.Second) // the old fetcher lives on, and hinders nothing
			return registrar.Node{}, ctx.Err()
		}, noTargets)
		defer s.Close()
		settings := Settings{Cut: testCut, Node: "lon1", Key: viewKey(t, testSecret)}
		s.Configure(settings)
		s.notified("par1")
		synctest.Wait()
		if !taken || asked != 2 {
			t.Errorf("Expected a NOTIFY that comes during a fetch to cause another, got %d", asked)
		}
		settings.Key = dnsclient.Key{}
		s.Configure(settings)
		settings.Key = viewKey(t, testSecret)
		s.Configure(settings)
		s.notified("par1")
		synctest.Wait()
		if asked != 3 {
			t.Errorf("Expected a NOTIFY after a reload to cause a fetch, got %d", asked)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(s.fetchers) != 1 {
			t.Errorf("Expected the new fetcher to stay when the old one ends, got %d", len(s.fetchers))
		}
	})
}

// TestViewOfDeadPrincipalExpires checks that it is followed for its time and no
// longer.
func TestViewOfDeadPrincipalExpires(t *testing.T) {
	out := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		s.Configure(Settings{Cut: testCut, Node: "lon1"})
		f := newFetcher(s, "par1", 1)
		f.peer.Prefixes = []registration.Prefix{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
		s.fetchers["par1"] = f
		f.accept(&View{Node: "par1", Made: time.Now()})
		s.goroutines.Go(f.run)

		time.Sleep(Lifetime - time.Second)
		synctest.Wait()
		if got := viewFor(s, "198.51.100.1"); got != "par1" {
			t.Errorf("Expected the view to be followed, got that of %q", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.Current().Prefixes != nil || len(s.fetchers) != 0 {
			t.Error("Expected the view not to be followed any longer")
		}
	})
	lines := out.Lines()
	if n := len(lines); n == 0 || !strings.Contains(lines[n-1], `Stopped following the view of node "par1" as its deputy "lon1": the last view has expired, made at 2000-01-01T00:00:00Z`) {
		t.Errorf("Expected the reason, got %q", lines)
	}
}

// TestViewOfIsolatedPrincipalExpires checks that the view of a node that lives,
// but makes no other one, ends in time too.
func TestViewOfIsolatedPrincipalExpires(t *testing.T) {
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "198.51.100.128/25", nil, 20, 10)
	par.share(time.Now().Add(2*time.Second - Lifetime))
	lon.follow(t, func() { lon.notified("par1") })
	lon.expectView(t, "198.51.100.1", "par1")
	lon.follow(t, func() {}) // two seconds later
	lon.expectView(t, "198.51.100.1", "")
}
