package peerview

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const (
	testCut     = "svc.gslb.example.org."
	testZone    = "par1._view." + testCut // of the view of par1
	nameserver  = "par1.lb.gslb.example.org."
	testSecret  = "c2VjcmV0c2VjcmV0c2VjcmV0"
	otherSecret = "b3RoZXJzZWNyZXRvdGhlcnNlY3JldA=="
	otherKey    = "others.key.example.org." // of tsig, beside the view key
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func viewKey(t *testing.T, secret string) dnsclient.Key {
	t.Helper()
	key, err := dnsclient.NewKey("views.key.example.org", "", secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// noTargets is what a node without services measures.
func noTargets() []latencyprobe.Target { return nil }

// unreachable is a Lookup that fails.
func unreachable(context.Context, string) ([]netip.Addr, error) {
	return nil, errNoRoute
}

var errNoRoute = errors.New("no route")

// registry is what DNS-B knows.
type registry struct {
	mu       sync.Mutex
	nodes    map[string][]netip.Addr
	prefixes map[string]string // to the nodes that registered them, as nodemaptest.Table has them
}

func newRegistry() *registry {
	return &registry{nodes: make(map[string][]netip.Addr), prefixes: make(map[string]string)}
}

func (r *registry) lookup(_ context.Context, node string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.nodes[node]; ok {
		return p, nil
	}
	return nil, registrar.ErrUnknownNode
}

func (r *registry) register(node string, addrs ...netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[node] = addrs
}

// testNode is a node that shares what a test says it has measured.
type testNode struct {
	*Sharing
	settings Settings
	address  string
	serving  atomic.Pointer[Sharing] // that answers; nil: no plugin does
	later    atomic.Bool             // it sends views of a later version
	latency  []float64               // of servers 192.0.2.1, 192.0.2.2, …
}

// startNode starts a node that serves at its address, at the port of the first
// one.
func startNode(t *testing.T, nodes *registry, name, address, port, prefix string, deputies []string, latency ...float64) *testNode {
	t.Helper()
	l := dnsbtest.Listen(t, address, port)
	n := &testNode{address: l.Addr().String(), latency: latency}
	_, port, _ = net.SplitHostPort(n.address)
	n.settings = Settings{Node: name, Cut: testCut, Port: port, Key: viewKey(t, testSecret), Deputies: deputies}
	n.Sharing = New(nodes.lookup, noTargets)
	n.Configure(n.settings)
	n.serving.Store(n.Sharing)
	srv := &dns.Server{Listener: l, TsigSecret: map[string]string{n.settings.Key.Name: testSecret, otherKey: testSecret}, Handler: n.handler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() {
		n.Close()
		_, _ = srv.Shutdown(), l.Close() // the latter if it has not begun
		<-done
	})
	nodes.register(name, addr(address))
	nodes.prefixes[prefix] = "registration=" + name
	n.SetMap(nodemaptest.Table(t, nodes.prefixes)) // the nodes that started before need no more
	return n
}

// handler is the chain of a server block: tsig and the plugin with the Sharing.
func (n *testNode) handler() dns.Handler {
	chain := &tsig.TSIGServer{Zones: []string{"."}, Next: plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		if n.later.Load() {
			w = laterWriter{w}
		}
		return n.serving.Load().Serve(ctx, w, r, nameserver)
	})}
	return dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		w = request.NewScrubWriter(r, w)
		rcode, err := dns.RcodeRefused, error(nil)
		if n.serving.Load() != nil {
			rcode, err = chain.ServeDNS(context.Background(), w, r)
		}
		if rcode != dns.RcodeSuccess || err != nil {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
		}
	})
}

// laterWriter writes views as those of a later version.
type laterWriter struct{ dns.ResponseWriter }

func (w laterWriter) WriteMsg(m *dns.Msg) error {
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			txt.Txt[0] = strings.Replace(txt.Txt[0], version, "v=2", 1)
		}
	}
	return w.ResponseWriter.WriteMsg(m)
}

// reload changes the deputies of a node.
func (n *testNode) reload(deputies ...string) {
	n.settings.Deputies = deputies
	n.Configure(n.settings)
}

// share publishes what is measured.
func (n *testNode) share(at time.Time) bool {
	f := Findings{Rankings: func() map[Service]Ranking { return nil }}
	for i, ms := range n.latency {
		f.Targets = append(f.Targets, latencyprobe.Target{Name: fmt.Sprintf("server%d", i+1), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
		f.Ranked = append(f.Ranked, latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: 1, RTT: ms, Value: ms}, MeasuredAt: at})
	}
	f.Status = func(t latencyprobe.Target) latencyprobe.Status { return f.Ranked[t.Addr.As4()[3]-1] }
	return n.Publish(at, f)
}

// follow waits until the node follows other views.
func (n *testNode) follow(t *testing.T, change func()) {
	t.Helper()
	changed, unsubscribe := n.Subscribe()
	defer unsubscribe()
	change()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("Expected another view within 20 s")
	}
}

// expectView checks whose view a node follows for a resolver; "" for none.
func (n *testNode) expectView(t *testing.T, resolver, want string) {
	t.Helper()
	if got := viewFor(n.Sharing, resolver); got != want {
		t.Errorf("Expected the view of %q for %s, got that of %q", want, resolver, got)
	}
}

func viewFor(s *Sharing, resolver string) string {
	set := s.Current()
	slot, _ := set.Slot(func() netip.Addr { return addr(resolver) })
	if slot <= Own || set.Views[slot] == nil {
		return ""
	}
	return set.Views[slot].Node
}
