package etcdstore

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore/etcdtest"
)

// put writes a key of the zone as another program does.
func put(t *testing.T, e *etcdtest.Server, key, value string) {
	t.Helper()
	if _, err := e.Client.Put(t.Context(), testPrefix+key, value); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, e *etcdtest.Server, key string) {
	t.Helper()
	if _, err := e.Client.Delete(t.Context(), testPrefix+key); err != nil {
		t.Fatal(err)
	}
}

// TestFormatVersion checks that keys without a version, as earlier programs wrote
// them, are taken and get one, that of keys of a newer program nothing is taken or
// changed, and that all goes on when they are of this version again.
func TestFormatVersion(t *testing.T) {
	e := start(t)
	one := at(t, Location{URLs: e.URL}, time.Hour)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	version := e.Keys(testPrefix)[versionKey]
	remove(t, e, versionKey)

	other := at(t, Location{URLs: e.URL}, time.Hour)
	expect(t, "without a version", "a [192.0.2.1] [] 7; ", one, other)
	register(t, other, nodeAt("b", "192.0.2.2"), 7)
	all := "a [192.0.2.1] [] 7; b [192.0.2.2] [] 7; "
	expect(t, "with a version", all, one, other)
	if v := e.Keys(testPrefix)[versionKey]; !strings.HasPrefix(v, "1 ") || v == version {
		t.Errorf("Expected a version with another name than %q, got %q", version, v)
	}

	put(t, e, versionKey, "2 later")
	remove(t, e, "registrations/a")
	put(t, e, "registrations/b", "of another form")
	third := at(t, Location{URLs: e.URL}, time.Hour)
	before := e.Keys(testPrefix)
	for name, r := range map[string]*registry.Registry{"one": one, "other": other, "third": third} {
		etcdtest.Wait(t, "the reason at "+name, func() bool {
			reg := nodeAt("c", "192.0.2.3")
			reg.Serial = 7
			got, _, err := r.Apply(reg, time.Hour)
			return got == registry.StoreFailed && strings.Contains(err.Error(),
				`the store failed: etcd has keys of format version "2", this program reads version 1: run the program that has written them`)
		})
	}
	expectNow(t, "later version", all, one, other)
	if until := third.ColdUntil(time.Hour); time.Until(until) < 24*time.Hour {
		t.Errorf("Expected an incomplete registry with a later version, got until %s", until)
	}
	etcdtest.Wait(t, "the metric", func() bool { return testutil.ToFloat64(registry.StoreUp.WithLabelValues(testZone)) == 0 })
	if after := e.Keys(testPrefix); !maps.Equal(before, after) {
		t.Errorf("Expected no key to be changed from %q, got %q", before, after)
	}

	for key := range before {
		remove(t, e, key)
	}
	expect(t, "filled again", all, one, other, third)
}

// disturbed is a location at which something happens after a server has read all,
// and before it writes what etcd lacks.
type disturbed struct {
	Location
	read, restating *func()
}

func (l disturbed) Follow(zone string, replica registry.Replica) registry.Store {
	return l.Location.Follow(zone, disturbedReplica{replica, *l.read, *l.restating})
}

type disturbedReplica struct {
	registry.Replica
	read, restating func()
}

func (r disturbedReplica) Replace(all []registry.Entry) {
	r.Replica.Replace(all)
	r.read()
}

func (r disturbedReplica) Restate(node string) *registry.Txn {
	r.restating()
	return r.Replica.Restate(node)
}

// A server that loses etcd between its read and its watch notices that.
func TestLossOfEtcdBeforeWatch(t *testing.T) {
	e := start(t)
	way := etcdtest.NewRelay(t, e)
	read, restating := way.Cut, func() {}
	r := at(t, disturbed{Location{URLs: way.URL, Haste: 5}, &read, &restating}, time.Hour)
	etcdtest.Wait(t, "the outage to be known", func() bool {
		_, _, err := r.Apply(nodeAt("a", "192.0.2.1"), time.Hour)
		return err != nil && strings.Contains(err.Error(), "etcd does not answer: ")
	})
}

// A server that writes what etcd lacks does so again when another one was faster,
// but with something older.
func TestRestoreAfterOlderOne(t *testing.T) {
	e := start(t)
	one := at(t, Location{URLs: e.URL}, time.Hour)
	other := registry.New(testZone)
	t.Cleanup(other.Close)
	register(t, other, nodeAt("a", "192.0.2.9"), 9)
	read, restating := func() {}, sync.OnceFunc(func() { register(t, one, nodeAt("a", "192.0.2.8"), 8) })
	setStore(t, other, disturbed{Location{URLs: e.URL}, &read, &restating}, time.Hour)
	expect(t, "restored", "a [192.0.2.9] [] 9; ", one, other)
}

// An etcd that has lost all, and was filled again beyond its earlier revision, is
// read again: nothing that nodes registered meanwhile is missed.
func TestRefilledEtcdIsReadAgain(t *testing.T) {
	e, refilled := start(t), start(t)
	way := etcdtest.NewRelay(t, e)
	one := at(t, Location{URLs: way.URL}, time.Hour)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	register(t, one, nodeAt("b", "192.0.2.2"), 7)
	other := at(t, Location{URLs: refilled.URL}, time.Hour)
	for serial := uint64(8); serial < 20; serial++ {
		register(t, other, nodeAt("c", "192.0.2.3"), serial)
		register(t, other, nodeAt("d", "192.0.2.4"), 8)
	}
	register(t, other, withdrawal("d", 0), 9)

	way.Redirect(refilled)
	expect(t, "read again", "a [192.0.2.1] [] 7; b [192.0.2.2] [] 7; c [192.0.2.3] [] 19; ", one, other)
}
