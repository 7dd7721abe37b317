package dnslb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// knownNodes is what DNS-B tells.
type knownNodes struct {
	mu    sync.Mutex
	nodes map[string]peer
}

func (k *knownNodes) find(_ context.Context, node string) (peer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p, ok := k.nodes[node]; ok {
		return p, nil
	}
	return peer{}, registrar.ErrUnknownNode
}

// noTargets is what a node without services measures.
func noTargets() []latencyprobe.Target { return nil }

func viewKey(t *testing.T, secret string) dnsclient.Key {
	t.Helper()
	key, err := dnsclient.NewKey("views.key.example.org", "", secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testNode is a node that ranks by what a test says it has measured.
type testNode struct {
	*ranker
	rounds  uint64                 // of measurement
	serving *atomic.Pointer[DNSLB] // the instance that answers; nil: no plugin does
}

// startNode starts a node that serves at its address, at the port of the first
// one.
func startNode(t *testing.T, nodes *knownNodes, name, address, port, near string, deputies []string, ms ...float64) *testNode {
	t.Helper()
	d := service4(options{answers: 1}, make([]settings, len(ms)), ms)
	d.Node, d.deputies, d.viewKey = name, deputies, viewKey(t, dnsbtest.Secret)
	d.near = []registration.Prefix{{Prefix: netip.MustParsePrefix(near)}}
	d.ready.Store(true)
	l, err := net.Listen("tcp", net.JoinHostPort(address, port))
	if err != nil {
		t.Fatal(err)
	}
	_, d.port, _ = net.SplitHostPort(l.Addr().String())
	serving := new(atomic.Pointer[DNSLB])
	serving.Store(d)
	srv := &dns.Server{Listener: l, TsigSecret: map[string]string{d.viewKey.Name: dnsbtest.Secret}, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		rcode, err := dns.RcodeRefused, error(nil)
		if d := serving.Load(); d != nil {
			rcode, err = d.ServeDNS(context.Background(), w, r)
		}
		if rcode != dns.RcodeSuccess || err != nil {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	d.state.sharing = newSharing(nodes.find, func() []latencyprobe.Target { return d.table.Load().targets })
	d.state.sharing.set(d.config)
	t.Cleanup(func() {
		d.state.sharing.close()
		_ = srv.Shutdown()
		<-done
	})
	nodes.mu.Lock()
	nodes.nodes[name] = peer{addresses: []netip.Addr{addr(address)}, prefixes: d.near}
	nodes.mu.Unlock()
	n := &testNode{ranker: &ranker{DNSLB: d, table: d.table.Load()}, serving: serving}
	n.measure(ms...)
	return n
}

// reload makes another instance of a node answer, with other deputies.
func (n *testNode) reload(deputies ...string) {
	conf := n.config
	conf.deputies = deputies
	next := newDNSLB(conf, nil)
	next.state = n.state
	next.table.Store(n.table)
	next.state.sharing.set(conf)
	n.serving.Store(next)
}

// measure makes these the latencies of another round, in milliseconds; negative:
// down.
func (n *testNode) measure(ms ...float64) {
	n.rounds++
	n.observed.status = make([]latencyprobe.Status, len(ms))
	for i, v := range ms {
		n.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: n.rounds, RTT: v, Value: v}, LastAt: time.Now()}
		if v < 0 {
			n.observed.status[i].State, n.observed.status[i].Estimate = latencyprobe.Down, ranking.Estimate{}
		}
	}
	n.rankPools(n.table.pools)
}

// share publishes what is measured.
func (n *testNode) share(at time.Time) {
	known := func(target latencyprobe.Target) latencyprobe.Status {
		for i := range n.table.targets {
			if n.table.targets[i] == target {
				return n.observed.status[i]
			}
		}
		return latencyprobe.Status{}
	}
	if n.state.sharing.publish(at, findings{n.table.targets, n.observed.status, known, n.table.pools, n.serversChanged}) {
		n.serversChanged = false
	}
}

// follow waits until the node uses another view and ranks by it.
func (n *testNode) follow(t *testing.T, change func()) {
	t.Helper()
	changed, forget := n.state.sharing.watch()
	defer forget()
	change()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("No other view in time")
	}
	n.rankForPrincipals()
}

func (n *testNode) expect(t *testing.T, from string, want byte) {
	t.Helper()
	if got, _ := ask(t, n.DNSLB, from); len(got) != 1 || got[0] != want {
		t.Errorf("Expected %s to be given server %d, got %v", from, want, got)
	}
}

// TestDeputy follows a view from a node to its deputy, over real sockets.
func TestDeputy(t *testing.T) {
	nodes := &knownNodes{nodes: make(map[string]peer)}
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1", "gone"}, 10, 20, 30)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.port, "198.51.100.128/25", nil, 30, 20, 10)
	const atPar, atLon, principalState = "198.51.100.1", "198.51.100.129", "203.0.113.1"

	lon.expect(t, atPar, 3)
	lon.follow(t, func() { par.share(time.Now()) })
	lon.expect(t, atPar, 1)
	lon.expect(t, atLon, 3)
	lon.expect(t, principalState, 3)

	// The deputy waits as long as the node does, and follows with the next view,
	// whatever its own ranking is.
	par.measure(40, 20, 30)
	par.expect(t, atPar, 1)
	lon.follow(t, func() { par.share(time.Now().Add(publishPause)) })
	lon.expect(t, atPar, 1)
	par.measure(40, 20, 30)
	par.expect(t, atPar, 2)
	lon.follow(t, func() { par.share(time.Now().Add(2 * publishPause)) })
	lon.expect(t, atPar, 2)

	// The deputy's own view of health comes first.
	lon.measure(30, -1, 10)
	lon.rankForPrincipals()
	lon.expect(t, atPar, 3)
	lon.measure(30, 20, 10)
	lon.rankForPrincipals()
	lon.expect(t, atPar, 2)

	// What the first node sees as down is not chosen, as long as there is another.
	par.measure(40, 20, -1)
	lon.follow(t, func() { par.share(time.Now().Add(3 * publishPause)) })
	lon.measure(-1, -1, 10)
	lon.rankForPrincipals()
	lon.expect(t, atPar, 3)
	lon.measure(30, -1, 10)
	lon.rankForPrincipals()
	lon.expect(t, atPar, 1)
}

// TestNewPrefixes checks that a deputy learns of new resolvers of a node when the
// node has a view, however short ago it has asked DNS-B, and not before DNS-B
// knows them.
func TestNewPrefixes(t *testing.T) {
	t.Parallel()
	nodes := &knownNodes{nodes: make(map[string]peer)}
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.port, "192.0.2.0/24", nil, 20, 10)
	const added = "203.0.113.1"
	begin := time.Now()
	lon.follow(t, func() { par.share(begin) })
	lon.expect(t, "198.51.100.1", 1)
	lon.expect(t, added, 2)

	conf := par.config
	conf.near = append(slices.Clone(conf.near), registration.Prefix{Prefix: netip.MustParsePrefix("203.0.113.0/24")})
	par.state.sharing.set(conf)
	lon.follow(t, func() { par.share(begin.Add(publishPause)) }) // nothing else is new
	lon.expect(t, added, 2)
	nodes.mu.Lock()
	p := nodes.nodes["par1"]
	p.prefixes = conf.near
	nodes.nodes["par1"] = p
	nodes.mu.Unlock()
	lon.follow(t, func() {})
	lon.expect(t, added, 1)
}

// TestSettle checks how often DNS-B is asked whether it knows the prefixes that a
// view tells of: until it does, or not for long.
func TestSettle(t *testing.T) {
	list := func(text ...string) (out []registration.Prefix) {
		for _, s := range text {
			p, err := parsePrefix(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
		return out
	}
	const before = "198.51.100.0/24"
	tests := []struct {
		name  string
		near  string        // of the view
		then  []string      // what DNS-B knows later
		after time.Duration // of the view
		fails bool          // DNS-B, until then
		least int           // of questions
		most  int
	}{
		{"an old node, which does not tell", "", nil, 0, false, 0, 0},
		{"the same", digest(list(before)), nil, 0, false, 0, 0},
		{"more", digest(list(before, "203.0.113.0/24")), []string{"203.0.113.0/24", before}, time.Second, false, 1, 1},
		{"a part less", digest(list(before, "!198.51.100.0/25")), []string{before, "!198.51.100.0/25"}, 20 * time.Second, false, 4, 5},
		{"nothing", digest(nil), []string{}, 20 * time.Second, true, 1, 20}, // as often as it looks
		{"refused", digest(list("0.0.0.0/0")), nil, 0, false, 10, 12},
	}
	for _, tc := range tests {
		synctest.Test(t, func(t *testing.T) {
			begin, asked := time.Now(), 0
			s := newSharing(func(context.Context, string) (peer, error) {
				asked++
				switch {
				case tc.then != nil && time.Since(begin) >= tc.after:
					return peer{prefixes: list(tc.then...)}, nil
				case tc.fails:
					return peer{}, errors.New("no route")
				}
				return peer{prefixes: list(before)}, nil
			}, noTargets)
			defer s.close()
			p := newPull(s, "par1", 1)
			p.peer.prefixes, p.near, p.asked = list(before), digest(list(before)), begin
			time.Sleep(askPause)
			for range 1000 { // NOTIFY or not
				p.settle(t.Context(), &view{near: tc.near})
				time.Sleep(time.Second)
			}
			if asked < tc.least || asked > tc.most {
				t.Errorf("%s: expected DNS-B to be asked %d to %d times, got %d", tc.name, tc.least, tc.most, asked)
			}
			if got := fmt.Sprint(p.peer.prefixes); tc.then != nil && got != fmt.Sprint(tc.then) {
				t.Errorf("%s: expected %v, got %s", tc.name, tc.then, got)
			}
		})
	}
}

// TestDismissal checks who tells a deputy that it is one no longer: not a node that
// has died or was started again. It goes on by the view for a while all the same.
func TestDismissal(t *testing.T) {
	const atPar, byView = "198.51.100.1", 1
	tests := []struct {
		name    string
		happens func(par *testNode, at time.Time)
		why     string // of the dismissal; "": it is none
		result  string // of the look
	}{
		{"no deputy", func(par *testNode, _ time.Time) { par.reload() }, "it has no deputies any more", "refused"},
		{"another deputy", func(par *testNode, at time.Time) {
			par.reload("fra1")
			par.share(at)
		}, "it has other deputies now", "refused"},
		{"another one too", func(par *testNode, at time.Time) {
			par.reload("fra1", "lon1")
			par.share(at)
		}, "", "new"},
		{"started again", func(par *testNode, _ time.Time) { par.state.sharing.published.Store(nil) }, "", "failed"},
		{"refused without a signature", func(par *testNode, _ time.Time) { par.serving.Store(nil) }, "", "failed"},
		{"another node at the address", func(par *testNode, _ time.Time) {
			conf := par.config
			conf.Node, conf.deputies = "fra1", nil
			next := newDNSLB(conf, nil)
			next.state = newBlockState()
			next.table.Store(par.table)
			par.serving.Store(next)
		}, "", "failed"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			nodes := &knownNodes{nodes: make(map[string]peer)}
			par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1"}, 10, 20)
			lon := startNode(t, nodes, "lon1", "127.0.0.2", par.port, "192.0.2.0/24", nil, 20, 10)
			begin := time.Now()
			lon.follow(t, func() { par.share(begin) })
			lon.expect(t, atPar, byView)

			out := logged(t)
			looks := func() float64 { return testutil.ToFloat64(viewPulls.WithLabelValues("lon1", "par1", tc.result)) }
			before := looks()
			tc.happens(par, begin.Add(publishPause))
			lon.state.sharing.notified("par1") // as it would look by itself after a while
			for i := 0; looks() == before; i++ {
				if i == 2000 {
					t.Fatalf("Expected a look that is %s", tc.result)
				}
				time.Sleep(5 * time.Millisecond)
			}
			lon.rankForPrincipals()
			lon.expect(t, atPar, byView)
			lon.state.sharing.close() // so that all is logged
			if tc.why == "" {
				out.expect(t)
				return
			}
			out.expect(t, "lon1: not a deputy of par1 any more, "+tc.why+": answering its resolvers by its measurements for 5m0s yet")
		})
	}
}

// TestDismissed checks how long a view is used when looks end so: as long as
// resolvers have referrals that name the deputy, unless it is one again.
func TestDismissed(t *testing.T) {
	dismissed, failed := dismissal("it has other deputies now"), errors.New("no route")
	tests := []struct {
		name  string
		age   time.Duration // of the view at the first look
		looks []error       // one minute apart
		left  time.Duration // behind the last one
		why   string
	}{
		{"a deputy", 0, []error{nil, nil}, viewTime - time.Minute, "its last view is too old"},
		{"the node has died", 0, []error{nil, failed, failed}, viewTime - 2*time.Minute, "its last view is too old"},
		{"dismissed", 0, []error{dismissed}, referralTime, "it has dismissed this node"},
		{"dismissed some time ago", 0, []error{dismissed, dismissed, dismissed}, referralTime - 2*time.Minute, "it has dismissed this node"},
		{"dismissed, then dead", 0, []error{dismissed, failed}, referralTime - time.Minute, "it has dismissed this node"},
		{"dismissed by a view that is old", viewTime - time.Minute, []error{dismissed}, time.Minute, "its last view is too old"},
		{"a deputy again", 0, []error{dismissed, nil}, viewTime - time.Minute, "its last view is too old"},
		{"dismissed anew", 0, []error{dismissed, nil, dismissed}, referralTime, "it has dismissed this node"},
	}
	for _, tc := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := newSharing(nil, noTargets)
			defer s.close()
			p := newPull(s, "par1", 1)
			if left, _ := p.left(dismissed); left > 0 {
				t.Errorf("%s: expected nothing to use without a view, got %s", tc.name, left)
			}
			p.use(&view{node: "par1", made: time.Now().Add(-tc.age)})
			var left time.Duration
			var why string
			for i, err := range tc.looks {
				if i > 0 {
					time.Sleep(time.Minute)
				}
				left, why = p.left(err)
			}
			if left != tc.left || !strings.Contains(why, tc.why) {
				t.Errorf("%s: expected %s until %s, got %s until %s", tc.name, tc.left, tc.why, left, why)
			}
			p.drop(why)
			if !p.dismissed.IsZero() {
				t.Errorf("%s: expected nothing to be left of it", tc.name)
			}
		})
	}
}

// TestFormerPrefixes checks that resolvers of a prefix which the node has no more
// are answered by its view as long as they have referrals, unless another node
// has them.
func TestFormerPrefixes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := func(text ...string) (out []registration.Prefix) {
			for _, s := range text {
				out = append(out, registration.Prefix{Prefix: netip.MustParsePrefix(s)})
			}
			return out
		}
		s := newSharing(nil, noTargets)
		defer s.close()
		s.set(config{Node: "lon1", near: list("192.0.2.0/24")})
		par, fra := newPull(s, "par1", 1), newPull(s, "fra1", 2)
		s.pulls["par1"], s.pulls["fra1"] = par, fra
		use := func(p *pull, prefixes ...string) {
			p.peer.prefixes = list(prefixes...)
			p.use(&view{node: p.node, made: time.Now()})
		}
		expect := func(what string, want map[string]int) {
			t.Helper()
			for from, place := range want {
				if got := s.using.Load().places.of(addr(from)); got != place {
					t.Errorf("%s: expected %s at place %d, got %d", what, from, place, got)
				}
			}
		}
		use(par, "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
		use(fra, "233.252.0.0/24")
		use(par, "198.51.100.0/25")
		use(fra, "233.252.0.0/24", "203.0.113.0/24")
		expect("just lost", map[string]int{"198.51.100.1": 1, "198.51.100.200": 1, "203.0.113.1": 2, "2001:db8::1": 1, "192.0.2.1": here, "192.0.3.1": outside})

		time.Sleep(referralTime - time.Second)
		par.forget()
		expect("a little before the end", map[string]int{"198.51.100.200": 1})
		time.Sleep(time.Second)
		par.forget()
		expect("at the end", map[string]int{"198.51.100.1": 1, "198.51.100.200": outside, "203.0.113.1": 2, "2001:db8::1": outside})

		use(par, "192.0.3.0/24")
		par.drop("it is over")
		expect("without a view", map[string]int{"192.0.3.1": outside, "198.51.100.1": outside, "203.0.113.1": 2})
	})
}

// TestStrangeView checks that a deputy tells how many of the servers of a view it
// knows, and warns when it knows none, though not of what passes.
func TestStrangeView(t *testing.T) {
	out := logged(t)
	synctest.Test(t, func(t *testing.T) {
		var here []latencyprobe.Target
		s := newSharing(nil, func() []latencyprobe.Target { return here })
		defer s.close()
		s.set(config{Zones: []string{testZone}, Node: "lon1"})
		p := newPull(s, "par1", 1)
		look := func(d time.Duration) {
			for range d / pullEvery {
				p.compare()
				time.Sleep(pullEvery)
			}
		}
		same := latencyprobe.Target{Name: "fra", Addr: addr("192.0.2.1"), Probe: "mail"}
		other := same
		other.Probe = ""
		v := &view{node: "par1", made: time.Now(), targets: map[viewTarget]seenThere{{same.Addr, "mail"}: {}, {addr("192.0.2.2"), "mail"}: {}}}
		p.use(v)
		out.expect(t, "lon1: answering the resolvers of par1 by its measurements: 0 prefixes, 0 of 2 addresses of servers are known here")
		p.compare()
		here = []latencyprobe.Target{same, other} // its services are loaded
		look(time.Hour)
		out.expect(t)

		here = []latencyprobe.Target{other} // a reload
		look(pullEvery)
		out.expect(t)
		look(reminder.Interval)
		out.expect(t, "lon1: none of the 2 addresses of servers of par1 is known here, so its resolvers are answered by own measurements: give both the same services")
		look(reminder.Interval)
		out.expect(t, "lon1: none of the 2")
		here = []latencyprobe.Target{same, other}
		look(time.Hour)
		out.expect(t, "lon1: 1 of the 2 addresses of servers of par1 are known here now")

		p.use(&view{node: "par1", made: time.Now()})
		look(time.Hour) // it has no servers at all
		out.expect(t)
	})
}

// TestViewKeyTaken checks that a view is not used any more when a reload takes
// the key away, and that the log says so; at the end of the process it says
// nothing.
func TestViewKeyTaken(t *testing.T) {
	out := logged(t)
	for _, taken := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSharing(func(context.Context, string) (peer, error) { return peer{}, errors.New("no route") }, noTargets)
			conf := config{Zones: []string{testZone}, Node: "lon1", viewKey: viewKey(t, dnsbtest.Secret)}
			s.set(conf)
			p := newPull(s, "par1", 1)
			s.pulls["par1"] = p
			p.use(&view{node: "par1", made: time.Now()})
			out.expect(t, "lon1: answering the resolvers of par1")
			s.wg.Go(p.run)
			synctest.Wait()
			if taken {
				conf.viewKey = dnsclient.Key{}
				s.set(conf)
				synctest.Wait()
				out.expect(t, "lon1: no longer answering the resolvers of par1 by its measurements: this node has no 'view-key' any more")
			}
			s.close()
			out.expect(t)
		})
	}
}

// TestSilentDeputy checks that a deputy which takes connections and does not
// answer keeps the news from no other.
func TestSilentDeputy(t *testing.T) {
	nodes := &knownNodes{nodes: map[string]peer{"fra1": {addresses: []netip.Addr{addr("127.0.0.3")}}}}
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"fra1", "lon1"}, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.port, "198.51.100.128/25", nil, 20, 10)
	_, asked := dnsbtest.ListenSilently(t, net.JoinHostPort("127.0.0.3", par.port))
	lon.follow(t, func() { par.share(time.Now()) })
	<-asked
	begin := time.Now()
	for i := range 3 {
		par.measure(float64(20+2*i), 10)
		lon.follow(t, func() { par.share(begin.Add(time.Duration(i+1) * publishPause)) })
	}
	if took := time.Since(begin); took > dnsclient.Timeout/2 {
		t.Errorf("Expected the next views at once, got them after %s", took)
	}
}

// TestReloadDeputies checks that each deputy has one goroutine, that ends when a
// reload takes the deputy away.
func TestReloadDeputies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan string, 100)
		s := newSharing(func(_ context.Context, node string) (peer, error) {
			asked <- node
			return peer{}, registrar.ErrNotRegistered
		}, noTargets)
		conf := config{Zones: []string{testZone}, Node: "par1", viewKey: viewKey(t, dnsbtest.Secret)}
		for _, deputies := range []string{"lon1", "lon1", "fra1", ""} {
			conf.deputies = strings.Fields(deputies)
			s.set(conf)
			s.publish(time.Now(), findings{})
			time.Sleep(publishEvery)
			synctest.Wait()
			told := make(map[string]bool)
			for len(asked) > 0 {
				told[<-asked] = true
			}
			if got := slices.Collect(maps.Keys(told)); !slices.Equal(got, conf.deputies) {
				t.Errorf("Expected %v to be told, got %v", conf.deputies, got)
			}
		}
		// The bubble fails if a goroutine is left.
	})
}

// TestNotifyDyingPull checks that no NOTIFY is lost on a pull that is about to
// end, since it finds no node or since a reload ended it.
func TestNotifyDyingPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *sharing
		asked, taken := 0, false
		s = newSharing(func(ctx context.Context, node string) (peer, error) {
			if asked++; asked == 1 {
				taken = s.notified(node)
				return peer{}, registrar.ErrUnknownNode
			}
			<-ctx.Done()
			time.Sleep(time.Second) // the old one lives on, but is not in the way
			return peer{}, ctx.Err()
		}, noTargets)
		defer s.close()
		conf := config{Zones: []string{testZone}, Node: "lon1", viewKey: viewKey(t, dnsbtest.Secret)}
		s.set(conf)
		s.notified("par1")
		synctest.Wait()
		if !taken || asked != 2 {
			t.Errorf("Expected a NOTIFY that comes during a look to cause another, got %d looks", asked)
		}
		conf.viewKey = dnsclient.Key{}
		s.set(conf)
		conf.viewKey = viewKey(t, dnsbtest.Secret)
		s.set(conf)
		s.notified("par1")
		synctest.Wait()
		if asked != 3 {
			t.Errorf("Expected a NOTIFY after a reload to cause a look, got %d looks", asked)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(s.pulls) != 1 {
			t.Errorf("Expected the new pull to stay when the old one ends, got %d", len(s.pulls))
		}
	})
}

// TestNotDeputy checks who gets no view and from whom none is taken.
func TestNotDeputy(t *testing.T) {
	nodes := &knownNodes{nodes: make(map[string]peer)}
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	par.share(time.Now())
	zone, address := viewZone("par1", testZone), net.JoinHostPort("127.0.0.1", par.port)
	ctx := t.Context()

	if v, err := transferView(ctx, "par1", zone, par.viewKey, address); err != nil || len(v.targets) != 2 {
		t.Fatalf("Expected the view, got %+v, %v", v, err)
	}
	for _, qtype := range []uint16{dns.TypeSOA, dns.TypeTXT, dns.TypeAXFR} {
		r, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion(zone, qtype), address)
		if err != nil || r.Rcode != dns.RcodeRefused || len(r.Answer) > 0 {
			t.Errorf("Expected nothing without a signature, got %v, %v", r, err)
		}
	}
	wrong := viewKey(t, "b3RoZXJzZWNyZXRvdGhlcnNlY3JldA==")
	if _, err := transferView(ctx, "par1", zone, wrong, address); err == nil {
		t.Error("Expected no view for another secret")
	}
	if _, err := askSerial(ctx, zone, wrong, address); err == nil || !strings.Contains(err.Error(), "name and secret of 'view-key'") {
		t.Errorf("Expected an error that names the remedy, got %v", err)
	}
	wrong.Name = "other.key."
	if _, err := askSerial(ctx, zone, wrong, address); err == nil || !strings.Contains(err.Error(), "name and secret of 'view-key'") {
		t.Errorf("Expected an error that names the remedy, got %v", err)
	}
	if _, err := askSerial(ctx, viewZone("lon1", testZone), par.viewKey, address); err == nil {
		t.Error("Expected no view of another node")
	}
	for _, node := range []string{"par1", "x y", ""} {
		if _, err := askNode(ctx, new(dns.Msg).SetNotify(viewZone(node, testZone)), par.viewKey, address); err == nil {
			t.Errorf("Expected no news of %q to be taken", node)
		}
	}

	// RFC 8945, section 5.3: a refusal of what was signed is signed.
	key := par.viewKey
	for _, q := range []*dns.Msg{
		new(dns.Msg).SetQuestion(viewZone("lon1", testZone), dns.TypeSOA), new(dns.Msg).SetQuestion(zone, dns.TypeMX),
		new(dns.Msg).SetNotify(zone),
	} {
		q.SetTsig(key.Name, key.Algorithm, dnsclient.Fudge, time.Now().Unix())
		r, _, err := (&dns.Client{Net: "tcp", TsigSecret: map[string]string{key.Name: key.Secret}}).Exchange(q, address)
		if errors.Is(err, dns.ErrAuth) && r.Rcode == dns.RcodeNotAuth {
			err = nil // which that client does not verify
		}
		if err != nil || r.IsTsig() == nil || r.Rcode == dns.RcodeSuccess {
			t.Errorf("Expected a signed refusal of %v, got %v, %v", q.Question, r, err)
		}
	}

	// A node that DNS-B does not know is not asked at all, and leaves nothing behind.
	series := testutil.CollectAndCount(viewPulls)
	for i := range 3 {
		if _, err := askNode(ctx, new(dns.Msg).SetNotify(viewZone(fmt.Sprintf("evil%d", i), testZone)), par.viewKey, address); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		par.state.sharing.mu.Lock()
		n := len(par.state.sharing.pulls)
		par.state.sharing.mu.Unlock()
		if n == 0 {
			if more := testutil.CollectAndCount(viewPulls) - series; more > 1 {
				t.Errorf("Expected one series for all unknown nodes, got %d", more)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("Expected the look for the view of an unknown node to end")
}

// TestWrongViewKey checks that both sides tell when the view key of a deputy is
// another one: the log once, and the summary for as long as it lasts.
func TestWrongViewKey(t *testing.T) {
	nodes := &knownNodes{nodes: make(map[string]peer)}
	lon := startNode(t, nodes, "lon1", "127.0.0.2", "0", "192.0.2.0/24", nil, 20, 10)
	par := startNode(t, nodes, "par1", "127.0.0.1", lon.port, "198.51.100.0/24", []string{"lon1"}, 10, 20)
	summary := func(n *testNode) string { return strings.Join(n.Summary().lines(), "\n") }
	expect := func(n *testNode, want string) {
		t.Helper()
		for range 1000 {
			if strings.Contains(summary(n), want) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("Expected a line with %q, got\n%s", want, summary(n))
	}
	expect(par, "deputy lon1: not told of measurements yet")
	par.share(time.Now())
	expect(par, "deputy lon1: told of measurements at ")

	conf, log := par.config, logged(t)
	conf.viewKey = viewKey(t, "b3RoZXJzZWNyZXRvdGhlcnNlY3JldA==")
	par.state.sharing.set(conf)
	par.share(time.Now().Add(publishEvery))
	expect(par, ", last time failed: 127.0.0.2: the server has a different secret for key 'views.key.example.org.' (BADSIG): all nodes need the same name and secret of 'view-key'")
	expect(lon, "\nrefused the news of measurements of par1 from 127.0.0.1:")
	address := net.JoinHostPort("127.0.0.2", lon.port)
	for _, tc := range []struct {
		key  string
		node string
		why  string
	}{
		{"views.key.example.org.", "fra1", "its key views.key.example.org. has another secret: all nodes need the same name and secret of 'view-key'"},
		{"others.key.example.org.", "fra1", "the key others.key.example.org. is not known here: all nodes need"},
		{"views.key.example.org.", "x y", "the key others.key.example.org. is not known here: all nodes need"}, // still
	} {
		key := conf.viewKey
		key.Name = tc.key
		if _, err := askNode(t.Context(), new(dns.Msg).SetNotify(viewZone(tc.node, testZone)), key, address); err == nil {
			t.Errorf("Expected no news of %s with the key %s to be taken", tc.node, tc.key)
		}
		expect(lon, "\nrefused the news of measurements of fra1 from 127.0.0.1:")
		expect(lon, tc.why)
	}
	log.expect(t, "lon1: refused the news of measurements of par1 from 127.0.0.1:")
}

// TestNoDeputyAnyMore checks that a node without a deputy has no view.
func TestNoDeputyAnyMore(t *testing.T) {
	s := newSharing(nil, noTargets)
	defer s.close()
	s.set(config{Zones: []string{testZone}, Node: "par1", viewKey: viewKey(t, dnsbtest.Secret)})
	s.published.Store(new(view))
	s.set(s.config())
	if s.published.Load() != nil {
		t.Error("Expected no view to be left")
	}
}

// TestLargeView checks a transfer of many messages.
func TestLargeView(t *testing.T) {
	nodes := &knownNodes{nodes: make(map[string]peer)}
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10)
	v := &view{node: "par1", serial: 1, made: time.Now(), targets: make(map[viewTarget]seenThere)}
	const many = 5000
	for i := range many {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		v.targets[viewTarget{a, ""}] = seenThere{fmt.Sprintf("server%d", i), ranking.Estimate{Round: 17, Value: 12.345, Noise: 0.5}, time.Now(), latencyprobe.Up}
	}
	par.state.sharing.published.Store(v)
	got, err := transferView(t.Context(), "par1", viewZone("par1", testZone), par.viewKey, net.JoinHostPort("127.0.0.1", par.port))
	if err != nil || len(got.targets) != many {
		t.Fatalf("Expected %d targets, got %v", many, err)
	}
}

// TestViewEnds checks that a view whose node has died is used for its time and
// no longer.
func TestViewEnds(t *testing.T) {
	out := logged(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSharing(func(context.Context, string) (peer, error) { return peer{}, errors.New("no route") }, noTargets)
		defer s.close()
		s.set(config{Zones: []string{testZone}, Node: "lon1"})
		p := newPull(s, "par1", 1)
		p.peer.prefixes = []registration.Prefix{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
		s.pulls["par1"] = p
		p.use(&view{node: "par1", made: time.Now()})
		s.wg.Go(p.run)

		resolver := addr("198.51.100.1")
		time.Sleep(viewTime - time.Second)
		synctest.Wait()
		if s.using.Load().places.of(resolver) != 1 {
			t.Error("Expected the view to be used")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.using.Load().places != nil || len(s.pulls) != 0 {
			t.Error("Expected the view not to be used any longer")
		}
	})
	lines := out.lines()
	if n := len(lines); n == 0 || !strings.Contains(lines[n-1], "no longer answering the resolvers of par1 by its measurements: its last view is too old, of 2000-01-01T00:00:00Z") {
		t.Errorf("Expected the reason, got %q", lines)
	}
}

// TestViewOfIsolated checks that the view of a node that lives, but has none to
// tell, ends in time too.
func TestViewOfIsolated(t *testing.T) {
	nodes := &knownNodes{nodes: make(map[string]peer)}
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.port, "198.51.100.128/25", nil, 20, 10)
	par.share(time.Now().Add(2*time.Second - viewTime))
	lon.follow(t, func() { lon.state.sharing.notified("par1") })
	lon.expect(t, "198.51.100.1", 1)
	lon.follow(t, func() {}) // two seconds later
	lon.expect(t, "198.51.100.1", 2)
}

// TestPublish checks when there is another view.
func TestPublish(t *testing.T) {
	now := time.Now()
	target := latencyprobe.Target{Name: "fra", Addr: addr("192.0.2.1")}
	status := func(value, noise float64, state latencyprobe.State) latencyprobe.Status {
		return latencyprobe.Status{State: state, Estimate: ranking.Estimate{Round: 1, Value: value, Noise: noise}}
	}
	first := status(10, 0.2, latencyprobe.Up)
	tests := []struct {
		name     string
		after    time.Duration
		status   latencyprobe.Status
		targets  []latencyprobe.Target
		switched bool
		want     bool
	}{
		{"nothing new", 10 * time.Second, first, nil, false, false},
		{"nothing new for long", publishEvery, first, nil, false, true},
		{"a little slower", 10 * time.Second, status(10.9, 0.2, latencyprobe.Up), nil, false, false},
		{"slower", 10 * time.Second, status(11.1, 0.2, latencyprobe.Up), nil, false, true},
		{"slower, but within the noise", 10 * time.Second, status(12, 3, latencyprobe.Up), nil, false, false},
		{"another first server", 10 * time.Second, first, nil, true, true},
		{"down", 10 * time.Second, status(10, 0.2, latencyprobe.Down), nil, false, true},
		{"too soon", publishPause / 2, status(10, 0.2, latencyprobe.Down), nil, true, false},
		{"no longer measured", 10 * time.Second, latencyprobe.Status{State: latencyprobe.Up}, nil, false, true},
		{"another server", 10 * time.Second, first, []latencyprobe.Target{{Name: "iad", Addr: addr("192.0.2.2")}}, false, true},
		{"no server", 10 * time.Second, first, []latencyprobe.Target{}, false, true},
	}
	for _, tc := range tests {
		s := newSharing(nil, noTargets)
		publish := func(at time.Time, st latencyprobe.Status, targets []latencyprobe.Target, switched bool) bool {
			known := []latencyprobe.Status{st}
			return s.publish(at, findings{targets, known, func(latencyprobe.Target) latencyprobe.Status { return st }, nil, switched})
		}
		if tc.targets == nil {
			tc.targets = []latencyprobe.Target{target}
		}
		publish(now, first, []latencyprobe.Target{target}, true)
		before := s.published.Load()
		did := publish(now.Add(tc.after), tc.status, tc.targets, tc.switched)
		after := s.published.Load()
		if (after != before) != tc.want || did != tc.want {
			t.Errorf("%s: expected another view: %v", tc.name, tc.want)
		}
		if after != before && int32(after.serial-before.serial) <= 0 {
			t.Errorf("%s: expected a larger serial than %d, got %d", tc.name, before.serial, after.serial)
		}
		s.close()
	}
}
