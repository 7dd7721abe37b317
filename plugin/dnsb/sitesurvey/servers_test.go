package sitesurvey

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// cluster is servers with one store, and nodes that ask all of them.
type cluster struct {
	servers []*world
	store   disk
	down    []bool // servers that have ended
}

func newCluster(t *testing.T, servers, nodes int) *cluster {
	t.Helper()
	c := &cluster{store: make(disk), down: make([]bool, servers)}
	for range servers {
		w := newWorld(t, nodes)
		w.s.Moved(true)
		c.servers = append(c.servers, w)
	}
	for _, w := range c.servers {
		w.at, w.gone, w.now = c.servers[0].at, make(map[string]bool), c.servers[0].now
	}
	c.pass(time.Minute)
	return c
}

// pass lets time pass. Servers write every 10 seconds, and see at once what others
// wrote.
func (c *cluster) pass(d time.Duration) {
	for range d / askAgain {
		for i, w := range c.servers {
			if c.down[i] {
				w.now = w.now.Add(askAgain)
				continue
			}
			w.pass(askAgain)
			written := make(disk)
			if err := w.s.Save(func(values map[string][]byte) error { maps.Copy(written, values); return c.store.write(values) }); err != nil {
				w.t.Fatal(err)
			}
			maps.DeleteFunc(written, func(_ string, value []byte) bool { return value == nil })
			for j, other := range c.servers {
				if j != i && !c.down[j] {
					other.s.Take(written)
				}
			}
		}
	}
}

// measured returns how many measurements of an address all servers asked for.
func (c *cluster) measured(addr netip.Addr) int {
	n := 0
	for _, w := range c.servers {
		n += w.asked[addr]
	}
	return n
}

// of returns addresses in sites of a server, as many as wanted.
func (c *cluster) of(server, wanted int) (addrs []netip.Addr) {
	s := c.servers[server].s
	for i := 1; len(addrs) < wanted; i++ {
		addr := resolverAt(i, 7)
		s.mu.Lock()
		mine := s.isMine(resolver.SiteOf(addr))
		s.mu.Unlock()
		if mine {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

func TestServersMeasureNothingTwice(t *testing.T) {
	for _, nodes := range []int{3, 12} {
		c := newCluster(t, 3, nodes)
		var all []netip.Addr
		for server := range c.servers {
			all = append(all, c.of(server, 3)...)
		}
		for i, addr := range all {
			c.servers[0].at[addr] = float64(i) / 3
			for _, w := range c.servers { // in the same moment
				w.sees(addr)
			}
		}
		c.pass(5 * time.Minute)
		single := newWorld(t, nodes)
		for i, addr := range all {
			single.at[addr] = float64(i) / 3
			single.sees(addr)
		}
		single.pass(5 * time.Minute)
		for _, addr := range all {
			if got, want := c.measured(addr), single.asked[addr]; got != want {
				t.Errorf("%d nodes: Expected %d measurements of %s, as with one server, got %d", nodes, want, addr, got)
			}
			for _, w := range c.servers {
				if got, want := w.order(addr), single.order(addr); len(want) == 0 || !slices.Equal(got, want) {
					t.Errorf("%d nodes: Expected all servers to have the order %v of %s, got %v", nodes, want, addr, got)
				}
			}
		}
		// Nor later: each day the two nearest nodes measure a site again.
		before := make(map[netip.Addr]int)
		for _, addr := range all {
			before[addr] = c.measured(addr)
		}
		for range 25 {
			for i, addr := range all { // each site asks one server
				c.servers[i%len(c.servers)].sees(addr)
			}
			c.pass(time.Hour)
		}
		for _, addr := range all {
			if got := c.measured(addr) - before[addr]; got != checkNodes {
				t.Errorf("%d nodes: Expected %d measurements of %s a day later, got %d", nodes, checkNodes, addr, got)
			}
		}
	}
}

// TestSiteThatAsksAnotherServer asks only a server whose site it is not.
func TestSiteThatAsksAnotherServer(t *testing.T) {
	c := newCluster(t, 2, 3)
	addr := c.of(1, 1)[0]
	c.servers[0].at[addr] = 1
	c.servers[0].sees(addr)
	c.pass(time.Minute)
	if got := c.servers[0].order(addr); !slices.Equal(got, []string{"n1", "n0", "n2"}) || c.servers[0].asked[addr] != 0 {
		t.Errorf("Expected the order from the other server, got %v and %d measurements of its own", got, c.servers[0].asked[addr])
	}
}

// TestSharedSiteIsMeasuredAgain has a site searched again after a week, and after it has
// moved: what the other server knows of the search before does not come back.
func TestSharedSiteIsMeasuredAgain(t *testing.T) {
	c, single := newCluster(t, 2, 10), newWorld(t, 10)
	addr := c.of(0, 1)[0]
	days := func(place float64, n int) (measured, want int) {
		measured, want = c.measured(addr), single.asked[addr]
		c.servers[0].at[addr], single.at[addr] = place, place
		for range n {
			for _, w := range c.servers {
				w.sees(addr)
			}
			single.sees(addr)
			c.pass(daily)
			single.pass(daily)
		}
		return c.measured(addr) - measured, single.asked[addr] - want
	}
	for _, step := range []struct {
		place float64
		days  int
		first string
	}{{3.2, 9, "n3"}, {8, 2, "n8"}} {
		if got, want := days(step.place, step.days); got != want {
			t.Errorf("Expected %d measurements in %d days, as with one server, got %d", want, step.days, got)
		}
		want := single.order(addr)
		for i, w := range c.servers {
			if got := w.order(addr); got[0] != step.first || !slices.Equal(got, want) {
				t.Errorf("Expected server %d to have the order %v, got %v", i, want, got)
			}
		}
	}
}

func TestServerTakesOverSites(t *testing.T) {
	c := newCluster(t, 2, 3)
	addrs := c.of(1, 3)
	for i, addr := range addrs {
		c.servers[0].at[addr] = float64(i)
	}
	c.down[1] = true // without a word
	c.servers[0].sees(addrs[0])
	c.pass(time.Minute)
	if got := c.measured(addrs[0]); got != 0 {
		t.Errorf("Expected the site to be left to the other server for now, got %d measurements", got)
	}
	c.pass(2 * time.Minute)
	if got := c.servers[0].order(addrs[0]); len(got) != 3 {
		t.Errorf("Expected the site to be taken over, got %v", got)
	}

	// The other one comes back, and ends properly.
	c.down[1] = false
	c.pass(time.Minute)
	if err := c.servers[1].s.Leave(func(values map[string][]byte) error { c.servers[0].s.Take(values); return nil }); err != nil {
		t.Fatal(err)
	}
	c.down[1] = true
	c.servers[0].sees(addrs[1])
	c.pass(30 * time.Second)
	if got := c.servers[0].order(addrs[1]); len(got) != 3 {
		t.Errorf("Expected the site to be taken over at once, got %v", got)
	}
}

// TestServerWithoutNodesTakesNoSites has nodes that ask one server only.
func TestServerWithoutNodesTakesNoSites(t *testing.T) {
	c := newCluster(t, 2, 3)
	for _, name := range c.servers[1].nodes {
		c.servers[1].gone[name] = true
	}
	addr := c.of(1, 1)[0]
	c.servers[0].at[addr] = 1
	c.pass(activeFor + liveFor + time.Minute)
	c.servers[1].sees(addr)
	c.pass(time.Minute)
	for i, w := range c.servers {
		if got := w.order(addr); len(got) != 3 {
			t.Errorf("Server %d: Expected the site to be measured, got %v", i, got)
		}
	}
}
