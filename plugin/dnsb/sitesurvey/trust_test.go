package sitesurvey

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// outcome returns what became of the latency that a node reported of a resolver.
func (w *world) outcome(node string, addr netip.Addr) string {
	for _, a := range must(w.s.Site(addr)).Answers {
		if a.Node == node {
			return a.Outcome
		}
	}
	return ""
}

// askedWith has resolvers ask, each in a site of its own, and lets them be measured.
func (w *world) askedWith(places ...float64) (addrs []netip.Addr) {
	for i, place := range places {
		addr := resolverAt(100+i, 1)
		w.at[addr] = place
		addrs = append(addrs, addr)
		w.sees(addr)
	}
	w.pass(5 * time.Minute)
	return addrs
}

// A node that claims to be nearest to far sites does not get them, however few nodes
// there are, and not while DNS-B starts again.
func TestLiarIsFoundOut(t *testing.T) {
	for _, nodes := range []int{3, 5, 8, 20} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			w, d := newWorldApart(t, nodes, 60), make(disk)
			w.lies["n0"] = 1
			w.pass(10 * time.Minute) // it lies about nodes, too
			far := w.askedWith(float64(nodes)-1.9, float64(nodes)-1.8, 1.2)
			check := func(when string) {
				t.Helper()
				for i, want := range []int{nodes - 2, nodes - 2, 1} {
					if got := w.order(far[i]); len(got) == 0 || got[0] != fmt.Sprintf("n%d", want) {
						t.Errorf("Expected n%d to be first %s, got %v", want, when, got)
					}
					if got := w.outcome("n0", far[i]); got != "implausible" && got != "" {
						t.Errorf("Expected an implausible answer %s, got %s", when, got)
					}
				}
			}
			check("after the search")
			w.save(d)
			w.restart(d)
			check("right after a restart")
			w.s.Tick(w.now)
			check("with the first tick")
			w.pass(5 * time.Minute)
			check("when all nodes are back")
		})
	}
}

// newWorldApart is newWorld with nodes so many milliseconds apart.
func newWorldApart(t *testing.T, nodes int, apart float64) *world {
	t.Helper()
	w := newWorld(t, 0)
	w.apart = apart
	for i := range nodes {
		w.nodes = append(w.nodes, fmt.Sprintf("n%d", i))
	}
	w.pass(40 * time.Second)
	return w
}

// What a node measured that lies about several sites does not count anywhere, also
// where nobody can contradict it, until it has measured again without lies.
func TestLiarIsDistrusted(t *testing.T) {
	w, d := newWorldApart(t, 5, 60), make(disk)
	w.lies["n0"] = 1
	silent := resolverAt(1, 1)
	w.sees(silent)
	w.pass(5 * time.Minute)
	if got := w.order(silent); len(got) > 0 {
		t.Errorf("Expected nothing of a site that only an unknown node hears, got %v", got)
	}
	far := w.askedWith(3.1, 2.9, 0.2)
	check := func(when, want string, orders ...string) {
		t.Helper()
		for i, addr := range []netip.Addr{silent, far[2]} {
			if got := fmt.Sprint(w.order(addr)); got != orders[i] {
				t.Errorf("Expected %s for %s %s, got %s", orders[i], addr, when, got)
			}
			if got := w.outcome("n0", addr); got != want {
				t.Errorf("Expected the answer of n0 to be %s for %s %s, got %s", want, addr, when, got)
			}
		}
	}
	check("after the search", "implausible", "[]", "[n1 n2 n3 n4]")
	w.save(d)
	w.restart(d)
	w.s.Tick(w.now)
	check("after a restart", "implausible", "[]", "[n1 n2 n3 n4]")
	if got := must(w.s.Site(silent)).State; got != StateSilent {
		t.Errorf("Expected a silent site, got %s", got)
	}
	asked := w.asked[silent]
	w.pass(time.Hour)
	if w.asked[silent] != asked {
		t.Errorf("Expected a silent site not to be measured again so soon, got %d measurements", w.asked[silent]-asked)
	}

	delete(w.lies, "n0")
	for range 8 { // all is measured again within a week
		for _, addr := range far {
			w.sees(addr)
		}
		w.pass(daily)
	}
	if got := fmt.Sprint(w.order(far[2])); got != "[n0 n1 n2 n3 n4]" {
		t.Errorf("Expected the node to count without lies, got %s", got)
	}
}

// A node that alone hears a site is believed if the others know it.
func TestSiteThatOneNodeHears(t *testing.T) {
	w, d := newWorldApart(t, 5, 60), make(disk)
	w.askedWith(1, 3)
	alone := resolverAt(1, 1)
	w.at[alone], w.only[alone] = 2, "n2"
	w.sees(alone)
	w.pass(5 * time.Minute)
	check := func(when string) {
		t.Helper()
		if got := fmt.Sprint(w.order(alone)); got != "[n2]" {
			t.Errorf("Expected the node that hears the site %s, got %s", when, got)
		}
	}
	check("after the search")
	w.save(d)
	w.restart(d)
	w.s.Tick(w.now)
	check("after a restart")

	small := newWorldApart(t, 2, 60) // nobody can ever tell who is right
	small.at[alone], small.only[alone] = 1, "n1"
	small.sees(alone)
	small.pass(5 * time.Minute)
	if got := fmt.Sprint(small.order(alone)); got != "[n1]" {
		t.Errorf("Expected the node of two that hears the site, got %s", got)
	}
}
