package etcdstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore/etcdtest"
)

// Servers with one etcd see each other, and see who ends, and who comes back.
func TestServersKnowEachOther(t *testing.T) {
	e := start(t)
	began := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	server := func(name string) (*registry.Registry, registry.Server) {
		self := registry.Server{Name: name, Host: "host of " + name, Version: "1.2.3", Started: began}
		r := registry.New(testZone)
		t.Cleanup(r.Close)
		r.SetServer(self)
		setStore(t, r, Location{URLs: e.URL, Haste: 20}, time.Hour)
		return r, self
	}
	sees := func(step string, r *registry.Registry, want ...registry.Server) {
		t.Helper()
		etcdtest.Wait(t, step, func() bool {
			got, read, shared := r.Others()
			return shared && !read.IsZero() && fmt.Sprint(got) == fmt.Sprint(want)
		})
	}
	one, b1 := server("b1." + testZone)
	sees("alone", one)
	two, b2 := server("b2." + testZone)
	sees("two", one, b2)
	sees("two", two, b1)

	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	expect(t, "registrations beside servers", "a [192.0.2.1] [] 7; ", one, two)

	b2.Name = "b3." + testZone
	two.SetServer(b2)
	setStore(t, two, Location{URLs: e.URL, Haste: 20}, time.Hour)
	sees("another name", one, b2)

	setStore(t, two, nil, time.Hour)
	if _, _, shared := two.Others(); shared {
		t.Error("Expected no other servers in memory")
	}
	sees("moved away", one)

	setStore(t, two, Location{URLs: e.URL, Haste: 20}, time.Hour)
	sees("back", one, b2)
	e.Kill()
	etcdtest.Wait(t, "away", func() bool { _, read, _ := one.Others(); return read.IsZero() })
	e.Start()
	sees("back with etcd", one, b2)
	e.Kill()
	e.Lose()
	e.Start()
	sees("after etcd has lost all", one, b2)
	sees("after etcd has lost all", two, b1)
}
