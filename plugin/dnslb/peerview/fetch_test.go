package peerview

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestDeputyFollowsByTheMap checks that a deputy answers the resolvers of its
// principal, as the map has them: the first node counts whose view it has.
func TestDeputyFollowsByTheMap(t *testing.T) {
	t.Parallel()
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "192.0.2.0/24", nil, 20, 10)
	lon.follow(t, func() { par.share(time.Now()) })
	lon.expectView(t, "198.51.100.1", "par1")
	lon.expectView(t, "192.0.2.1", "")
	lon.expectView(t, "203.0.113.1", "")
	lon.SetMap(nodemaptest.Table(t, map[string]string{
		"0.0.0.0/0":       "default=fra1",
		"203.0.113.0/24":  "operator=par1", // which only the operator wrote
		"198.51.100.0/24": "pin=lon1 registration=par1",
		"192.0.2.0/24":    "operator=fra1 registration=par1 registration=lon1", // fra1 is not known
	}))
	lon.expectView(t, "203.0.113.1", "par1")
	lon.expectView(t, "198.51.100.1", "")
	lon.expectView(t, "192.0.2.1", "par1")
	lon.SetMap(nil)
	lon.expectView(t, "192.0.2.1", "par1") // resolvers hold referrals by the last one
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
			testwatch.Wait(t, 10*time.Second, "a fetch that is "+tc.result, func() bool { return fetches() > before })
			lon.expectView(t, atPar, "par1")
			lon.Close() // so that all is logged
			if tc.why == "" {
				out.Expect(t, started)
				return
			}
			out.Expect(t, started, `Node "par1" dismissed its deputy "lon1", which follows the views for another 5m0s, because resolvers still hold referrals: `+tc.why)
		})
	}
}

// TestViewOfLaterVersionKeepsPrevious checks that a view that this program cannot
// read is a failure that tells the version, and that the previous view is followed.
func TestViewOfLaterVersionKeepsPrevious(t *testing.T) {
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "192.0.2.0/24", nil, 20, 10)
	begin := time.Now()
	lon.follow(t, func() { par.share(begin) })
	previous := lon.Current().Views

	waitFor := func(failures int) {
		t.Helper()
		testwatch.Wait(t, 20*time.Second, fmt.Sprintf("%d failures", failures), func() bool { return len(lon.FetchFailures()) == failures })
	}
	par.later.Store(true)
	par.share(begin.Add(publishInterval)) // which sends a NOTIFY
	waitFor(1)
	const want = `TXT record of par1._view.svc.gslb.example.org.: unknown version "v=2", expected "v=1": update the node with the older program`
	if f := lon.FetchFailures()[0]; f.Node != "par1" || f.Since.IsZero() || !strings.Contains(f.Error, want) {
		t.Errorf("Expected %s, got %+v", want, f)
	}
	if !slices.Equal(lon.Current().Views, previous) {
		t.Error("Expected the previous view to be followed")
	}
	par.later.Store(false)
	lon.follow(t, func() { par.share(begin.Add(2 * publishInterval)) })
	waitFor(0)
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

// TestFormerMapIsFollowed checks that resolvers which the map gives to no known
// node any more are answered by the previous map as long as they have referrals.
func TestFormerMapIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		s.Configure(Settings{Node: "lon1", Prefixes: []registration.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}})
		par, fra := newFetcher(s, "par1", 1), newFetcher(s, "fra1", 2)
		s.fetchers["par1"], s.fetchers["fra1"] = par, fra
		expect := func(what string, want map[string]int) {
			t.Helper()
			for from, slot := range want {
				if got, _ := s.Current().Slot(func() netip.Addr { return addr(from) }); got != slot {
					t.Errorf("%s: expected %s in slot %d, got %d", what, from, slot, got)
				}
			}
		}
		expect("before there is a map", map[string]int{"192.0.2.1": Own, "198.51.100.1": Outside})
		par.accept(&View{Node: "par1", Made: time.Now()})
		fra.accept(&View{Node: "fra1", Made: time.Now()})
		s.SetMap(nodemaptest.Table(t, map[string]string{
			"198.51.100.0/24": "registration=par1", "203.0.113.0/24": "registration=par1", "2001:db8::/32": "registration=par1",
			"233.252.0.0/24": "registration=fra1", "192.0.2.0/24": "registration=lon1",
		}))
		s.SetMap(nodemaptest.Table(t, map[string]string{
			"198.51.100.0/25": "registration=par1", "203.0.113.0/24": "registration=fra1",
			"233.252.0.0/24": "registration=fra1", "192.0.2.0/24": "registration=lon1",
		}))
		expect("just lost", map[string]int{"198.51.100.1": 1, "198.51.100.200": 1, "203.0.113.1": 2, "2001:db8::1": 1, "192.0.2.1": Own, "192.0.3.1": Outside})

		time.Sleep(referralTTL - time.Second)
		synctest.Wait()
		expect("a little before the end", map[string]int{"198.51.100.200": 1})
		time.Sleep(time.Second)
		synctest.Wait()
		expect("at the end", map[string]int{"198.51.100.1": 1, "198.51.100.200": Outside, "203.0.113.1": 2, "2001:db8::1": Outside})

		par.discard("it is over")
		expect("without a view", map[string]int{"198.51.100.1": Outside, "203.0.113.1": 2})
	})
}

// TestFormerMapsAreBounded checks that of many changes the first and the last are
// remembered: a map that keeps changing takes bounded memory.
func TestFormerMapsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		s.Configure(Settings{Node: "lon1"})
		f := newFetcher(s, "par1", 1)
		s.fetchers["par1"] = f
		f.accept(&View{Node: "par1", Made: time.Now()})
		prefix := func(i int) string { return fmt.Sprintf("10.%d.0.0/16", i) }
		const changes = 5
		for i := range changes + 1 {
			s.SetMap(nodemaptest.Table(t, map[string]string{prefix(i): "registration=par1"}))
		}
		for i, want := range map[int]int{changes: 1, changes - 1: 1, changes - 2: Outside, 1: Outside, 0: 1} {
			from := func() netip.Addr { return netip.MustParsePrefix(prefix(i)).Addr() }
			if got, _ := s.Current().Slot(from); got != want {
				t.Errorf("Expected the resolvers of map %d of %d in slot %d, got %d", i, changes, want, got)
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
		out.Expect(t, `Started following the view of node "par1" as its deputy "lon1": 0 of 2 targets in common`)
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
	nodes.register("fra1", addr("127.0.0.3"))
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"fra1", "lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "198.51.100.128/25", nil, 20, 10)
	_, asked := dnsbtest.ListenSilently(t, net.JoinHostPort("127.0.0.3", par.settings.Port))
	lon.follow(t, func() { par.share(time.Now()) })
	<-asked
	begin, watch := time.Now(), testwatch.Start(t)
	for i := range 3 {
		par.latency = []float64{float64(20 + 2*i), 10}
		lon.follow(t, func() { par.share(begin.Add(time.Duration(i+1) * minPublishInterval)) })
	}
	if took := watch.Elapsed(); took > dnsclient.Timeout/2 {
		t.Errorf("Expected the next views at once, got them after %s", took)
	}
}

// TestNotifyToEndingFetcherIsHeeded checks that no NOTIFY is lost on a fetcher
// that is about to end, because DNS-B has no such node or because of a reload.
func TestNotifyToEndingFetcherIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Sharing
		asked, taken := 0, false
		s = New(func(ctx context.Context, node string) ([]netip.Addr, error) {
			if asked++; asked == 1 {
				taken = s.notified(node)
				return nil, registrar.ErrUnknownNode
			}
			<-ctx.Done()
			time.Sleep(time.Second) // the old fetcher lives on, and hinders nothing
			return nil, ctx.Err()
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
		s.SetMap(nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=par1"}))
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
		if got := viewFor(s, "198.51.100.1"); got != "" || len(s.fetchers) != 0 {
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
	out := logtest.Capture(t)
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "198.51.100.128/25", nil, 20, 10)
	par.share(time.Now())
	f := newFetcher(lon.Sharing, "par1", 1)
	lon.mu.Lock()
	lon.fetchers["par1"] = f
	lon.mu.Unlock()
	if err := f.fetch(); err != nil {
		t.Fatal(err)
	}
	lon.expectView(t, "198.51.100.1", "par1")
	f.view.Made = time.Now().Add(-Lifetime) // the node has the same view yet
	lon.goroutines.Go(f.run)
	testwatch.Wait(t, time.Minute, "the end of the view", func() bool {
		return slices.ContainsFunc(out.Lines(), func(line string) bool {
			return strings.Contains(line, `Stopped following the view of node "par1" as its deputy "lon1": the last view has expired`)
		})
	})
}
