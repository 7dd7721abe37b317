package dnslb

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// nodeConfig returns the configuration of a node that registers at these DNS-Bs.
func nodeConfig(t *testing.T, dnsbs ...string) config {
	t.Helper()
	conf := config{
		Zones: []string{testZone}, Node: "par1", addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		near: []registration.Prefix{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}},
		key:  dnsbtest.Key(t), lease: time.Hour,
	}
	for _, dnsb := range dnsbs {
		conf.dnsbs = append(conf.dnsbs, dnsclient.Endpoint(dnsb))
	}
	return conf
}

// TestBlockKey checks that blocks of one Corefile that rank the same zone have
// states of their own, and that a node is the same wherever it listens.
func TestBlockKey(t *testing.T) {
	listeners := []dnsserver.Config{
		{Transport: "dns", Port: "53"},
		{Transport: "https", Port: "443"},
		{Transport: "quic", Port: "443"},
		{Transport: "dns", Port: "53", ListenHosts: []string{"192.0.2.1"}},
		{Transport: "dns", Port: "53", ViewName: "inside"},
	}
	keys, nodes := make(map[string]bool), make(map[string]bool)
	for _, cfg := range listeners {
		keys[blockKey(config{Zones: []string{testZone}}, &cfg)] = true
		keys[blockKey(config{Zones: []string{testZone, "example.net."}}, &cfg)] = true // a reload adds a zone
		nodes[blockKey(nodeConfig(t, "203.0.113.1:53"), &cfg)] = true
	}
	if len(keys) != len(listeners) || len(nodes) != 1 {
		t.Errorf("Expected %d keys and one of the node, got %v and %v", len(listeners), keys, nodes)
	}
}

// TestSnapshotsOfOverlappingInstances checks from which snapshot a new one takes over
// rank states, and which one counts, while the instances of a reload overlap.
func TestSnapshotsOfOverlappingInstances(t *testing.T) {
	old := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	b, first := old.state, old.snapshot.Load()
	b.setSnapshot(first, old)
	young := newDNSLB(old.config, nil)
	young.state = b
	failed := young.sources.snapshot()
	b.setSnapshot(failed, young)
	if b.youngest().snapshot != failed {
		t.Error("Expected the snapshot of the younger instance to count")
	}

	b.removeSnapshot(young) // its start failed in another plugin
	if b.youngest().snapshot != first {
		t.Error("Expected the snapshot of the instance that remains to count")
	}
	first.observed.status[0] = latencyprobe.Status{State: latencyprobe.Down}
	testRanker(old, first, first.observed).rankPools(first.pools)
	next := old.sources.snapshot()
	b.setSnapshot(next, old)
	if c := next.pools[0].state.lastSwitch; c == nil || c.cause != ranking.Down {
		t.Errorf("Expected the last switch to be known, got %v", c)
	}
	if b.youngest().snapshot != next {
		t.Error("Expected the new snapshot to count")
	}

	// An older instance takes over from its own snapshot, which does not count.
	last := young.sources.snapshot()
	b.setSnapshot(last, young)
	b.setSnapshot(old.sources.snapshot(), old)
	if b.youngest().snapshot != last {
		t.Error("Expected the snapshot of the younger instance to count still")
	}
	b.removeSnapshot(old)
	b.removeSnapshot(young)
	if b.youngest().snapshot != nil {
		t.Error("Expected no snapshot without an instance")
	}
}

// TestPredecessor checks that services keep their rank states whichever of them
// comes first in the next snapshot.
func TestPredecessor(t *testing.T) {
	service := func(name string, servers ...string) serviceConfig {
		return serviceConfig{name: name + "." + testZone, servers: labelsOf(servers...), options: options{answers: 1}}
	}
	conf := &config{Zones: []string{testZone}, probes: []string{""}, inventory: inventory{servers: map[string]serverConfig{"a": machine("192.0.2.1"), "b": machine("192.0.2.2")}}}
	conf.inventory.services = []serviceConfig{service("www", "a", "b"), service("ftp", "b")}
	previous := newSources(conf).snapshot()
	conf.inventory.services = []serviceConfig{service("new", "a", "b"), service("ftp", "a", "b"), service("www", "a", "b"), service("other", "b")}
	next := newSources(conf).snapshot()
	if got := next.pools[0].predecessor(previous); got != previous.names["www."+testZone].service.a {
		t.Errorf("Expected the pool with the same servers, got %v", got)
	}
	if got := next.pools[1].predecessor(previous); got != nil {
		t.Errorf("Expected no predecessor of services that are new, got %v", got)
	}
}

// TestYoungestInstanceRegisters checks that the registration is that of the
// youngest instance that is ready, and again that of the older one if the
// younger one fails to start.
func TestYoungestInstanceRegisters(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, dnsbtest.Secret)
	old, young := new(reload.Holder), new(reload.Holder)
	oldConf, youngConf := nodeConfig(t, one.Addr), nodeConfig(t, one.Addr)
	youngConf.Zones = []string{"cdn.gslb.example.org."}
	ready := func(conf config) blockSettings {
		d := newDNSLB(conf, nil)
		d.ready.Store(true)
		return d.blockSettings()
	}
	expectCut := func(cut string) {
		t.Helper()
		if reg := one.Next(t); !slices.Equal(reg.Cuts, []string{cut}) {
			t.Errorf("Expected %s to be registered, got %v", cut, reg.Cuts)
		}
	}
	hold := func(h *reload.Holder, want blockSettings) {
		t.Helper()
		if _, err := blocks.Hold(h, t.Name(), want); err != nil {
			t.Fatal(err)
		}
	}
	update := func(h *reload.Holder, want blockSettings) {
		t.Helper()
		if err := blocks.Update(h, t.Name(), want); err != nil {
			t.Fatal(err)
		}
	}
	release := func(h *reload.Holder) {
		t.Helper()
		if err := blocks.Release(h); err != nil {
			t.Fatal(err)
		}
	}

	hold(old, ready(oldConf))
	expectCut(testZone)
	hold(young, newDNSLB(youngConf, nil).blockSettings()) // not ready: the registration stays
	update(young, ready(youngConf))
	expectCut("cdn.gslb.example.org.")
	update(old, ready(oldConf)) // it is not the youngest
	release(young)
	expectCut(testZone)
	release(old)
	if w := one.Next(t); len(w.Addresses) != 0 {
		t.Errorf("Expected a withdrawal, got %+v", w)
	}
}

// TestClose checks that the end of a block takes as long as a withdrawal may,
// even if DNS-Bs or deputies do not answer, and that DNS-B has the withdrawal
// immediately.
func TestClose(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, dnsbtest.Secret)
	silent, _ := dnsbtest.ListenSilently(t, "127.0.0.1:0")
	deputy, asked := dnsbtest.ListenSilently(t, "127.0.0.1:0")
	nodes := &knownNodes{nodes: map[string][]netip.Addr{"lon1": {addr("127.0.0.1")}}}
	b := newBlockState()
	b.sharing = peerview.New(nodes.lookup, b.targets)
	conf := nodeConfig(t, one.Addr, silent)
	conf.deputies, conf.viewKey = []string{"lon1"}, viewKey(t, dnsbtest.Secret)
	_, conf.port, _ = net.SplitHostPort(deputy)
	registration := registrarSettings(conf)
	b.configure(blockSettings{sharing: conf.sharing(), registration: &registration})
	one.Next(t)
	b.sharing.Publish(time.Now(), peerview.Findings{Rankings: func() map[peerview.Service]peerview.Ranking { return nil }})
	notify := new(dns.Msg).SetNotify("lon1." + peerview.Label + "." + testZone)
	notify.SetTsig(conf.viewKey.Name, conf.viewKey.Algorithm, dnsclient.Fudge, time.Now().Unix())
	chain := tsig.TSIGServer{Zones: conf.Zones, Next: plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return b.sharing.Serve(ctx, w, r, ".")
	})}
	if _, err := chain.ServeDNS(t.Context(), &test.ResponseWriter{}, notify); err != nil {
		t.Fatal(err)
	}
	<-asked // by NOTIFY
	<-asked // for its view

	watch := testwatch.Start(t)
	done := make(chan struct{})
	go func() { defer close(done); b.close() }()
	if w := one.Next(t); len(w.Addresses) != 0 || watch.Elapsed() > time.Second {
		t.Errorf("Expected a withdrawal at once, got %+v after %s", w, watch.Elapsed())
	}
	<-done
	const withdrawTimeout = 2 * time.Second
	if took := watch.Elapsed(); took > withdrawTimeout+time.Second {
		t.Errorf("Expected to end within %s, took %s", withdrawTimeout, took)
	}
}
