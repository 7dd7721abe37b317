package dnslb

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// knownNodes is what DNS-B knows.
type knownNodes struct {
	mu    sync.Mutex
	nodes map[string][]netip.Addr
	near  map[string]string // prefixes to the nodes that registered them, as nodemaptest.Table has them
}

func newKnownNodes() *knownNodes {
	return &knownNodes{nodes: make(map[string][]netip.Addr), near: make(map[string]string)}
}

func (k *knownNodes) lookup(_ context.Context, node string) ([]netip.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n, ok := k.nodes[node]; ok {
		return n, nil
	}
	return nil, registrar.ErrUnknownNode
}

func viewKey(t *testing.T, secret string) dnsclient.Key {
	t.Helper()
	key, err := dnsclient.NewKey("views.key.example.org", "", secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// otherKey is a key of tsig beside the view key.
const otherKey = "others.key.example.org."

// testNode is a node that ranks by what a test says it has measured.
type testNode struct {
	*ranker
	rounds uint64 // of measurement
}

// startNode starts a node that serves at its address, at the port of the first
// one.
func startNode(t *testing.T, nodes *knownNodes, name, address, port, near string, deputies []string, ms ...float64) *testNode {
	t.Helper()
	d := service4(options{answers: 1}, make([]settings, len(ms)), ms)
	d.Node, d.deputies, d.viewKey = name, deputies, viewKey(t, dnsbtest.Secret)
	d.near = []registration.Prefix{{Prefix: netip.MustParsePrefix(near)}}
	d.ready.Store(true)
	l := dnsbtest.Listen(t, address, port)
	_, d.port, _ = net.SplitHostPort(l.Addr().String())
	chain := &tsig.TSIGServer{Zones: []string{"."}, Next: d}
	srv := &dns.Server{
		Listener: l, TsigSecret: map[string]string{d.viewKey.Name: dnsbtest.Secret, otherKey: dnsbtest.Secret},
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			if rcode, err := chain.ServeDNS(context.Background(), w, r); rcode != dns.RcodeSuccess || err != nil {
				_ = w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
			}
		}),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	d.state.sharing = peerview.New(nodes.lookup, func() []latencyprobe.Target { return d.snapshot.Load().targets })
	d.state.views = d.state.sharing.Current
	d.state.sharing.Configure(d.sharing())
	t.Cleanup(func() {
		d.state.sharing.Close()
		_, _ = srv.Shutdown(), l.Close() // the latter if it has not begun
		<-done
	})
	nodes.mu.Lock()
	nodes.nodes[name] = []netip.Addr{addr(address)}
	nodes.near[near] = "registration=" + name
	d.state.sharing.SetMap(nodemaptest.Table(t, nodes.near)) // the nodes that started before need no more
	nodes.mu.Unlock()
	n := &testNode{ranker: testRanker(d, d.snapshot.Load(), observations{})}
	n.measure(ms...)
	return n
}

// measure makes these the latencies of another round, in milliseconds;
// negative: down.
func (n *testNode) measure(ms ...float64) {
	n.rounds++
	n.health++
	n.observed.status = make([]latencyprobe.Status, len(ms))
	for i, v := range ms {
		n.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: n.rounds, RTT: v, Value: v}, MeasuredAt: time.Now()}
		if v < 0 {
			n.observed.status[i].State, n.observed.status[i].Estimate = latencyprobe.Down, ranking.Estimate{}
		}
	}
	n.rankPools(n.snapshot.pools)
}

// share publishes what is measured.
func (n *testNode) share(at time.Time) {
	status := func(target latencyprobe.Target) latencyprobe.Status {
		for i := range n.snapshot.targets {
			if n.snapshot.targets[i] == target {
				return n.observed.status[i]
			}
		}
		return latencyprobe.Status{}
	}
	if n.block.sharing.Publish(at, n.findings(status)) {
		n.serversChanged = false
	}
}

// follow waits until the node follows another view and ranks by it.
func (n *testNode) follow(t *testing.T, change func()) {
	t.Helper()
	changed, unsubscribe := n.block.sharing.Subscribe()
	defer unsubscribe()
	change()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("Expected another view within 20 s")
	}
	n.rankForPrincipals(n.block.views())
}

func (n *testNode) expect(t *testing.T, from string, want byte) {
	t.Helper()
	if got, _ := ask(t, n.instance, from); len(got) != 1 || got[0] != want {
		t.Errorf("Expected server %d for %s, got %v", want, from, got)
	}
}

// TestDeputyFollowsPrincipal follows a view from a node to its deputy, over
// real sockets.
func TestDeputyFollowsPrincipal(t *testing.T) {
	nodes := newKnownNodes()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", []string{"lon1", "gone"}, 10, 20, 30)
	lon := startNode(t, nodes, "lon1", "127.0.0.2", par.conf.port, "198.51.100.128/25", nil, 30, 20, 10)
	const atPar, atLon, outside = "198.51.100.1", "198.51.100.129", "203.0.113.1"

	lon.expect(t, atPar, 3)
	lon.follow(t, func() { par.share(time.Now()) })
	lon.expect(t, atPar, 1)
	lon.expect(t, atLon, 3)
	lon.expect(t, outside, 3)

	// The deputy waits as long as its principal does, and follows with the next
	// view, whatever its own ranking is.
	par.measure(40, 20, 30)
	par.expect(t, atPar, 1)
	lon.follow(t, func() { par.share(time.Now().Add(ranking.Round)) })
	lon.expect(t, atPar, 1)
	par.measure(40, 20, 30)
	par.expect(t, atPar, 2)
	lon.follow(t, func() { par.share(time.Now().Add(2 * ranking.Round)) })
	lon.expect(t, atPar, 2)

	// What the deputy sees of health comes first.
	lon.measure(30, -1, 10)
	lon.rankForPrincipals(lon.block.views())
	lon.expect(t, atPar, 3)
	lon.measure(30, 20, 10)
	lon.rankForPrincipals(lon.block.views())
	lon.expect(t, atPar, 2)

	// What the principal sees as down is not chosen while another server is up.
	par.measure(40, 20, -1)
	lon.follow(t, func() { par.share(time.Now().Add(3 * ranking.Round)) })
	lon.measure(-1, -1, 10)
	lon.rankForPrincipals(lon.block.views())
	lon.expect(t, atPar, 3)
	lon.measure(30, -1, 10)
	lon.rankForPrincipals(lon.block.views())
	lon.expect(t, atPar, 1)
}

func TestFailedViewIsExplained(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	lines := Summary{FailedViews: []peerview.FetchFailure{{Node: "par1", Since: at, Error: "timeout"}}}.Lines()
	if want := "failed to fetch the view of par1 since 2026-01-31T12:00:00Z: timeout"; !slices.Contains(lines, want) {
		t.Errorf("Expected %q, got %q", want, lines)
	}
}

// TestWrongViewKeyIsExplained checks that the sender of a NOTIFY explains what
// is wrong with its key, and that its receiver does where the key is one of
// tsig.
func TestWrongViewKeyIsExplained(t *testing.T) {
	nodes := newKnownNodes()
	lon := startNode(t, nodes, "lon1", "127.0.0.2", "0", "192.0.2.0/24", nil, 20, 10)
	par := startNode(t, nodes, "par1", "127.0.0.1", lon.conf.port, "198.51.100.0/24", []string{"lon1"}, 10, 20)
	summary := func(n *testNode) string { return strings.Join(n.instance.Summary().Lines(), "\n") }
	watch := testwatch.Start(t)
	expect := func(n *testNode, want string) {
		t.Helper()
		for end := watch.Elapsed() + 10*time.Second; !strings.Contains(summary(n), want); time.Sleep(10 * time.Millisecond) {
			if watch.Elapsed() > end {
				t.Fatalf("Expected a line with %q, got\n%s", want, summary(n))
			}
		}
	}
	expect(par, "deputy lon1: no view announced yet")
	at := time.Now()
	par.share(at)
	expect(par, "deputy lon1: accepted NOTIFY at ")

	const remedy = ": all nodes need the same 'view-key', and 'secret NAME SECRET' of that key in 'tsig'"
	for _, tc := range []struct{ name, secret, want string }{
		{"views.key.example.org.", "b3RoZXJzZWNyZXRvdGhlcnNlY3JldA==", ", last NOTIFY failed: 127.0.0.2: the server has a different secret for key 'views.key.example.org.' (BADSIG)" + remedy},
		{"unknown.key.example.org.", dnsbtest.Secret, ", last NOTIFY failed: 127.0.0.2: the server does not know key 'unknown.key.example.org.' (BADKEY)" + remedy},
		{otherKey, dnsbtest.Secret, ", last NOTIFY failed: 127.0.0.2: the node answered NOTAUTH: compare the zones, 'deputy' and 'view-key' of both nodes"},
	} {
		if strings.Contains(summary(lon), "rejected NOTIFY") {
			t.Errorf("Expected %s to know nothing of what tsig has rejected, got\n%s", lon.conf.Node, summary(lon))
		}
		settings := par.instance.sharing()
		settings.Key.Name, settings.Key.Secret = tc.name, tc.secret
		par.block.sharing.Configure(settings)
		at = at.Add(time.Minute)
		par.share(at)
		expect(par, tc.want)
	}
	expect(lon, "\nrejected NOTIFY for the view of par1 from 127.0.0.1:")
	expect(lon, `: signed with key "others.key.example.org.", and 'view-key' is "views.key.example.org.": give all nodes the same 'view-key'`)
}
