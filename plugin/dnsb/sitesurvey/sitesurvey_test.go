package sitesurvey

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

func init() { clog.Discard() }

// world is nodes and sites on a line whose nodes take part in a survey.
type world struct {
	t     *testing.T
	s     *Survey
	now   time.Time
	nodes []string
	at    map[netip.Addr]float64 // where resolvers are; those that are missing are silent
	lies  map[string]float64     // what a node reports of every resolver, in milliseconds
	only  map[netip.Addr]string  // node that alone hears a resolver
	apart float64                // milliseconds between two nodes
	gone  map[string]bool        // nodes that do not ask

	routers map[netip.Addr]func(node int) (router netip.Addr, place float64)    // on the way to resolvers
	reports func(node string, target surveymsg.Target) (surveymsg.Result, bool) // in place of the model
	old     map[string]bool                                                     // nodes that do not know what a router is
	mute    func(node string, target surveymsg.Target) bool                     // the node does not report it
	muted   int                                                                 // targets that were given for that

	asked   map[netip.Addr]int // by address: measurements of resolvers
	traced  map[netip.Addr]int // by address: measurements of routers on the way
	packets int
}

func newWorld(t *testing.T, nodes int) *world {
	t.Helper()
	w := &world{
		t: t, s: New(), now: time.Now().Add(time.Hour).Truncate(time.Hour), at: make(map[netip.Addr]float64), lies: make(map[string]float64), gone: make(map[string]bool),
		routers: make(map[netip.Addr]func(int) (netip.Addr, float64)), old: make(map[string]bool), traced: make(map[netip.Addr]int),
		asked: make(map[netip.Addr]int), only: make(map[netip.Addr]string), apart: 10,
	}
	w.s.Configure(surveymsg.Options{Budget: DefaultBudget})
	for i := range nodes {
		w.nodes = append(w.nodes, fmt.Sprintf("n%d", i))
	}
	w.pass(40 * time.Second) // until all have asked
	return w
}

func nodeAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}) }

func resolverAt(site, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(site), byte(host)})
}

// sees has a resolver ask DNS-B.
func (w *world) sees(addr netip.Addr) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.sighted(resolver.SiteOf(addr), addr, w.now)
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	step := askAgain
	if d >= daily {
		step = time.Minute
	}
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(step) {
		w.s.Tick(w.now)
		for i, name := range w.nodes {
			if !w.gone[name] {
				w.work(i, name)
			}
		}
	}
	w.s.Tick(w.now)
}

func (w *world) work(i int, name string) {
	work := w.s.Work(name, []netip.Addr{nodeAddress(i)}, w.now)
	w.inTime(name, work)
	var results []surveymsg.Result
	for _, t := range work.Targets {
		if w.mute != nil && w.mute(name, t) {
			w.muted++
			continue
		}
		w.packets += taskPackets
		if t.Method == surveymsg.Router {
			w.packets += routerPackets - taskPackets
		}
		r := surveymsg.Result{Address: t.Address, Method: surveymsg.ICMP}
		place, ok := w.at[t.Address]
		if t.Node != "" {
			var other int
			if _, err := fmt.Sscanf(t.Node, "n%d", &other); err != nil || nodeAddress(other) != t.Address {
				w.t.Errorf("Expected the address of node %s, got %s", t.Node, t.Address)
			}
			place, ok = float64(other), true
		} else if t.Method == surveymsg.Router {
			w.traced[t.Address]++
		} else {
			w.asked[t.Address]++
		}
		if r.RTT = w.apart * math.Abs(place-float64(i)); r.RTT == 0 {
			r.RTT = 0.5
		}
		if hears := w.only[t.Address]; hears != "" {
			ok = hears == name
		}
		if lie, lies := w.lies[name]; lies {
			r.RTT, ok = lie, true
		}
		if !ok {
			r = surveymsg.Result{Address: t.Address, Outcome: surveymsg.Silent}
			if router := w.routers[t.Address]; router != nil && t.Method == surveymsg.Router && !w.old[name] {
				r.Outcome, r.Method, r.TTL = surveymsg.Measured, surveymsg.Router, 9
				r.Router, place = router(i)
				r.RTT = max(0.5, w.apart*math.Abs(place-float64(i)))
			}
		}
		if w.reports != nil {
			if other, ok := w.reports(name, t); ok {
				r = other
			}
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return
	}
	if _, err := w.s.Report(name, results, w.now); err != nil {
		w.t.Errorf("Expected the report of %s to be taken, got %v", name, err)
	}
}

// inTime checks that a node with the least budget, a packet a second, can report work
// in time.
func (w *world) inTime(name string, work surveymsg.Work) {
	packets := 0
	for _, t := range work.Targets {
		packets += taskPackets
		if t.Method == surveymsg.Router {
			packets += routerPackets - taskPackets
		}
	}
	if most := int((reportWithin - time.Minute) / time.Second); packets > most {
		w.t.Errorf("Expected at most %d packets at once for %s, got %d", most, name, packets)
	}
}

// order returns the nodes that are known for a resolver, best first.
func (w *world) order(addr netip.Addr) []string {
	t := w.s.Table()
	site := t.Lookup(addr)
	if site == nil {
		return nil
	}
	var names []string
	for _, m := range site.Measured {
		names = append(names, t.Names[m.Node])
	}
	return names
}

func TestFewNodesMeasureAllSites(t *testing.T) {
	w := newWorld(t, 4)
	near2, beyond := resolverAt(1, 7), resolverAt(2, 7)
	w.at[near2], w.at[beyond] = 2.1, 7
	w.sees(near2)
	w.sees(beyond)
	w.pass(time.Minute)
	if got := w.order(near2); !slices.Equal(got, []string{"n2", "n3", "n1", "n0"}) {
		t.Errorf("Expected the nodes by latency, got %v", got)
	}
	if got := w.order(beyond); !slices.Equal(got, []string{"n3", "n2", "n1", "n0"}) {
		t.Errorf("Expected the nodes by latency, got %v", got)
	}
	status := w.s.Status()
	if status.Sites[StateMeasured] != 2 || status.Waiting != 0 || len(status.Nodes) != 4 {
		t.Errorf("Expected two measured sites and nothing to do, got %+v", status)
	}
	before := w.asked[near2]
	w.pass(time.Hour)
	if w.asked[near2] != before || before != 4 {
		t.Errorf("Expected each node to measure once, got %d and %d", before, w.asked[near2])
	}

	w.nodes = append(w.nodes, "n4") // comes later, and may be nearer
	w.pass(3 * time.Minute)
	if got := w.order(beyond); !slices.Equal(got, []string{"n4", "n3", "n2", "n1", "n0"}) || w.asked[beyond] != 5 {
		t.Errorf("Expected the new node to measure, got %v after %d measurements", got, w.asked[beyond])
	}
}

func TestGuidedSearch(t *testing.T) {
	w := newWorld(t, 30)
	w.pass(10 * time.Minute) // nodes measure each other
	for i := range 20 {
		addr := resolverAt(i, 1)
		w.at[addr] = float64(i) + 0.7
		w.sees(addr)
	}
	w.pass(10 * time.Minute)
	for i := range 20 {
		addr := resolverAt(i, 1)
		if got, want := w.order(addr), fmt.Sprintf("n%d", i+1); len(got) == 0 || got[0] != want {
			t.Errorf("Expected %s first for %s, got %v", want, addr, got)
		}
		if w.asked[addr] > 11 {
			t.Errorf("Expected at most 11 measurements, got %d", w.asked[addr])
		}
	}
}

func TestSilentSite(t *testing.T) {
	w := newWorld(t, 10)
	silent := resolverAt(1, 7)
	w.sees(silent)
	w.pass(5 * time.Minute)
	status, ok := w.s.Site(silent)
	if !ok || status.State != StateSilent || len(w.order(silent)) > 0 || w.asked[silent] != 3 || w.traced[silent] != 3 {
		t.Errorf("Expected a silent site after 3 measurements, and 3 of routers, got %+v, %d, %d", status, w.asked[silent], w.traced[silent])
	}
	w.pass(20 * time.Hour)
	if w.asked[silent] != 3 || w.traced[silent] != 3 {
		t.Errorf("Expected no more measurements the same day, got %d, %d", w.asked[silent], w.traced[silent])
	}
	w.sees(silent)
	w.at[silent] = 3
	w.pass(5 * time.Hour)
	if got := w.order(silent); len(got) == 0 || got[0] != "n3" {
		t.Errorf("Expected an answer the next day, got %v", got)
	}
}

func TestOtherAddressOfSilentSite(t *testing.T) {
	w := newWorld(t, 3)
	silent, other := resolverAt(1, 7), resolverAt(1, 8)
	w.at[other] = 1
	w.sees(silent)
	w.sees(other)
	w.pass(3 * time.Minute)
	if got := w.order(silent); len(got) != 3 || got[0] != "n1" {
		t.Errorf("Expected the other address to be measured, got %v", got)
	}
}

func TestSiteIsMeasuredAgain(t *testing.T) {
	w := newWorld(t, 10)
	addr := resolverAt(1, 7)
	w.at[addr] = 3.2
	days := func(n int) {
		for range n {
			w.sees(addr)
			w.pass(24 * time.Hour)
		}
	}
	days(1)
	first := w.asked[addr]
	if got := w.order(addr); len(got) == 0 || got[0] != "n3" {
		t.Fatalf("Expected n3, got %v", got)
	}
	days(3)
	if n := w.asked[addr] - first; n < 2*checkNodes || n > 4*checkNodes {
		t.Errorf("Expected %d measurements a day, got %d in 3 days", checkNodes, n)
	}
	w.at[addr] = 3.55 // n4 is nearer, but not clearly
	days(9)
	if got := w.order(addr); got[0] != "n3" {
		t.Errorf("Expected n3 to stay the first, got %v", got)
	}
	before := w.asked[addr]
	w.at[addr] = 8 // it moves
	days(2)
	if got := w.order(addr); got[0] != "n8" {
		t.Errorf("Expected n8 after the site has moved, got %v", got)
	}
	if n := w.asked[addr] - before; n > 11+3*checkNodes {
		t.Errorf("Expected a search and checks, got %d measurements", n)
	}
	before = w.asked[addr]
	w.pass(10 * daily) // no resolver asks any more
	if n := w.asked[addr] - before; n > 3*checkNodes {
		t.Errorf("Expected no measurements of an idle site, got %d", n)
	}
	w.pass(30 * daily)
	if _, ok := w.s.Site(addr); ok || w.s.Table().Size() > 0 {
		t.Error("Expected the site to be forgotten")
	}
}

func must(s SiteStatus, _ bool) SiteStatus { return s }

func TestReportOfWhatWasNotAsked(t *testing.T) {
	w := newWorld(t, 3)
	addr, other := resolverAt(1, 1), resolverAt(2, 1)
	w.sees(addr)
	work := w.s.Work("n0", []netip.Addr{nodeAddress(0)}, w.now)
	if len(work.Targets) != 1 || work.Targets[0].Address != addr || work.Targets[0].Every != 3*time.Second {
		t.Fatalf("Expected one target each 3 s, got %+v", work)
	}
	ok := surveymsg.Result{Address: addr, RTT: 3, Method: surveymsg.DNS}
	for name, try := range map[string]struct {
		node    string
		results []surveymsg.Result
	}{
		"another address":              {"n0", []surveymsg.Result{ok, {Address: other, RTT: 1, Method: surveymsg.ICMP}}},
		"another address of the site":  {"n0", []surveymsg.Result{{Address: resolverAt(1, 2), RTT: 1, Method: surveymsg.ICMP}}},
		"a node that was not given it": {"n1", []surveymsg.Result{ok}},
		"an unknown node":              {"x", []surveymsg.Result{ok}},
	} {
		_, err := w.s.Report(try.node, try.results, w.now)
		if !errors.As(err, new(*NotAskedError)) {
			t.Errorf("%s: Expected an error, got %v", name, err)
		}
	}
	if status, _ := w.s.Site(addr); len(status.Answers) > 0 {
		t.Errorf("Expected nothing to change, got %+v", status)
	}
	for _, want := range []int{1, 0} { // the reply may be lost
		if fresh, err := w.s.Report("n0", []surveymsg.Result{ok}, w.now); fresh != want || err != nil {
			t.Errorf("Expected %d new results, got %d, %v", want, fresh, err)
		}
	}
	if work := w.s.Work("n1", []netip.Addr{nodeAddress(1)}, w.now); work.Targets[0].Method != surveymsg.DNS {
		t.Errorf("Expected the others to begin with the method that was answered, got %+v", work)
	}
}

func TestBudget(t *testing.T) {
	w := newWorld(t, 5)
	w.pass(5 * time.Minute)
	w.packets = 0
	for i := range 200 {
		w.at[resolverAt(i, 1)] = 2
		w.sees(resolverAt(i, 1))
	}
	begin := w.now
	w.pass(90 * time.Second)
	if most := DefaultBudget * (budgetAhead + int(w.now.Sub(begin)/time.Second)); w.packets > most || w.packets < most*3/4 {
		t.Errorf("Expected at most %d packets and not much less, got %d", most, w.packets)
	}
	w.pass(5 * time.Minute)
	if n := w.s.Status().Sites[StateMeasured]; n != 200 {
		t.Errorf("Expected all sites in the end, got %d", n)
	}
}

func TestNodeThatDoesNotReport(t *testing.T) {
	w := newWorld(t, 3)
	addr := resolverAt(1, 1)
	w.at[addr] = 1
	w.sees(addr)
	w.gone["n1"] = true
	w.pass(10 * time.Minute)
	if got := w.order(addr); !slices.Equal(got, []string{"n0", "n2"}) {
		t.Errorf("Expected the others, got %v", got)
	}
	w.gone["n1"] = false
	w.sees(addr)
	w.pass(25 * time.Hour)
	if got := w.order(addr); len(got) == 0 || got[0] == "n1" {
		t.Errorf("Expected the others until the next search, got %v", got)
	}
	for range 8 {
		w.sees(addr)
		w.pass(daily)
	}
	if got := w.order(addr); len(got) != 3 || got[0] != "n1" {
		t.Errorf("Expected all nodes after a week, got %v", got)
	}
}

func TestSitesWaitForNodes(t *testing.T) {
	w := newWorld(t, 0)
	addr := resolverAt(1, 1)
	w.at[addr] = 1
	w.sees(addr)
	w.pass(time.Hour)
	w.nodes = []string{"n0", "n1"}
	w.pass(time.Minute)
	if got := w.order(addr); !slices.Equal(got, []string{"n1", "n0"}) {
		t.Errorf("Expected the nodes that came, got %v", got)
	}
	w.gone["n0"], w.gone["n1"] = true, true
	w.pass(10 * time.Minute)
	other := resolverAt(2, 1)
	w.at[other] = 0
	w.sees(other)
	w.pass(time.Minute)
	clear(w.gone)
	w.pass(time.Minute)
	if got := w.order(other); !slices.Equal(got, []string{"n0", "n1"}) {
		t.Errorf("Expected the nodes that came back, got %v", got)
	}
}

func TestAvoid(t *testing.T) {
	w := newWorld(t, 2)
	addr := resolverAt(1, 1)
	w.at[addr] = 1
	w.sees(addr)
	w.pass(time.Minute)
	if len(w.order(addr)) == 0 {
		t.Fatal("Expected the site to be measured")
	}
	w.s.Configure(surveymsg.Options{Budget: 1, Avoid: []netip.Prefix{netip.MustParsePrefix("198.18.1.128/25")}})
	if _, ok := w.s.Site(addr); ok || len(w.order(addr)) > 0 {
		t.Error("Expected the site to be forgotten")
	}
	w.sees(addr)
	if _, ok := w.s.Site(addr); ok {
		t.Error("Expected the site to be avoided")
	}
}

// TestNodesBesideServersMeasure checks that a search goes on with the nodes beside
// servers that could be the best of a site, also of one that was measured before.
func TestNodesBesideServersMeasure(t *testing.T) {
	w := newWorld(t, 30)
	addr := resolverAt(1, 1)
	w.at[addr] = 7
	w.sees(addr)
	w.pass(2 * time.Minute)
	before := w.order(addr)
	if slices.Contains(before, "n12") {
		t.Fatalf("Expected a search for the nearest node, got %v", before)
	}
	w.s.SetBeside([][]string{{"n12", "n29", "nobody"}, {"n0"}})
	w.pass(5 * time.Minute)
	after := w.order(addr)
	for node, want := range map[string]bool{"n12": true, "n0": true, "n29": false} {
		if slices.Contains(after, node) != want {
			t.Errorf("Expected that node %s measures: %v, got %v after %v", node, want, after, before)
		}
	}
	if asked := w.asked[addr]; len(after) > 11 || asked != len(after) {
		t.Errorf("Expected no node to measure twice, and at most 11 of them, got %d measurements by %v", asked, after)
	}
}
