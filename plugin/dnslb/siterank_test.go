package dnslb

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// surveyedNode is node par1, whose map has sites, and which follows views of other
// nodes. It ranks when it is told to.
type surveyedNode struct {
	*DNSLB
	r     *ranker
	now   time.Time
	views []*peerview.View
	m     *nodemap.Table
}

// newSurveyedNode has servers a, b, c and so on, with these latencies from par1.
func newSurveyedNode(o options, servers []settings, ms ...float64) *surveyedNode {
	d := service4(o, servers, ms)
	snap := d.snapshot.Load()
	r := newRanker(d, nil)
	r.snapshot, r.observed = snap, snap.observed
	return &surveyedNode{DNSLB: d, r: r, now: time.Now(), views: []*peerview.View{nil}}
}

// follow has the node follow the view of another one with these latencies.
func (n *surveyedNode) follow(node string, ms ...float64) {
	v := &peerview.View{Node: node, Made: n.now, Targets: make(map[peerview.Target]peerview.Measurement), AllNodes: true, Deputies: []string{"par1"}}
	for i, target := range n.r.snapshot.targets {
		m := peerview.Measurement{Server: target.Name, At: n.now, State: latencyprobe.Up, Estimate: ranking.Estimate{Round: 1, RTT: ms[i], Value: ms[i]}}
		if ms[i] < 0 {
			m.State, m.Estimate = latencyprobe.Down, ranking.Estimate{}
		}
		v.Targets[peerview.Target{Addr: target.Addr}] = m
	}
	if i := slices.IndexFunc(n.views, func(v *peerview.View) bool { return v != nil && v.Node == node }); i >= 0 {
		n.views = slices.Clone(n.views)
		n.views[i] = v
		return
	}
	n.views = append(slices.Clip(n.views), v)
}

// measure has the node measure these latencies; negative: the server is down.
func (n *surveyedNode) measure(ms ...float64) {
	for i, v := range ms {
		n.r.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: n.r.observed.status[i].Estimate.Round + 1, RTT: v, Value: v}}
		if v < 0 {
			n.r.observed.status[i] = latencyprobe.Status{State: latencyprobe.Down}
		}
	}
	n.r.health++
	n.r.rankPools(n.r.snapshot.pools)
}

// set returns the views of the node by its map.
func (n *surveyedNode) set() *peerview.Set {
	slots := map[string]int{"par1": peerview.Own}
	for slot, v := range n.views {
		if v != nil {
			slots[v.Node] = slot
		}
	}
	return peerview.NewSet(n.views, peerview.NewSlots(n.m, func(node string) int {
		if slot, ok := slots[node]; ok {
			return slot
		}
		return peerview.Outside
	}))
}

// rank has the node take up its map and views, some seconds after the last time.
func (n *surveyedNode) rank(later time.Duration) {
	n.now = n.now.Add(later)
	set := n.set()
	n.state.views = func() *peerview.Set { return set }
	n.r.rankForPrincipals(set)
	n.r.rankSites(set, n.now)
}

func (n *surveyedNode) expect(t *testing.T, from string, want ...byte) {
	t.Helper()
	if got, _ := ask(t, n.DNSLB, from); !slices.Equal(got, want) {
		t.Errorf("Expected servers %v for %s, got %v", want, from, got)
	}
}

var everywhere = map[string]string{"0.0.0.0/0": "default=par1", "::/0": "default=par1"}

func TestSiteGetsServerBesideNode(t *testing.T) {
	n := newSurveyedNode(options{answers: 3}, []settings{{beside: "par1"}, {beside: "lon1"}, {}}, 10, 20, 30)
	n.m = nodemaptest.WithSites(t, map[string]string{"0.0.0.0/0": "default=par1", "198.51.100.0/24": "survey=lon1 survey=par1", "203.0.113.0/24": "operator=par1", "::/0": ""}, map[string]string{
		"198.51.100.0/24": "lon1=3 par1=12",
		"198.51.101.0/24": "par1=40 lon1=80",
		"203.0.113.0/24":  "lon1=1 par1=99", // but an operator says who is near to it
	})
	n.rank(0)
	n.expect(t, "198.51.100.1", 2, 1, 3) // server 3 is at hypot(12, 30) ms
	n.expect(t, "198.51.101.1", 1, 3, 2) // and at 50 ms
	n.expect(t, "203.0.113.1", 1, 2, 3)
	n.expect(t, "192.0.2.1", 1, 2, 3) // not measured

	// Health comes first, at once.
	n.measure(10, -1, 30)
	n.expect(t, "198.51.100.1", 1, 3)
	n.measure(-1, -1, 30)
	n.expect(t, "198.51.100.1", 3)
	n.measure(-1, -1, -1)
	n.expect(t, "198.51.100.1", 1, 2, 3) // as for all resolvers: the last ranking
	n.measure(10, 20, 30)
	n.expect(t, "198.51.100.1", 2, 1, 3)

	// Without a map nothing is known of sites.
	n.m = nil
	n.rank(0)
	n.expect(t, "198.51.100.1", 1, 2, 3)
}

func TestSiteFollowsTiersBiasAndDrain(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "par1", tier: 2}, {beside: "lon1", bias: 10 * time.Millisecond}, {beside: "nyc1"}, {beside: "sin1", drain: true}}, 10, 20, 30, 40)
	n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": "par1=1 sin1=2 lon1=5 nyc1=14", "198.51.101.0/24": "sin1=1 lon1=3 nyc1=15"})
	n.rank(0)
	n.expect(t, "198.51.100.1", 3)
	n.expect(t, "198.51.101.1", 2)
	n.measure(10, 20, -1, 40)
	n.expect(t, "198.51.100.1", 2)
	n.measure(10, -1, -1, 40)
	n.expect(t, "198.51.100.1", 1)
	n.measure(-1, -1, -1, 40)
	n.expect(t, "198.51.100.1", 4)
}

// TestSiteSharesTiedServers has two servers within 5 ms share the sites for which they
// are, by weight.
func TestSiteSharesTiedServers(t *testing.T) {
	n := newSurveyedNode(options{answers: 1, within: 5 * time.Millisecond}, []settings{{beside: "par1", weight: 3}, {beside: "lon1"}, {beside: "nyc1"}}, 10, 50, 90)
	sites := make(map[string]string)
	for i := range 200 {
		sites[fmt.Sprintf("20.0.%d.0/24", i)] = []string{"lon1=10 par1=14 nyc1=30", "lon1=10 par1=16 nyc1=30"}[i%2]
	}
	n.m = nodemaptest.WithSites(t, everywhere, sites)
	n.rank(0)
	counts := [2][4]int{}
	for i := range 200 {
		got, _ := ask(t, n.DNSLB, fmt.Sprintf("20.0.%d.1", i))
		counts[i%2][got[0]]++
	}
	if c := counts[0]; c[1] < 60 || c[2] < 10 || c[1]+c[2] != 100 {
		t.Errorf("Expected 75 of 100 sites to get server 1, 25 server 2, got %v", c)
	}
	if c := counts[1]; c[2] != 100 {
		t.Errorf("Expected sites for which the servers are not tied to get server 2, got %v", c)
	}
	n.measure(10, -1, 90)
	n.expect(t, "20.0.0.1", 1)
}

// TestSiteChangesOrderForAClearGain checks the margins, and that these do not keep what
// a search had found out when it was not at its end.
func TestSiteChangesOrderForAClearGain(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "par1"}, {beside: "lon1"}, {beside: "nyc1"}}, 10, 20, 30)
	site := func(measured string) {
		n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": measured, "198.51.102.0/24": "nyc1=1"})
		n.rank(time.Second)
	}
	for _, step := range []struct {
		measured string
		want     byte
	}{
		{"par1=10 lon1=11", 1},
		{"lon1=9 par1=10", 1},
		{"lon1=8.1 par1=10", 1},
		{"lon1=7.9 par1=10", 2},
		{"par1=7 lon1=8", 2},
		{"lon1=105 par1=100", 2},
		{"par1=100 lon1=112", 1},
		{"nyc1=99 par1=100 lon1=112", 3}, // another node
		{"par1=99 nyc1=100 lon1=112", 3},
		{"par1=99 lon1=112", 1},
	} {
		site(step.measured)
		if n.expect(t, "198.51.100.1", step.want); t.Failed() {
			t.Fatalf("After %q", step.measured)
		}
		n.expect(t, "198.51.102.1", 3)
	}
}

// TestEstimatesOfServersAreSlow checks that a site changes its server by what nodes
// measure of servers only for a clear gain, and not more often than once a minute.
func TestEstimatesOfServersAreSlow(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{}, {}, {beside: "nyc1"}}, 20, 30, 90)
	n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": "par1=3"})
	n.rank(0)
	n.expect(t, "198.51.100.1", 1)
	for range 10 { // over the first minutes
		n.rank(time.Minute)
	}
	n.measure(29, 27.5, 90)
	n.rank(time.Minute)
	n.expect(t, "198.51.100.1", 1) // it is 0.8 ms better
	n.measure(60, 27.5, 90)
	n.rank(59 * time.Second)
	n.expect(t, "198.51.100.1", 1) // too early
	n.rank(2 * time.Second)
	n.expect(t, "198.51.100.1", 2)
	n.measure(20, 27.5, 90)
	n.rank(30 * time.Second)
	n.expect(t, "198.51.100.1", 2)
	n.rank(31 * time.Second)
	n.expect(t, "198.51.100.1", 1)
}

// TestServersMeasuredAfterTheMap has the map come first, as after a start.
func TestServersMeasuredAfterTheMap(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "lon1"}, {}}, -1, -1)
	n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": "par1=3 lon1=50"})
	n.rank(0)
	n.measure(60, 20)
	n.rank(5 * time.Second)
	n.expect(t, "198.51.100.1", 2)
}

// TestDeputyRanksSitesAsItsPrincipal compares a node with its deputy, which has the
// view of the node and other latencies of its own.
func TestDeputyRanksSitesAsItsPrincipal(t *testing.T) {
	servers := []settings{{}, {beside: "lon1"}, {}, {beside: "nyc1"}}
	words := map[string]string{"0.0.0.0/0": "default=lon1", "198.51.100.0/22": "survey=par1 default=lon1"}
	sites := map[string]string{"198.51.100.0/24": "par1=3 lon1=9", "198.51.101.0/24": "par1=8 nyc1=60", "198.51.102.0/24": "par1=30 lon1=31 nyc1=33", "198.51.103.0/24": "nyc1=1"}
	par := newSurveyedNode(options{answers: 4}, servers, 15, 20, 25, 70)
	deputy := newSurveyedNode(options{answers: 4}, servers, 80, 1, 70, 60)
	for _, n := range []*surveyedNode{par, deputy} {
		n.m = nodemaptest.WithSites(t, words, sites)
	}
	deputy.Node, deputy.r.conf.Node = "lon1", "lon1"
	deputy.follow("par1", 15, 20, 25, 70)
	par.rank(0)
	// Slot 0 is lon1 here, and slot 1 par1.
	set := peerview.NewSet(deputy.views, peerview.NewSlots(deputy.m, func(node string) int {
		return map[string]int{"lon1": peerview.Own, "par1": 1, "nyc1": peerview.Outside}[node]
	}))
	deputy.state.views = func() *peerview.Set { return set }
	deputy.r.rankForPrincipals(set)
	deputy.r.rankSites(set, deputy.now)
	for i := range 4 {
		from := fmt.Sprintf("198.51.%d.7", 100+i)
		want, _ := ask(t, par.DNSLB, from)
		got, _ := ask(t, deputy.DNSLB, from)
		if !slices.Equal(got, want) {
			t.Errorf("Expected %v for %s as at its principal, got %v", want, from, got)
		}
	}
}

// TestSitesOutliveSnapshots checks that other servers and settings rank sites anew, and
// that orders go on where nothing has changed.
func TestSitesOutliveSnapshots(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "par1"}, {beside: "lon1"}}, 10, 20)
	site := func(measured string) {
		n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": measured})
		n.rank(0)
	}
	site("par1=10 lon1=11")
	site("lon1=9 par1=10")
	n.expect(t, "198.51.100.1", 1)
	n.state.setSnapshot(n.r.snapshot, n.DNSLB)
	// change reports whether the rankings before that count as those of other servers.
	change := func(edit func(i inventory)) (foreign bool) {
		t.Helper()
		edit(n.inventory)
		next := n.sources.snapshot()
		n.state.setSnapshot(next, n.DNSLB)
		former := next.pools[0].formerSites
		foreign = former != nil && former.foreign
		next.observed.status = slices.Repeat([]latencyprobe.Status{{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: 1, RTT: 10, Value: 10}}}, len(next.targets))
		n.r.snapshot, n.r.observed = next, next.observed
		n.r.rankPools(next.pools)
		n.rank(0)
		n.snapshot.Store(next)
		return foreign
	}
	if change(func(inventory) {}) {
		t.Error("Expected a pool with the same servers and settings to go on with its rankings")
	}
	n.expect(t, "198.51.100.1", 1) // though it has not the lowest latency
	if !change(func(i inventory) {
		i.servers["c"] = serverConfig{[]netip.Addr{netip.MustParseAddr("192.0.2.9")}, settings{weight: 1, tier: 1}}
		i.services[0].servers = labelsOf("c", "a", "b")
	}) {
		t.Error("Expected a pool with another server to rank all sites anew")
	}
	n.expect(t, "198.51.100.1", 1)
	change(func(i inventory) {
		b := i.servers["b"]
		b.tier, b.beside = 1, "lon1"
		i.servers["b"] = b
		a := i.servers["a"]
		a.bias = 5 * time.Millisecond
		i.servers["a"] = a
	})
	n.expect(t, "198.51.100.1", 2)
	change(func(i inventory) {
		for _, name := range []string{"a", "b"} {
			s := i.servers[name]
			s.beside = ""
			i.servers[name] = s
		}
	})
	if n.r.snapshot.pools[0].sites.Load() != nil {
		t.Error("Expected no rankings for sites without servers beside nodes")
	}
}

// TestOldMapCountsUntilTheNewOneIsRanked asks between two rankings.
func TestOldMapCountsUntilTheNewOneIsRanked(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "par1"}, {beside: "lon1"}}, 10, 20)
	n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": "lon1=1", "198.51.101.0/24": "par1=1", "198.51.102.0/24": "lon1=1"})
	n.rank(0)
	n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.101.0/24": "lon1=1", "198.51.102.0/24": "lon1=1"})
	set := n.set()
	n.state.views = func() *peerview.Set { return set }
	n.expect(t, "198.51.100.1", 2)
	n.expect(t, "198.51.101.1", 1)
	n.expect(t, "198.51.102.1", 2)
	n.rank(0)
	n.expect(t, "198.51.100.1", 1)
	n.expect(t, "198.51.101.1", 2)
	n.expect(t, "198.51.102.1", 2)
}

// TestSiteRankingMatchesNaiveOne compares the answers for random sites, servers and
// health with a search through all servers for each site.
func TestSiteRankingMatchesNaiveOne(t *testing.T) {
	nodes := []string{"par1", "lon1", "nyc1", "sin1", "x"}
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 9)) // #nosec G404 -- a repeatable test
		servers, own, lon := make([]settings, 1+rnd.IntN(12)), []float64(nil), []float64(nil)
		for i := range servers {
			servers[i] = settings{tier: 1 + rnd.IntN(2), drain: rnd.IntN(5) == 0, bias: time.Duration(rnd.IntN(3)) * 5 * time.Millisecond}
			if rnd.IntN(3) > 0 {
				servers[i].beside = nodes[rnd.IntN(len(nodes))]
			}
			own, lon = append(own, 1+float64(rnd.IntN(900))/10), append(lon, 1+float64(rnd.IntN(900))/10)
		}
		servers[0].beside = "par1"
		n := newSurveyedNode(options{answers: 1}, servers, own...)
		n.clientSubnets, n.r.conf.clientSubnets = true, true
		n.follow("lon1", lon...)
		sites := make(map[string]string)
		for i := range 40 {
			var words []string
			for _, at := range rnd.Perm(len(nodes))[:1+rnd.IntN(len(nodes))] {
				words = append(words, fmt.Sprintf("%s=%.1f", nodes[at], 1+float64(rnd.IntN(900))/10))
			}
			sites[fmt.Sprintf("20.0.%d.0/24", i)] = strings.Join(words, " ")
		}
		n.m = nodemaptest.WithSites(t, map[string]string{"0.0.0.0/0": "default=par1 default=lon1", "::/0": ""}, sites)
		n.rank(0)
		for range 3 {
			up := make([]float64, len(servers))
			for i := range up {
				if up[i] = own[i]; rnd.IntN(4) == 0 {
					up[i] = -1
				}
			}
			n.measure(up...)
			n.rank(0)
			for prefix, words := range sites {
				want, value := -1, math.Inf(1)
				for i, s := range servers {
					if up[i] < 0 {
						continue
					}
					rtt := naiveEstimate(words, s.beside, map[string]float64{"par1": own[i], "lon1": lon[i]}) + milliseconds(s.bias)
					if math.IsNaN(rtt) {
						rtt = 1e9 + float64(i)
					}
					key := func(i int) int { return 2*map[bool]int{true: 2}[servers[i].drain] + servers[i].tier }
					if want < 0 || key(i) < key(want) || key(i) == key(want) && rtt < value-1e-9 {
						want, value = i, rtt
					}
				}
				addr := netip.MustParsePrefix(prefix).Addr().Next()
				got, _ := ask(t, n.DNSLB, addr.String())
				if want >= 0 && value < 1e9 && (len(got) != 1 || int(got[0]) != want+1) {
					t.Fatalf("Seed %d: expected server %d at %.3f ms for %s with %s, got %v; up: %v; servers: %+v", seed, want+1, value, prefix, words, got, up, servers)
				}
			}
		}
	}
}

// naiveEstimate returns the latency of a site to a server, of which nodes measured
// latencies.
func naiveEstimate(site, beside string, latencies map[string]float64) float64 {
	sum, weights := 0.0, 0.0
	for word := range strings.FieldsSeq(site) {
		node, text, _ := strings.Cut(word, "=")
		var rtt float64
		if _, err := fmt.Sscan(text, &rtt); err != nil {
			panic(err)
		}
		if node == beside {
			return rtt
		}
		if d, ok := latencies[node]; ok {
			w := math.Pow(rtt+5, -3)
			sum += w * math.Hypot(rtt, d)
			weights += w
		}
	}
	if weights == 0 {
		return survey.Unknown
	}
	return sum / weights
}

// surveyedFront returns a node in front of a zone that has measured sites: fra stands
// beside par1, iad beside lon1.
func surveyedFront(t testing.TB) *DNSLB {
	t.Helper()
	d := frontOfZone(t, "par1")
	for label, node := range map[string]string{"fra": "par1", "iad": "lon1"} {
		s := d.inventory.servers[label]
		s.beside = node
		d.inventory.servers[label] = s
	}
	d.snapshot.Store(d.sources.snapshot())
	tailored(d, nodemaptest.WithSites(t, map[string]string{"0.0.0.0/0": "default=par1", "::/0": "default=par1"}, map[string]string{
		"10.0.0.0/9": "par1=3 lon1=5", "10.128.0.0/9": "lon1=4 par1=30", "2001:db8::/33": "lon1=1 par1=9",
	}), "lon1")
	return d
}

// TestHintsAndAliasesFollowSites checks that what leads to a service has the addresses
// that the service has for the site of the client, and their scope.
func TestHintsAndAliasesFollowSites(t *testing.T) {
	d := surveyedFront(t)
	for _, tc := range []struct {
		from, subnet, want string
		scope              uint8
	}{
		{"10.1.1.1", "", "192.0.2.1", 0},
		{"10.200.1.1", "", "192.0.2.2", 0},
		{"10.1.1.1", "2001:db8:1::/56", "192.0.2.2", 33},
		{"10.200.1.1", "2001:db8:8001::/56", "192.0.2.1", 33}, // near to par1, and not measured
	} {
		for _, question := range []struct {
			name  string
			qtype uint16
		}{{"www.", dns.TypeA}, {"alias2.", dns.TypeA}, {"www.", dns.TypeHTTPS}, {"old.", dns.TypeHTTPS}} {
			m := askFor(t, d, question.name+testZone, question.qtype, tc.from, tc.subnet)
			got := ""
			for _, rr := range m.Answer {
				if a, ok := rr.(*dns.A); ok {
					got = a.A.String()
				}
				if b := binding(rr); b != nil {
					for _, v := range b.Value {
						if hint, ok := v.(*dns.SVCBIPv4Hint); ok {
							got = hint.String()
						}
					}
				}
			}
			scope := uint8(0)
			if s := dnsmsg.Subnet(m); s != nil {
				scope = s.SourceScope
			}
			if got != tc.want || scope != tc.scope {
				t.Errorf("%s %s for %s and %q: Expected %s with scope %d, got %s with %d", question.name, dns.Type(question.qtype), tc.from, tc.subnet, tc.want, tc.scope, got, scope)
			}
		}
	}
}

func TestExplainSite(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "par1", bias: time.Millisecond}, {beside: "lon1"}, {}}, 10, 20, 30)
	n.m = nodemaptest.WithSites(t, map[string]string{"0.0.0.0/0": "default=par1", "198.51.100.0/24": "survey=lon1 survey=par1"}, map[string]string{"198.51.100.0/24": "lon1=3 par1=12"})
	n.rank(0)
	e, err := n.Explain("www."+testZone, dns.TypeA, addr("198.51.100.7"))
	if err != nil {
		t.Fatal(err)
	}
	e.At = nodemaptest.MeasuredAt.Add(3 * time.Minute)
	got := strings.Join(e.lines(), "\n")
	for _, want := range []string{
		"www.svc.gslb.example.org. A for 198.51.100.7: 192.0.2.2, TTL 60",
		"ranked for the site 198.51.100.0/24 by the survey, rule survey, answers 1",
		"survey of 198.51.100.0/24: lon1 3.0 ms, par1 12.0 ms",
		"map of DNS-B for 198.51.100.0/24: lon1 (survey), par1 (survey)",
		"1. b 192.0.2.2: survey: 3.0 ms from node lon1, measured 3m0s ago, up, tier 1; answered",
		"2. a 192.0.2.1: survey: 13.0 ms with bias 1.0 ms from node par1, measured 3m0s ago, up",
		"3. c 192.0.2.3: survey: 32.3 ms, estimated, up",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("Expected %q in\n%s", want, got)
		}
	}
	n.m = nodemaptest.WithSites(t, map[string]string{"0.0.0.0/0": "default=par1", "198.51.100.0/24": "survey=lon1 survey=par1"}, map[string]string{"198.51.100.0/24": "lon1=3 par1=12 router"})
	n.rank(0)
	e, err = n.Explain("www."+testZone, dns.TypeA, addr("198.51.100.7"))
	if want := "survey of a router on the way to 198.51.100.0/24, which is silent: lon1 3.0 ms, par1 12.0 ms"; err != nil || !slices.Contains(e.lines(), want) || !e.Site.Routed {
		t.Errorf("Expected %q, got %+v: %v", want, e, err)
	}
	packed, err := json.Marshal(e.Site)
	if want := `{"prefix":"198.51.100.0/24","routed":true,"measured":[{"node":"lon1","rtt_ms":3,`; err != nil || !strings.HasPrefix(string(packed), want) {
		t.Errorf("Expected %s, got %s: %v", want, packed, err)
	}
	e, err = n.Explain("www."+testZone, dns.TypeA, addr("192.0.2.9"))
	if err != nil || e.Site != nil || e.Rule == siteRule || e.Servers[0].Survey != "" {
		t.Errorf("Expected no survey of a site that is not in the map, got %+v: %v", e, err)
	}
}

// TestRegistrationNamesNodesBesideServers checks what DNS-B is told for the search.
func TestRegistrationNamesNodesBesideServers(t *testing.T) {
	c := config{Zones: []string{testZone}, inventory: inventory{servers: make(map[string]serverConfig)}, Node: "par1"}
	service := func(name string, nodes ...string) {
		svc := serviceConfig{name: name + "." + testZone, options: options{answers: 1}}
		for i, node := range nodes {
			label := fmt.Sprintf("%s%d", name, i)
			c.inventory.servers[label] = serverConfig{[]netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(len(c.inventory.services)), byte(i)}), netip.AddrFrom16([16]byte{0: 0x20, 14: byte(len(c.inventory.services)), 15: byte(i)})}, settings{weight: 1, tier: 1, beside: node}}
			svc.servers = append(svc.servers, labelsOf(label)...)
		}
		c.inventory.services = append(c.inventory.services, svc)
	}
	sets := func() [][]string { return newDNSLB(c, nil).sources.snapshot().nodesBesideServers() }
	service("none", "", "")
	if got := sets(); got != nil {
		t.Errorf("Expected no node beside a server, got %q", got)
	}
	service("www", "par1", "lon1", "", "lon1")
	service("api", "lon1", "par1")
	service("ftp", "fra1")
	if got, want := fmt.Sprint(sets()), "[[lon1 par1] [fra1]]"; got != want {
		t.Errorf("Expected each set once, %s, got %s", want, got)
	}
	for i := range 30 {
		service(fmt.Sprintf("many%d", i), fmt.Sprintf("node%d", i))
	}
	if got := sets(); len(got) != 16 {
		t.Errorf("Expected 16 sets, got %d", len(got))
	}
}

func TestServersBesideUnknownNodes(t *testing.T) {
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "par1"}, {beside: "lon2"}, {beside: "far1"}, {}}, 10, 20, 30, 40)
	m := nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": "far1=3"})
	if got := n.r.snapshot.besideUnknown(m); !slices.Equal(got, []string{"b beside lon2"}) {
		t.Errorf("Expected the server beside lon2, got %q", got)
	}
}

func TestSiteRankingsAreBounded(t *testing.T) {
	k := siteRanker{snapshot: new(snapshot), table: sitesTable(t, maxSiteRankings/40, 3)}
	for range 50 {
		k.snapshot.pools = append(k.snapshot.pools, &pool{members: []*member{{settings: settings{beside: "n00"}}}}, &pool{members: []*member{{}}})
	}
	if left := k.choosePools(); len(k.ranked) != 40 || left != 10 {
		t.Errorf("Expected 40 pools to be ranked and 10 not, got %d and %d", len(k.ranked), left)
	}

	n := newSurveyedNode(options{answers: 2}, []settings{{beside: "par1"}, {beside: "lon1"}, {beside: "nyc1"}}, 10, 20, 30)
	n.m = nodemaptest.WithSites(t, everywhere, map[string]string{"198.51.100.0/24": "lon1=3 nyc1=9 par1=12", "198.51.101.0/24": "lon1=3 par1=9 nyc1=12"})
	n.rank(0)
	p := n.r.snapshot.pools[0]
	ranking := n.r.beginPoolForSites(p, newSiteMoves(n.m), true, 0)
	if !ranking.step(n.r, 100) {
		t.Error("Expected two sites to be ranked at once")
	}
	next := ranking.next
	if len(next.orders) != 1 || !slices.Equal(next.orders[0].members, []uint16{1}) {
		t.Errorf("Expected one order, of the first server alone, got %+v", next.orders)
	}
	if got := next.answers[0].addrs; len(got) != 2 || got[0] != p.members[1].addr {
		t.Errorf("Expected that server before those of all sites, got %v", got)
	}
}

// done returns how many sites were ranked and orders answered by the job that goes on.
func (n *surveyedNode) done() int {
	if j := n.r.sites.job; j != nil && j.current != nil {
		return j.current.ranked + j.current.answered
	}
	return 0
}

// TestSitesAreRankedInSlices looks at a node between the slices of a ranking.
func TestSitesAreRankedInSlices(t *testing.T) {
	const sites, slice = 1000, 70
	n := newSurveyedNode(options{answers: 1}, []settings{{beside: "n00"}, {beside: "n01"}, {beside: "n02"}}, 10, 20, 30)
	n.Node, n.r.conf.Node = "n00", "n00"
	answers := func() (got []byte) {
		for i := range sites {
			servers, _ := ask(t, n.DNSLB, netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 9}).String())
			got = append(got, servers...)
		}
		return got
	}
	has := func(got []byte, server byte) bool { return slices.Contains(got, server) }
	n.m = sitesTable(t, sites, 5)
	n.rank(0)
	first := answers()
	if !has(first, 1) || !has(first, 2) || !has(first, 3) {
		t.Fatalf("Expected each server to be the best of some sites, got %v", first)
	}

	// A map with other latencies everywhere: the previous ranking counts until all of
	// it is ranked, and what happens meanwhile counts at once.
	n.m = shuffledSitesTable(t, sites, 5)
	set := n.set()
	n.state.views = func() *peerview.Set { return set }
	n.r.planSites(set, n.now)
	slicesNeeded := 0
	for last := 0; n.r.sites.job != nil; slicesNeeded++ {
		n.r.continueSites(slice)
		if done := n.done(); n.r.sites.job != nil && (done <= last || done > last+slice) {
			t.Fatalf("Expected at most %d more, got %d after %d", slice, done, last)
		} else {
			last = done
		}
		switch slicesNeeded {
		case 3:
			if got := answers(); !slices.Equal(got, first) {
				t.Error("Expected the previous ranking to count")
			}
			n.measure(10, -1, 30)
			if got := answers(); has(got, 2) || !has(got, 1) || !has(got, 3) {
				t.Errorf("Expected the dead server to be left at once, got %v", got)
			}
		case 14: // when orders are answered
			n.measure(-1, 20, 30)
		}
		n.r.planSites(set, n.now) // does not begin anew
	}
	if slicesNeeded < sites/slice {
		t.Errorf("Expected %d slices at least, got %d", sites/slice, slicesNeeded)
	}
	if got := answers(); has(got, 1) || !has(got, 2) || !has(got, 3) {
		t.Errorf("Expected a ranking without the server that died meanwhile, got %v", got)
	}
	n.measure(10, 20, 30)
	sliced := answers()
	if slices.Equal(sliced, first) {
		t.Error("Expected another order of some sites")
	}

	// Another map in the middle: the end is as if there had been no other one.
	n.r.sites, n.r.snapshot.pools[0].formerSites = siteRanker{}, nil
	n.r.snapshot.pools[0].sites.Store(nil)
	n.rank(0)
	whole := answers()
	n.r.sites = siteRanker{}
	n.r.snapshot.pools[0].sites.Store(nil)
	last := n.m
	n.m = sitesTable(t, sites, 5)
	n.r.planSites(n.set(), n.now)
	for range 5 {
		n.r.continueSites(slice)
	}
	n.m = last
	n.rank(0)
	if got := answers(); !slices.Equal(got, whole) {
		t.Error("Expected the ranking of the last map")
	}
}

// sitesTable returns a map of so many sites, each measured by eight of the nodes n00,
// n01 and so on.
func sitesTable(tb testing.TB, sites, nodes int) *nodemap.Table {
	tb.Helper()
	return changedSitesTable(tb, sites, nodes, -1)
}

// changedSitesTable is sitesTable with other latencies of one site.
func changedSitesTable(tb testing.TB, sites, nodes, changed int) *nodemap.Table {
	tb.Helper()
	return randomSitesTable(tb, sites, nodes, changed, 2)
}

// shuffledSitesTable is sitesTable with other latencies of all sites.
func shuffledSitesTable(tb testing.TB, sites, nodes int) *nodemap.Table {
	tb.Helper()
	return randomSitesTable(tb, sites, nodes, -1, 3)
}

func randomSitesTable(tb testing.TB, sites, nodes, changed int, seed uint64) *nodemap.Table {
	tb.Helper()
	rnd := rand.New(rand.NewPCG(1, seed)) // #nosec G404 -- a benchmark
	names := make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%02d", i)
	}
	all := func(yield func(nodemap.Site) bool) {
		for i := range sites {
			s := nodemap.Site{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)}
			for _, at := range rnd.Perm(nodes)[:min(8, nodes)] {
				s.Measured = append(s.Measured, nodemap.Measurement{Node: names[at], RTT: time.Millisecond + time.Duration(rnd.IntN(int(200*time.Millisecond))), At: time.Unix(1769772003, 0)})
			}
			slices.SortFunc(s.Measured, func(a, b nodemap.Measurement) int { return int(a.RTT - b.RTT) })
			if i == changed {
				s.Measured[0].RTT = time.Millisecond / 2
			}
			if !yield(s) {
				return
			}
		}
	}
	lists := nodemap.NewLists(nodemaptest.InOrder(map[netip.Prefix]nodemap.List{netip.MustParsePrefix("0.0.0.0/0"): nodemaptest.List("default=n00")}))
	m, err := nodemaptest.Read(tb, testZone, lists.WithSites(all), names...)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// manySites returns a node of 40 that ranks 10 servers beside nodes for 100,000 sites.
func manySites(tb testing.TB) *surveyedNode {
	tb.Helper()
	servers, ms := make([]settings, 10), make([]float64, 10)
	for i := range servers {
		servers[i], ms[i] = settings{beside: fmt.Sprintf("n%02d", 4*i)}, float64(10+i)
	}
	n := newSurveyedNode(options{answers: 1}, servers, ms...)
	n.Node, n.r.conf.Node = "n00", "n00"
	n.m = sitesTable(tb, 100_000, 40)
	return n
}

// BenchmarkSiteQuery shows what a look-up of the answer for a site takes, beside one
// without sites.
func BenchmarkSiteQuery(b *testing.B) {
	n := manySites(b)
	addrs := make([]netip.Addr, 1<<12)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{20, byte(i * 7), byte(i * 11), 9})
	}
	for _, sites := range []bool{false, true} {
		b.Run(fmt.Sprintf("sites=%v", sites), func(b *testing.B) {
			set := n.set()
			if !sites {
				m := nodemaptest.Table(b, everywhere)
				set = peerview.NewSet(n.views, peerview.NewSlots(m, func(string) int { return peerview.Own }))
			}
			n.state.views = func() *peerview.Set { return set }
			n.r.rankSites(set, n.now)
			p, bySite := n.r.snapshot.pools[0], 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c := client{from: addrs[i&0xfff]}
				if n.selectFor(&c, p, dns.TypeA).bySite {
					bySite++
				}
			}
			// Of some sites no node beside a server has measured anything.
			if share := float64(bySite) / float64(b.N); (share > 0.8) != sites {
				b.Errorf("Expected answers by the site: %v, got a share of %v", sites, share)
			}
		})
	}
}

// BenchmarkSiteChange shows what it takes to rank all sites, to take up a map in which
// one site was measured anew, and a server that goes down.
func BenchmarkSiteChange(b *testing.B) {
	n := manySites(b)
	other := changedSitesTable(b, 100_000, 40, 777)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			n.r.sites = siteRanker{}
			n.r.snapshot.pools[0].sites.Store(nil)
			n.r.rankSites(n.set(), n.now)
		}
		p := n.r.snapshot.pools[0]
		b.ReportMetric(float64(len(p.sites.Load().orders)), "orders")
		var before, after runtime.MemStats
		p.sites.Store(nil)
		n.r.sites = siteRanker{}
		runtime.GC()
		runtime.ReadMemStats(&before)
		n.r.rankSites(n.set(), n.now)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
	})
	b.Run("a slice", func(b *testing.B) { // in which no change of health is noticed
		for b.Loop() {
			if n.r.sites.job == nil {
				b.StopTimer()
				n.r.sites = siteRanker{}
				n.r.snapshot.pools[0].sites.Store(nil)
				n.r.planSites(n.set(), n.now)
				b.StartTimer()
			}
			n.r.continueSites(siteSlice)
		}
		for n.r.sites.job != nil {
			n.r.continueSites(siteSlice)
		}
	})
	b.Run("one site", func(b *testing.B) {
		maps := []*nodemap.Table{other, n.m}
		for i := 0; b.Loop(); i++ {
			n.m = maps[i%2]
			n.r.rankSites(n.set(), n.now)
		}
	})
	b.Run("a server goes down", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			n.r.observed.status[3].State = []latencyprobe.State{latencyprobe.Down, latencyprobe.Up}[i%2]
			n.r.refreshSites(n.r.snapshot.pools[0], peerview.Own)
		}
	})
}
