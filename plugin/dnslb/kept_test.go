package dnslb

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestKeptKey checks that blocks of one Corefile that rank the same zone do so
// each for itself, and that a node is one wherever it listens.
func TestKeptKey(t *testing.T) {
	listeners := []dnsserver.Config{
		{Transport: "dns", Port: "53"},
		{Transport: "https", Port: "443"},
		{Transport: "quic", Port: "443"},
		{Transport: "dns", Port: "53", ListenHosts: []string{"192.0.2.1"}},
		{Transport: "dns", Port: "53", ViewName: "inside"},
	}
	keys, nodes := make(map[string]bool), make(map[string]bool)
	for _, cfg := range listeners {
		keys[keptKey(config{Zones: []string{testZone}}, &cfg)] = true
		keys[keptKey(config{Zones: []string{testZone, "example.net."}}, &cfg)] = true // another zone may come
		nodes[keptKey(nodeConfig(t, "203.0.113.1:53"), &cfg)] = true
	}
	if len(keys) != len(listeners) || len(nodes) != 1 {
		t.Errorf("Expected %d keys and one for a node, got %v and %v", len(listeners), keys, nodes)
	}
}

// TestInstances checks whose standings a new table takes over when instances of a
// reload overlap, and one of them ends.
func TestInstances(t *testing.T) {
	old := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	k, first := old.kept, old.table.Load()
	k.adopt(first, old)
	young := newDNSLB(old.config, nil)
	young.kept = k
	failed := young.sources.table()
	k.adopt(failed, young)
	if k.current() != failed {
		t.Error("Expected the table of the younger instance to count")
	}

	k.leave(young) // its start failed in another plugin
	if k.current() != first {
		t.Error("Expected the table of the instance that stays to count")
	}
	first.observed.status[0] = latencyprobe.Status{State: latencyprobe.Down}
	(&ranker{DNSLB: old, table: first, observed: first.observed}).rankPools(first.pools)
	next := old.sources.table()
	k.adopt(next, old)
	if c := next.pools[0].state.lastSwitch; c == nil || c.cause != ranking.Down {
		t.Errorf("Expected the last change to be known, got %v", c)
	}
	if k.current() != next {
		t.Error("Expected the new table to count")
	}

	// What an older instance still changes is from its own table, and counts no more.
	last := young.sources.table()
	k.adopt(last, young)
	k.adopt(old.sources.table(), old)
	if k.current() != last {
		t.Error("Expected the table of the younger instance to count still")
	}
	k.leave(old)
	k.leave(young)
	if k.current() != nil {
		t.Error("Expected no table when no instance is left")
	}
}

// TestPoolBefore checks that services keep their standing whichever of them comes
// first in another table.
func TestPoolBefore(t *testing.T) {
	service := func(name string, servers ...string) serviceConfig {
		return serviceConfig{name: name + "." + testZone, servers: servers, options: options{answers: 1}}
	}
	conf := &config{Zones: []string{testZone}, probes: []string{""}, inventory: inventory{servers: map[string]serverConfig{"a": machine("192.0.2.1"), "b": machine("192.0.2.2")}}}
	conf.services = []serviceConfig{service("www", "a", "b"), service("ftp", "b")}
	before := newSources(conf).table()
	conf.services = []serviceConfig{service("new", "a", "b"), service("ftp", "a", "b"), service("www", "a", "b"), service("other", "b")}
	now := newSources(conf).table()
	if got := now.pools[0].predecessor(before); got != before.names["www."+testZone].service.a {
		t.Errorf("Expected the pool with the same servers, got %v", got)
	}
	if got := now.pools[1].predecessor(before); got != nil {
		t.Errorf("Expected none for services that are new, got %v", got)
	}
}

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

// TestStop checks that a stop takes as long as a withdrawal may, whoever does not
// answer, and that DNS-B is told at once.
func TestStop(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, dnsbtest.Secret)
	deaf, _ := dnsbtest.ListenSilently(t, "127.0.0.1:0")
	deputy, asked := dnsbtest.ListenSilently(t, "127.0.0.1:0")
	nodes := &knownNodes{nodes: map[string]peer{"lon1": {addresses: []netip.Addr{addr("127.0.0.1")}}}}
	k := newKept()
	k.sharing = newSharing(nodes.find, k.targets)
	conf := nodeConfig(t, one.Addr, deaf)
	conf.deputies, conf.viewKey = []string{"lon1"}, viewKey(t, dnsbtest.Secret)
	_, conf.port, _ = net.SplitHostPort(deputy)
	k.sharing.set(conf, 1)
	k.register(conf, 1)
	one.Next(t)
	k.sharing.publish(1, time.Now(), findings{})
	k.sharing.notified("lon1")
	<-asked // by the news
	<-asked // by the look for a view

	begin := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); keeper.Close("", k) }()
	if w := one.Next(t); len(w.Addresses) != 0 || time.Since(begin) > time.Second {
		t.Errorf("Expected a withdrawal at once, got %+v after %s", w, time.Since(begin))
	}
	<-done
	const withdrawTimeout = 2 * time.Second
	if took := time.Since(begin); took > withdrawTimeout+time.Second {
		t.Errorf("Expected to end within %s, took %s", withdrawTimeout, took)
	}
}
