package peerview

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
)

// withAllNodes has a node exchange views with all nodes of the map.
func (n *testNode) withAllNodes(all bool) {
	n.settings.AllNodes = all
	n.Configure(n.settings)
}

// TestAllNodesExchangeViews checks that nodes fetch the views of all nodes of the
// map, without a NOTIFY and without being their deputies.
func TestAllNodesExchangeViews(t *testing.T) {
	t.Parallel()
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "192.0.2.0/24", []string{"fra1"}, 20, 10)
	fra := startNode(t, nodes, "fra1", "127.0.0.3", par.settings.Port, "203.0.113.0/24", nil, 30, 30)
	for _, n := range []*testNode{par, lon, fra} {
		n.settings.AllNodes = true
	}
	par.Configure(par.settings)
	par.share(time.Now())
	lon.share(time.Now()) // has a deputy, and is no node with client subnets
	m := nodemaptest.Table(t, nodes.prefixes)

	fra.SetMap(m)
	fra.Configure(fra.settings)
	for viewFor(fra.Sharing, "198.51.100.1") == "" || viewFor(fra.Sharing, "192.0.2.1") == "" {
		fra.follow(t, func() {})
	}
	fra.expectView(t, "198.51.100.1", "par1")
	fra.expectView(t, "192.0.2.1", "lon1")
	fra.expectView(t, "203.0.113.1", "")
	set := fra.Current()
	for _, v := range set.Views {
		if v != nil && (v.AllNodes != (v.Node == "par1") || v.HasDeputy("fra1") != (v.Node == "lon1")) {
			t.Errorf("Expected only the view of lon1 to be for a deputy, and that of par1 for all nodes, got %+v", v)
		}
	}

	// A node that the map no longer has is followed as a principal would be.
	fra.mu.Lock()
	f := fra.fetchers["par1"]
	fra.mu.Unlock()
	fra.SetMap(nodemaptest.Table(t, map[string]string{"192.0.2.0/24": "registration=lon1", "203.0.113.0/24": "registration=fra1"}))
	if f.wanted.Load() || !fra.fetchers["lon1"].wanted.Load() {
		t.Error("Expected the view of lon1 alone to be wanted")
	}
}

// TestViewIsForDeputiesOrAllNodes checks that a node fetches no views without
// 'client-subnets', and that a view for all nodes makes nobody a deputy.
func TestViewIsForDeputiesOrAllNodes(t *testing.T) {
	t.Parallel()
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.settings.Port, "192.0.2.0/24", nil, 20, 10)
	par.withAllNodes(true)
	par.share(time.Now())
	if len(lon.fetchers) != 0 {
		t.Errorf("Expected no fetchers, got %v", lon.fetchers)
	}
	// As if par1 had dismissed lon1 a moment ago.
	f := newFetcher(lon.Sharing, "par1", Own+1)
	defer f.cancel()
	if err := f.fetch(); err == nil || f.view != nil {
		t.Errorf("Expected a dismissal, got %v and %v", err, f.view)
	}
	f.wanted.Store(true)
	if err := f.fetch(); err != nil || f.view == nil || f.retire() {
		t.Errorf("Expected a view that is followed, got %v and %v", err, f.view)
	}
}

// mapOf returns a map with this many nodes, n000 being the first.
func mapOf(n int) *nodemap.Table {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%03d", i)
	}
	return &nodemap.Table{Names: names}
}

// TestViewsAreBounded checks that a node follows maxPrincipals views, those of the
// first nodes by name, and tells which it leaves out.
func TestViewsAreBounded(t *testing.T) {
	out := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		settings := Settings{Node: "n005", Cut: testCut, Key: viewKey(t, testSecret), AllNodes: true}
		s.Configure(settings)
		if !s.notified("zzz") {
			t.Fatal("Expected the NOTIFY of a principal to be taken")
		}
		s.SetMap(mapOf(maxPrincipals + 3))
		if got := s.Unfollowed(); len(s.fetchers) != maxPrincipals || !slices.Equal(got, []string{"n128", "n129", "n130"}) {
			t.Errorf("Expected %d fetchers and n128 to n130 to be left out, got %d and %v", maxPrincipals, len(s.fetchers), got)
		}
		if s.notified("n129") || !s.notified("n127") {
			t.Error("Expected the NOTIFY of a node that is left out to be refused, and that of another to be taken")
		}

		settings.AllNodes = false
		s.Configure(settings)
		if got := s.Unfollowed(); len(got) != 0 {
			t.Errorf("Expected none to be left out, got %v", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(s.fetchers); n != 0 {
			t.Errorf("Expected no fetchers, got %d", n)
		}
		s.SetMap(mapOf(maxPrincipals))
		settings.AllNodes = true
		s.Configure(settings)
		if got := s.Unfollowed(); len(s.fetchers) != maxPrincipals-1 || len(got) != 0 {
			t.Errorf("Expected %d fetchers, got %d and %v left out", maxPrincipals-1, len(s.fetchers), got)
		}
		time.Sleep(time.Hour) // nobody can be reached
		synctest.Wait()
		if n := len(s.fetchers); n != maxPrincipals-1 {
			t.Errorf("Expected nodes of the map to be asked again, got %d fetchers", n)
		}
		s.SetMap(nil)
	})
	const want = `Map of "` + testCut + `" has more nodes than the 128 whose views node "n005" follows, leaving out 3, such as "n128": client subnets near such a node get the answers of the next node that the map names`
	if lines := strings.Join(out.Lines(), "\n"); strings.Count(lines, want) != 1 {
		t.Errorf("Expected one line with %q, got\n%s", want, lines)
	}
}

// TestSubnetSlot checks the node for a client subnet and the length of the block,
// with a map that has another one before it. fra1 is not known.
func TestSubnetSlot(t *testing.T) {
	slot := func(node string) int {
		if slot, ok := map[string]int{"par1": Own, "lon1": 1, "nyc1": 2}[node]; ok {
			return slot
		}
		return Outside
	}
	slots := func(words map[string]string) Slots { return NewSlots(nodemaptest.Table(t, words), slot) }
	now := slots(map[string]string{
		"0.0.0.0/0": "default=par1", "198.51.100.0/24": "registration=lon1", "203.0.113.0/24": "registration=fra1 default=nyc1", "2001:db8::/32": "",
	})
	former := slots(map[string]string{
		"0.0.0.0/0": "default=lon1", "198.51.100.0/24": "registration=nyc1", "203.0.113.0/25": "registration=nyc1",
		"192.0.2.0/26": "registration=nyc1", "192.0.2.128/26": "registration=fra1", "2001:db8::/40": "registration=lon1",
	})
	for _, tc := range []struct {
		addr         string
		slot, length int // with now alone
		formerSlot   int
		formerLength int
	}{
		{"198.51.100.1", 1, 24, 1, 24},         // a prefix of now counts alone
		{"203.0.113.1", 2, 24, 2, 24},          // though its node is not known
		{"192.0.2.1", Own, 6, 2, 26},           // withdrawn
		{"192.0.2.129", Own, 6, Own, 26},       // withdrawn, and not known: the block is the same
		{"192.0.2.65", Own, 6, Own, 26},        // beside it
		{"20.0.0.1", Own, 1, Own, 1},           // never had one
		{"2001:db8:0:1::", Outside, 48, 1, 48}, // DNS-B hashes
		{"2001:db8:ffff::1", Outside, 48, Outside, 48},
	} {
		a := addr(tc.addr)
		if slot, _, length := (&Set{fetched: true, now: now}).SubnetSlot(a); slot != tc.slot || length != tc.length {
			t.Errorf("%s: expected slot %d and length %d, got %d and %d", a, tc.slot, tc.length, slot, length)
		}
		if slot, _, length := (&Set{fetched: true, now: now, former: []Slots{former}}).SubnetSlot(a); slot != tc.formerSlot || length != tc.formerLength {
			t.Errorf("%s: expected slot %d and length %d with a former map, got %d and %d", a, tc.formerSlot, tc.formerLength, slot, length)
		}
		if slot, _, length := (&Set{now: now, former: []Slots{former}}).SubnetSlot(a); slot != Outside || length != map[bool]int{true: 24, false: 48}[a.Is4()] {
			t.Errorf("%s: expected a site without a map, got %d and %d", a, slot, length)
		}
	}
}
