package sitesurvey

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// routerOf returns a router in a network.
func routerOf(network int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 19, byte(network), 1})
}

// oneRouter is a router at a place that all nodes meet, each by another interface.
func oneRouter(place float64) func(int) (netip.Addr, float64) {
	return func(node int) (netip.Addr, float64) {
		return netip.AddrFrom4([4]byte{198, 19, 1, byte(node + 1)}), place
	}
}

// outcomes returns what the nodes reported of a resolver, as it counts.
func (w *world) outcomes(addr netip.Addr) string {
	answers := must(w.s.Site(addr)).Answers
	slices.SortFunc(answers, func(a, b AnswerStatus) int { return strings.Compare(a.Node, b.Node) })
	var words []string
	for _, a := range answers {
		words = append(words, strings.TrimSpace(fmt.Sprintf("%s %s %s", a.Node, a.Outcome, a.Method)))
	}
	return strings.Join(words, ", ")
}

func TestRouterOfSilentSite(t *testing.T) {
	const all = "n0 measured router, n1 measured router, n2 measured router, n3 measured router"
	for _, tc := range []struct {
		name     string
		nodes    int
		router   func(node int) (netip.Addr, float64)
		old      []string
		state    SiteState
		order    []string
		traced   int
		outcomes string
	}{
		{"all nodes meet it", 4, oneRouter(2.1), nil, StateRouter, []string{"n2", "n3", "n1", "n0"}, 4, all},
		{"no router answers", 4, nil, nil, StateSilent, nil, 3, "n0 silent, n1 silent, n2 silent"},
		{
			"each node ends at another one", 4, func(node int) (netip.Addr, float64) { return routerOf(node), float64(node) }, nil,
			StateSilent, nil, 3, "n0 other router router, n1 other router router, n2 other router router",
		},
		{
			"one node ends at another one", 4,
			func(node int) (netip.Addr, float64) {
				if node == 1 { // at the door of its own provider
					return routerOf(9), 1
				}
				return routerOf(1), 2.1
			}, nil, StateRouter, []string{"n2", "n3", "n0"}, 4, "n0 measured router, n1 other router router, n2 measured router, n3 measured router",
		},
		{
			"two networks, and no majority", 4, func(node int) (netip.Addr, float64) { return routerOf(node % 2), 2.1 }, nil,
			StateSilent, nil, 4, "n0 other router router, n1 other router router, n2 other router router, n3 other router router",
		},
		{
			"one network in several places", 4, func(node int) (netip.Addr, float64) { return routerOf(1), float64(node) }, nil,
			StateSilent, nil, 3, "n0 other router router, n1 other router router, n2 other router router",
		},
		{"one node is of an earlier version", 4, oneRouter(2.1), []string{"n1"}, StateRouter, []string{"n2", "n3", "n0"}, 4, "n0 measured router, n1 silent, n2 measured router, n3 measured router"},
		{"all but one are", 4, oneRouter(2.1), []string{"n0", "n1", "n2"}, StateSilent, nil, 3, "n0 silent, n1 silent, n2 silent"},
		{"one node", 1, oneRouter(2.1), nil, StateSilent, nil, 0, "n0 silent"},
		{"two nodes", 2, oneRouter(0.9), nil, StateRouter, []string{"n1", "n0"}, 2, "n0 measured router, n1 measured router"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorldApart(t, tc.nodes, 40)
			for _, name := range tc.old {
				w.old[name] = true
			}
			silent := resolverAt(1, 7)
			if tc.router != nil {
				w.routers[silent] = tc.router
			}
			w.sees(silent)
			w.pass(5 * time.Minute)
			status := must(w.s.Site(silent))
			if got := w.order(silent); status.State != tc.state || !slices.Equal(got, tc.order) || status.Router.IsValid() != (tc.state == StateRouter) {
				t.Errorf("Expected %s with %v, got %+v with %v", tc.state, tc.order, status, got)
			}
			if asked := min(3, tc.nodes); w.asked[silent] != asked || w.traced[silent] != tc.traced {
				t.Errorf("Expected %d measurements, and %d of routers, got %d and %d", asked, tc.traced, w.asked[silent], w.traced[silent])
			}
			if got := w.outcomes(silent); got != tc.outcomes {
				t.Errorf("Expected %s, got %s", tc.outcomes, got)
			}
		})
	}
}

// TestGuidedSearchByRouters has many nodes: few of them measure.
func TestGuidedSearchByRouters(t *testing.T) {
	w := newWorld(t, 30)
	w.pass(10 * time.Minute) // nodes measure each other
	for i := range 10 {
		addr := resolverAt(i, 1)
		w.routers[addr] = oneRouter(2*float64(i) + 0.7)
		w.sees(addr)
	}
	w.pass(10 * time.Minute)
	for i := range 10 {
		addr := resolverAt(i, 1)
		if got, want := w.order(addr), fmt.Sprintf("n%d", 2*i+1); len(got) == 0 || got[0] != want {
			t.Errorf("Expected %s first for %s, got %v", want, addr, got)
		}
		if w.asked[addr] != 3 || w.traced[addr] > 11 {
			t.Errorf("Expected 3 measurements, and at most 11 of routers, got %d and %d", w.asked[addr], w.traced[addr])
		}
	}
}

// TestRouterIsMeasuredAgain follows a silent site over days: its router moves, and then
// its resolvers answer themselves.
func TestRouterIsMeasuredAgain(t *testing.T) {
	w := newWorld(t, 6)
	addr := resolverAt(1, 7)
	w.routers[addr] = oneRouter(3.2)
	days := func(n int) {
		for range n {
			w.sees(addr)
			w.pass(24 * time.Hour)
		}
	}
	days(1)
	if got := w.order(addr); w.asked[addr] != 3 || w.traced[addr] != 6 || len(got) != 6 || got[0] != "n3" {
		t.Fatalf("Expected n3 by 3 measurements, and 6 of routers, got %v by %d and %d", got, w.asked[addr], w.traced[addr])
	}
	days(3)
	if n := w.traced[addr] - 6; w.asked[addr] != 3 || n < 2*checkNodes || n > 4*checkNodes {
		t.Errorf("Expected %d measurements of the router a day, and no others, got %d in 3 days, and %d", checkNodes, n, w.asked[addr]-3)
	}
	w.routers[addr] = oneRouter(1.2)
	days(2)
	if got := w.order(addr); got[0] != "n1" || w.asked[addr] != 3 {
		t.Errorf("Expected n1 after the router has moved, by routers alone, got %v by %d measurements", got, w.asked[addr])
	}
	w.routers[addr] = func(node int) (netip.Addr, float64) { return routerOf(50 + node), 1.2 }
	days(2)
	if got := w.order(addr); len(got) > 0 {
		t.Errorf("Expected no order by routers that differ, got %v", got)
	}
	w.routers[addr] = oneRouter(1.2)
	days(2)
	if got := w.order(addr); len(got) == 0 || got[0] != "n1" {
		t.Errorf("Expected n1 again, got %v", got)
	}
	w.at[addr] = 4.2
	days(8)
	status := must(w.s.Site(addr))
	if got := w.order(addr); status.State != StateMeasured || status.Router.IsValid() || len(got) == 0 || got[0] != "n4" {
		t.Errorf("Expected n4 after the resolvers answered, got %+v by %v", status, got)
	}
	delete(w.at, addr)
	traced := w.traced[addr]
	days(9)
	if got := w.order(addr); must(w.s.Site(addr)).State != StateMeasured || got[0] != "n4" || w.traced[addr] != traced {
		t.Errorf("Expected what the resolvers answered to stay for a while, got %v, and %d measurements of routers", got, w.traced[addr]-traced)
	}
}

func TestRestartMeasuresNoRouterTwice(t *testing.T) {
	w, d := newWorld(t, 4), make(disk)
	w.pass(5 * time.Minute)
	common, none, differ := resolverAt(1, 1), resolverAt(2, 1), resolverAt(3, 1)
	w.routers[common] = oneRouter(2.1)
	w.routers[differ] = func(node int) (netip.Addr, float64) { return routerOf(node), 1.2 }
	for _, addr := range []netip.Addr{common, none, differ} {
		w.sees(addr)
	}
	w.pass(5 * time.Minute)
	w.save(d)
	want := ", outcomes " + w.outcomes(common) + "; " + w.outcomes(none) + "; " + w.outcomes(differ)
	for _, stored := range []string{"n2=silent,router/1.000/9/198.19.1.0,", "n0=silent,router/21.000/9/198.19.1.0,"} {
		if text := string(d["198.18.1.0/24"]); !strings.Contains(text, stored) {
			t.Errorf("Expected %s to be stored, got %s", stored, text)
		}
	}
	packets := w.packets
	w.restart(d)
	w.pass(30 * time.Minute)
	if got := w.order(common); w.packets != packets || !slices.Equal(got, []string{"n2", "n3", "n1", "n0"}) {
		t.Errorf("Expected nothing to be measured again, got %d packets, and %v", w.packets-packets, got)
	}
	if got := ", outcomes " + w.outcomes(common) + "; " + w.outcomes(none) + "; " + w.outcomes(differ); got != want {
		t.Errorf("Expected %s, got %s", want, got)
	}
}

// TestOtherResolverOfRoutedSite has a second resolver ask, that answers, after the site
// got the latencies of a router.
func TestOtherResolverOfRoutedSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		silent, other := resolverAt(1, 7), resolverAt(1, 8)
		w.routers[silent], w.at[other] = oneRouter(2.1), 1.2
		w.sees(silent)
		w.pass(5 * time.Minute)
		if status := must(w.s.Site(silent)); status.State != StateRouter {
			t.Fatalf("Expected the latencies of a router, got %+v", status)
		}
		use := func(addr netip.Addr) {
			time.Sleep(time.Until(w.now))
			w.s.Used(w.s.Table().Lookup(addr), addr)
			w.pass(5 * time.Minute)
		}
		packets := w.packets
		if use(silent); w.packets != packets {
			t.Errorf("Expected nothing to be measured for the same resolver, got %d packets", w.packets-packets)
		}
		use(other)
		if got, status := w.order(silent), must(w.s.Site(silent)); status.State != StateMeasured || status.Address != other || got[0] != "n1" {
			t.Errorf("Expected the resolver that answers to be measured, got %+v, %v", status, got)
		}
	})
}

// TestOtherResolversAreSilent has many resolvers of a silent site ask: one of them is
// tried at once, and no other one until the next search.
func TestOtherResolversAreSilent(t *testing.T) {
	w := newWorld(t, 4)
	for host := range 20 {
		w.routers[resolverAt(1, host)] = oneRouter(2.1)
		w.sees(resolverAt(1, host))
		w.pass(10 * time.Minute)
	}
	asked, traced := 0, 0
	for host := range 20 {
		asked, traced = asked+w.asked[resolverAt(1, host)], traced+w.traced[resolverAt(1, host)]
	}
	if status := must(w.s.Site(resolverAt(1, 0))); status.State != StateRouter || asked > 9 || traced > 8 {
		t.Errorf("Expected two searches, got %d measurements, and %d of routers: %+v", asked, traced, status)
	}
}

// TestStoredRouterDuringSearch takes answers about a router from the store, while nodes
// measure the resolvers: only latencies of one kind are ranked.
func TestStoredRouterDuringSearch(t *testing.T) {
	for name, tc := range map[string]struct {
		answers bool
		want    []string
	}{
		"the resolver answers": {true, []string{"n2", "n1", "n0"}},
		"it is silent":         {false, []string{"n2", "n3", "n1", "n0"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			addr := resolverAt(1, 1)
			w.routers[addr] = oneRouter(2.1)
			if tc.answers {
				w.at[addr] = 2.1
			}
			w.sees(addr)
			value := fmt.Sprintf("1 %s - - %d %d n3=silent,router/9.000/9/198.19.1.0,%[4]d", addr, hours(w.now), unix(w.now), unix(w.now))
			w.s.Take(map[string][]byte{"198.18.1.0/24": []byte(value)})
			w.pass(5 * time.Minute)
			if got := w.order(addr); !slices.Equal(got, tc.want) {
				t.Errorf("Expected %v, got %v: %s", tc.want, got, w.outcomes(addr))
			}
		})
	}
}

// TestLiarsAboutRouters has a node that reports far too small latencies.
func TestLiarsAboutRouters(t *testing.T) {
	for name, liar := range map[string]surveymsg.Result{
		"of the resolver":       {RTT: 0.1, Method: surveymsg.ICMP},
		"of another router":     {RTT: 0.1, Method: surveymsg.Router, Router: routerOf(9), TTL: 1},
		"of the common network": {RTT: 0.1, Method: surveymsg.Router, Router: routerOf(1), TTL: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldApart(t, 5, 60)
			silent := resolverAt(1, 1)
			w.routers[silent] = oneRouter(1.1)
			w.reports = func(node string, target surveymsg.Target) (surveymsg.Result, bool) {
				r := liar
				r.Address = target.Address
				return r, node == "n4" && target.Node == ""
			}
			w.sees(silent)
			w.pass(10 * time.Minute)
			if got := w.order(silent); len(got) != 4 || got[0] != "n1" || slices.Contains(got, "n4") {
				t.Errorf("Expected the honest nodes, got %v: %s", got, w.outcomes(silent))
			}
			if w.traced[silent] > 5 {
				t.Errorf("Expected nothing to be measured twice, got %d measurements of routers", w.traced[silent])
			}
		})
	}
}

// TestRouterThatWasNotAskedFor checks that such a report is silence, and no more.
func TestRouterThatWasNotAskedFor(t *testing.T) {
	w := newWorld(t, 0)
	w.nodes = []string{"n0", "n1", "n2"}
	w.reports = func(_ string, target surveymsg.Target) (surveymsg.Result, bool) {
		return surveymsg.Result{Address: target.Address, RTT: 1, Method: surveymsg.Router, Router: routerOf(1), TTL: 1}, target.Method != surveymsg.Router
	}
	w.pass(time.Minute)
	addr := resolverAt(1, 1)
	w.sees(addr)
	w.pass(5 * time.Minute)
	if got := w.outcomes(addr); got != "n0 silent, n1 silent, n2 silent" || w.asked[addr] != 3 || w.traced[addr] != 3 {
		t.Errorf("Expected silence, got %s by %d and %d measurements", got, w.asked[addr], w.traced[addr])
	}
	if d := w.s.latencies[0][1]; !math.IsNaN(d) {
		t.Errorf("Expected no latency between nodes, got %v", d)
	}
}

// TestNodeThatReportsNoRouter has a node that asks for work and measures resolvers, but
// never reports what it was asked of routers: the search ends all the same.
func TestNodeThatReportsNoRouter(t *testing.T) {
	for name, router := range map[string]func(int) (netip.Addr, float64){"a router": oneRouter(2.1), "none": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			w.mute = func(node string, target surveymsg.Target) bool {
				return node == "n3" && target.Method == surveymsg.Router
			}
			addr := resolverAt(1, 7)
			if router != nil {
				w.routers[addr] = router
			}
			w.at[addr], w.only[addr] = 3, "nobody"
			w.sees(addr)
			w.pass(10 * time.Minute)
			if status := w.s.Status(); status.Waiting > 0 {
				t.Errorf("Expected the search to have ended, got %+v", status)
			}
			given := w.muted
			w.pass(time.Hour)
			if w.muted != given {
				t.Errorf("Expected the node not to be asked again, got %d targets in an hour", w.muted-given)
			}
			w.pass(forgetAfter + 2*daily)
			if _, ok := w.s.Site(addr); ok {
				t.Error("Expected the site to be forgotten")
			}
		})
	}
}

// TestNodesThatCannotSearchForRouters has nodes whose systems do not tell which router
// answered: what they say is silence for a day, and no reason to believe one node.
func TestNodesThatCannotSearchForRouters(t *testing.T) {
	w := newWorldApart(t, 4, 60)
	silent, claimed := resolverAt(1, 1), resolverAt(2, 1)
	w.reports = func(node string, target surveymsg.Target) (surveymsg.Result, bool) {
		if node == "n3" && target.Address == claimed && target.Method == surveymsg.Router {
			return surveymsg.Result{Address: claimed, RTT: 0.1, Method: surveymsg.ICMP}, true
		}
		return surveymsg.Result{Address: target.Address, Outcome: surveymsg.Declined}, target.Method == surveymsg.Router
	}
	for _, addr := range []netip.Addr{silent, claimed} {
		w.sees(addr)
	}
	w.pass(10 * time.Minute)
	if got := w.outcomes(silent); got != "n0 declined, n1 declined, n2 declined, n3 declined" {
		t.Fatalf("Expected no node to search for routers, got %s", got)
	}
	asked := w.asked[silent]
	w.pass(12 * time.Hour)
	if status := must(w.s.Site(silent)); status.State != StateSilent || w.asked[silent] != asked {
		t.Errorf("Expected a silent site that is not measured the same day, got %+v, and %d measurements", status, w.asked[silent]-asked)
	}
	if got := w.order(claimed); len(got) > 0 {
		t.Errorf("Expected one node that nobody can check not to be believed, got %v: %s", got, w.outcomes(claimed))
	}
}

// TestReportOfRouterIsRepeated checks that the same report again changes nothing.
func TestReportOfRouterIsRepeated(t *testing.T) {
	for _, r := range []surveymsg.Result{
		{RTT: 7.5, Method: surveymsg.Router, Router: routerOf(1), TTL: 9}, {Outcome: surveymsg.Silent}, {Outcome: surveymsg.Declined},
	} {
		w := newWorld(t, 2)
		r.Address = resolverAt(1, 1)
		w.sees(r.Address)
		w.work(0, "n0")
		w.work(1, "n1")
		work := w.s.Work("n0", []netip.Addr{nodeAddress(0)}, w.now)
		if len(work.Targets) != 1 || work.Targets[0].Method != surveymsg.Router || work.Targets[0].Every != 2*time.Second {
			t.Fatalf("Expected a router to be measured by one packet each 2 s, got %+v", work)
		}
		for _, want := range []int{1, 0} {
			if fresh, err := w.s.Report("n0", []surveymsg.Result{r}, w.now); fresh != want || err != nil {
				t.Errorf("Expected %d new results of %+v, got %d, %v", want, r, fresh, err)
			}
		}
		if site := w.s.sites[resolver.SiteOf(r.Address)]; site.method != 0 {
			t.Errorf("Expected no method by which resolvers answer, got %s", site.method)
		}
	}
}

// TestBudgetOfRouters checks that the packets for routers count.
func TestBudgetOfRouters(t *testing.T) {
	w := newWorld(t, 5)
	w.pass(5 * time.Minute)
	w.packets = 0
	for i := range 100 {
		w.routers[resolverAt(i, 1)] = oneRouter(2)
		w.sees(resolverAt(i, 1))
	}
	begin := w.now
	for range 10 {
		w.pass(20 * time.Second)
		if most := DefaultBudget * (budgetAhead + int(w.now.Sub(begin)/time.Second)); w.packets > most {
			t.Fatalf("Expected at most %d packets in %s, got %d", most, w.now.Sub(begin), w.packets)
		}
	}
	if n := w.s.Status().Sites[StateRouter]; n != 100 {
		t.Errorf("Expected all sites in the end, got %d", n)
	}
}
