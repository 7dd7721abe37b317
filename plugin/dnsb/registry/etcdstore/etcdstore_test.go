package etcdstore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/boltstore"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore/etcdtest"
)

const (
	testZone   = registrationtest.Zone
	testPrefix = root + testZone + "/"
)

// start returns an etcd that runs.
func start(t *testing.T) *etcdtest.Server {
	t.Helper()
	e := etcdtest.New(t)
	e.Start()
	return e
}

// at returns a registry that is stored at a location.
func at(t *testing.T, l registry.Location, maxLease time.Duration) *registry.Registry {
	t.Helper()
	r := registry.New(testZone)
	t.Cleanup(r.Close)
	setStore(t, r, l, maxLease)
	return r
}

// two returns two registries that share an etcd.
func two(t *testing.T, urls ...string) (one, other *registry.Registry) {
	t.Helper()
	l := Location{URLs: strings.Join(urls, " ")}
	return at(t, l, time.Hour), at(t, l, time.Hour)
}

func setStore(t *testing.T, r *registry.Registry, l registry.Location, maxLease time.Duration) {
	t.Helper()
	if err := r.SetStore(l, maxLease); err != nil {
		t.Fatal(err)
	}
}

// apply registers, again when etcd did not answer in time.
func apply(t *testing.T, r *registry.Registry, reg *registration.Registration, lease time.Duration) (outcome registry.Outcome, err error) {
	t.Helper()
	etcdtest.Wait(t, "an answer of etcd", func() bool {
		outcome, _, err = r.Apply(reg, lease)
		return outcome != registry.StoreFailed
	})
	return outcome, err
}

func register(t *testing.T, r *registry.Registry, reg *registration.Registration, serial uint64) {
	t.Helper()
	reg.Serial = serial
	if _, err := apply(t, r, reg, time.Hour); err != nil {
		t.Fatalf("Expected %s to register, got: %v", reg.Node, err)
	}
}

func nodeAt(name, addr string, prefixes ...string) *registration.Registration {
	return registrationtest.Node(name, addr, prefixes...)
}

func withdrawal(name string, serial uint64) *registration.Registration {
	return &registration.Registration{Zone: testZone, Node: name, Serial: serial}
}

// describe lists what is registered: nodes with their addresses, prefixes and
// serials, and whether they have client subnets and are stale.
func describe(r *registry.Registry) string {
	st := r.State()
	var b strings.Builder
	for _, name := range []string{"a", "b", "c", "d"} {
		if rec := st.Records[name]; rec != nil {
			fmt.Fprintf(&b, "%s %v %v %d", name, rec.Addresses, rec.Prefixes, rec.Serial)
			if rec.ClientSubnets {
				b.WriteString(" client-subnets")
			}
			if rec.Stale {
				b.WriteString(" stale")
			}
			b.WriteString("; ")
		}
	}
	return b.String()
}

// expect waits until all registries hold what want describes.
func expect(t *testing.T, step, want string, all ...*registry.Registry) {
	t.Helper()
	for _, r := range all {
		got := describe(r)
		t.Cleanup(func() {
			if got != want {
				t.Logf("%s: Expected %q, got %q", step, want, got)
			}
		})
		etcdtest.Wait(t, step, func() bool { got = describe(r); return got == want })
	}
}

// expectNow checks that all registries hold what want describes.
func expectNow(t *testing.T, step, want string, all ...*registry.Registry) {
	t.Helper()
	for _, r := range all {
		if got := describe(r); got != want {
			t.Fatalf("%s: Expected %q, got %q", step, want, got)
		}
	}
}

func serialsOf(all ...*registry.Registry) []uint32 {
	serials := make([]uint32, len(all))
	for i, r := range all {
		serials[i] = r.Serial()
	}
	return serials
}

// What is done at one of two servers is visible at the other.
func TestTwoServersShareRegistrations(t *testing.T) {
	e := start(t)
	one, other := two(t, e.URL)
	now := uint64(time.Now().UnixMilli())

	const (
		added, changed, refreshed = registry.Added, registry.Changed, registry.Refreshed
		withdrawn, wrongSerial    = registry.Withdrawn, registry.WrongSerial
	)
	tailoring := nodeAt("a", "192.0.2.4")
	tailoring.ClientSubnets = true
	steps := []struct {
		name   string
		at     *registry.Registry
		reg    *registration.Registration
		serial uint64
		want   registry.Outcome
		holds  string
	}{
		{"registration", one, nodeAt("a", "192.0.2.1", "10.0.0.0/8", "!10.1.0.0/16"), now, added, "a [192.0.2.1] [10.0.0.0/8 !10.1.0.0/16] 0; "},
		{"registration of another node", other, nodeAt("b", "192.0.2.2"), now + 1, added, "a [192.0.2.1] [10.0.0.0/8 !10.1.0.0/16] 0; b [192.0.2.2] [] 1; "},
		{"change at the other server", other, nodeAt("a", "192.0.2.3", "11.0.0.0/8"), now + 2, changed, "a [192.0.2.3] [11.0.0.0/8] 2; b [192.0.2.2] [] 1; "},
		{"refresh", one, nodeAt("a", "192.0.2.3", "11.0.0.0/8"), now + 3, refreshed, "a [192.0.2.3] [11.0.0.0/8] 3; b [192.0.2.2] [] 1; "},
		{"the same again at the other server", other, nodeAt("a", "192.0.2.3", "11.0.0.0/8"), now + 3, refreshed, "a [192.0.2.3] [11.0.0.0/8] 3; b [192.0.2.2] [] 1; "},
		{"older", other, nodeAt("a", "192.0.2.4"), now + 2, wrongSerial, "a [192.0.2.3] [11.0.0.0/8] 3; b [192.0.2.2] [] 1; "},
		{"withdrawal", other, withdrawal("a", 0), now + 4, withdrawn, "b [192.0.2.2] [] 1; "},
		{"older than the withdrawal", one, nodeAt("a", "192.0.2.4"), now + 3, wrongSerial, "b [192.0.2.2] [] 1; "},
		{"withdrawal again", one, withdrawal("a", 0), now + 4, withdrawn, "b [192.0.2.2] [] 1; "},
		{"back", one, nodeAt("a", "192.0.2.4"), now + 5, added, "a [192.0.2.4] [] 5; b [192.0.2.2] [] 1; "},
		{"client subnets", other, tailoring, now + 6, changed, "a [192.0.2.4] [] 6 client-subnets; b [192.0.2.2] [] 1; "},
	}
	last := serialsOf(one, other)
	for _, step := range steps {
		step.reg.Serial = step.serial
		if got, err := apply(t, step.at, step.reg, time.Minute); got != step.want || (err != nil) != (got == wrongSerial) {
			t.Fatalf("%s: Expected %s, got %s, %v", step.name, step.want, got, err)
		}
		want := step.holds
		for i := range uint64(10) {
			for _, after := range []string{"; ", " client-subnets; "} {
				want = strings.ReplaceAll(want, fmt.Sprintf("] %d%s", i, after), fmt.Sprintf("] %d%s", now+i, after))
			}
		}
		expectNow(t, step.name, want, step.at) // visible where it was acknowledged
		expect(t, step.name, want, one, other)
		serials := serialsOf(one, other)
		for i := range serials {
			if serials[i] < last[i] || step.want == changed && serials[i] == last[i] {
				t.Errorf("%s: Expected the serials of the zone to grow from %v, got %v", step.name, last, serials)
			}
		}
		last = serials
	}

	if forgotten, err := one.Forget(one.State().Records["a"]); !forgotten || err != nil {
		t.Fatalf("Expected the node to be forgotten, got %v, %v", forgotten, err)
	}
	expect(t, "forgotten", fmt.Sprintf("b [192.0.2.2] [] %d; ", now+1), one, other)
	old := nodeAt("a", "192.0.2.4")
	old.Serial = now + 4
	if got, _, _ := other.Apply(old, time.Minute); got != wrongSerial {
		t.Errorf("Expected the last serial of a forgotten node to be known, got %s", got)
	}

	// The next process has it all.
	for _, r := range []*registry.Registry{one, other} {
		setStore(t, r, nil, time.Hour)
	}
	next := at(t, Location{URLs: e.URL}, time.Hour)
	expect(t, "after a restart", fmt.Sprintf("b [192.0.2.2] [] %d; ", now+1), next)
	if got, _, _ := next.Apply(old, time.Minute); got != wrongSerial {
		t.Errorf("Expected the last serial to survive a restart, got %s", got)
	}
	if serial := next.Serial(); serial < last[0] || serial < last[1] {
		t.Errorf("Expected the serial of the zone to grow from %v over a restart, got %d", last, serial)
	}
	if got := next.ColdUntil(time.Hour); !got.Before(time.Now()) {
		t.Errorf("Expected the registry to be complete, got %s", got)
	}
}

// Of what two servers get at once the highest serial wins, at both.
func TestHighestSerialWins(t *testing.T) {
	e := start(t)
	one, other := two(t, e.URL)
	now := uint64(time.Now().UnixMilli())
	const rounds = 40
	var wg sync.WaitGroup
	for i, r := range []*registry.Registry{one, other} {
		wg.Go(func() {
			for n := range uint64(rounds) {
				for _, name := range []string{"a", "b"} {
					reg := nodeAt(name, fmt.Sprintf("192.0.2.%d", 2*n+uint64(i)+1))
					reg.Serial = now + 2*n + uint64(i)
					if got, err := apply(t, r, reg, time.Minute); err != nil && got != registry.WrongSerial {
						t.Errorf("Expected a change or a serial that is too old, got %s, %v", got, err)
					}
				}
			}
		})
	}
	wg.Wait()
	highest := now + 2*rounds - 1
	expect(t, "after all", fmt.Sprintf("a [192.0.2.%d] [] %d; b [192.0.2.%[1]d] [] %[2]d; ", 2*rounds, highest), one, other)
}

// interrupted is a location at which other servers write just before Write.
type interrupted struct {
	Location
	calls *calls
}

type calls struct {
	before func()
	errs   []error
}

func (l interrupted) Follow(zone string, replica registry.Replica) registry.Store {
	return interruptedStore{l.Location.Follow(zone, replica), l.calls}
}

type interruptedStore struct {
	registry.Store
	calls *calls
}

func (s interruptedStore) Write(txn *registry.Txn) error {
	if s.calls.before != nil {
		s.calls.before()
	}
	err := s.Store.Write(txn)
	s.calls.errs = append(s.calls.errs, err)
	return err
}

// What was planned before another server changed the node is planned again, by
// what that one wrote.
func TestSupersededTransactionIsPlannedAgain(t *testing.T) {
	e := start(t)
	one := at(t, Location{URLs: e.URL}, time.Hour)
	calls := new(calls)
	other := at(t, interrupted{Location{URLs: e.URL}, calls}, time.Hour)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	expect(t, "both", "a [192.0.2.1] [] 7; ", one, other)
	for _, tc := range []struct {
		name      string
		serial    uint64
		meanwhile func() error
	}{
		{"withdrawn", 102, func() error { _, _, err := one.Apply(withdrawal("a", 100), time.Hour); return err }},
		{"forgotten", 103, func() error { _, err := one.Forget(one.State().Records["a"]); return err }},
	} {
		calls.errs = nil
		calls.before = func() {
			if len(calls.errs) > 0 {
				expectNow(t, tc.name, "", other)
				return
			}
			if err := tc.meanwhile(); err != nil {
				t.Error(err)
			}
		}
		reg := nodeAt("a", "192.0.2.1")
		reg.Serial = tc.serial
		if got, _, err := other.Apply(reg, time.Hour); got != registry.Added || err != nil {
			t.Errorf("%s: Expected a new registration, got %s, %v", tc.name, got, err)
		}
		if len(calls.errs) != 2 || !errors.Is(calls.errs[0], registry.ErrSuperseded) || calls.errs[1] != nil {
			t.Errorf("%s: Expected the first transaction to be superseded, got %v", tc.name, calls.errs)
		}
		expect(t, tc.name, fmt.Sprintf("a [192.0.2.1] [] %d; ", tc.serial), one, other)
	}
}

// A lease ends in etcd, for all servers at once. It makes the node stale.
func TestLeaseEndsForAllServers(t *testing.T) {
	e := start(t)
	one := at(t, Location{URLs: e.URL}, time.Millisecond) // so no grace after the start
	other := at(t, Location{URLs: e.URL}, time.Millisecond)
	register(t, one, nodeAt("b", "192.0.2.2"), 7)
	reg := nodeAt("a", "192.0.2.1")
	serial := uint64(7)
	var (
		before  []uint32
		renewed time.Time
	)
	lease := time.Second
	for alive := false; !alive; serial += 2 { // with a longer lease if this machine is slow
		lease *= 2
		for i, r := range []*registry.Registry{one, other} {
			renewed, reg.Serial = time.Now(), serial+uint64(i)
			if _, err := apply(t, r, reg, lease); err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Sprintf("a [192.0.2.1] [] %d; b [192.0.2.2] [] 7; ", serial+1)
		etcdtest.Wait(t, "both", func() bool {
			before = serialsOf(one, other)
			alive = describe(one) == want && describe(other) == want
			return alive || time.Since(renewed) >= lease
		})
	}
	serial--
	expect(t, "stale", fmt.Sprintf("a [192.0.2.1] [] %d stale; b [192.0.2.2] [] 7; ", serial), one, other)
	if took := time.Since(renewed); took < lease {
		t.Errorf("Expected a lease of %s, got %s", lease, took)
	}
	for i, serial := range serialsOf(one, other) {
		if serial <= before[i] {
			t.Errorf("Expected the serial of the zone to grow from %v, got %v", before, serialsOf(one, other))
		}
	}

	// After a start a node has the longest lease to come back.
	third := at(t, Location{URLs: e.URL}, time.Hour)
	expect(t, "started", fmt.Sprintf("a [192.0.2.1] [] %d; b [192.0.2.2] [] 7; ", serial), third)
	if left := time.Until(third.State().Records["a"].LeaseEnd); left < 59*time.Minute || left > time.Hour {
		t.Errorf("Expected a longest lease, got %s", left)
	}
	register(t, other, reg, serial+1)
	expect(t, "back", fmt.Sprintf("a [192.0.2.1] [] %d; b [192.0.2.2] [] 7; ", serial+1), one, other, third)
}

// While etcd is down what is registered stays, and registrations fail, soon;
// then all goes on.
func TestOutage(t *testing.T) {
	e := start(t)
	one, other := two(t, e.URL)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	register(t, other, nodeAt("b", "192.0.2.2"), 7)
	all := "a [192.0.2.1] [] 7; b [192.0.2.2] [] 7; "
	expect(t, "both", all, one, other)

	e.Kill()
	watch := testwatch.Start(t)
	for _, r := range []*registry.Registry{one, other, one} {
		began := watch.Elapsed()
		reg := nodeAt("a", "192.0.2.9")
		reg.Serial = 8
		got, _, err := r.Apply(reg, time.Hour)
		if got != registry.StoreFailed || err == nil || !strings.Contains(err.Error(), "the store failed: etcd") {
			t.Errorf("Expected the store to fail, got %s, %v", got, err)
		}
		if took := watch.Elapsed() - began; took > 10*requestTime {
			t.Errorf("Expected an answer in about %s, got one after %s", requestTime, took)
		}
		expectNow(t, "down", all, r)
	}
	etcdtest.Wait(t, "the metric", func() bool { return testutil.ToFloat64(registry.StoreUp.WithLabelValues(testZone)) == 0 })
	if got, _, err := one.Apply(nodeAt("a", "192.0.2.9"), time.Hour); got != registry.StoreFailed || !strings.Contains(err.Error(), "etcd does not answer: ") {
		t.Errorf("Expected a failure without a request when etcd is known to be down, got %s, %v", got, err)
	}

	// A registry that starts now is empty, and says that it is not complete.
	third := at(t, Location{URLs: e.URL}, time.Hour)
	if until := third.ColdUntil(time.Hour); time.Until(until) < 24*time.Hour {
		t.Errorf("Expected an incomplete registry until etcd is read, got until %s", until)
	}

	e.Start()
	expect(t, "back", all, one, other, third)
	registersAgain(t, one, nodeAt("a", "192.0.2.9"))
	expect(t, "registered", "a [192.0.2.9] [] 8; b [192.0.2.2] [] 7; ", other, third)
}

// registersAgain registers a node with serial 8 as soon as that is possible.
func registersAgain(t *testing.T, r *registry.Registry, reg *registration.Registration) {
	t.Helper()
	reg.Serial = 8
	etcdtest.Wait(t, "registrations", func() bool {
		_, _, err := r.Apply(reg, time.Hour)
		return err == nil
	})
}

// A server that was cut off catches up, also when etcd has dropped the history,
// and whether it was long or short.
func TestCatchUpAfterCompaction(t *testing.T) {
	e := start(t)
	way := etcdtest.NewRelay(t, e)
	one := at(t, Location{URLs: e.URL}, time.Hour)
	other := at(t, Location{URLs: way.URL}, time.Hour)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	register(t, one, nodeAt("b", "192.0.2.2"), 7)
	expect(t, "both", "a [192.0.2.1] [] 7; b [192.0.2.2] [] 7; ", one, other)

	serial := uint64(8)
	for _, outage := range []time.Duration{100 * time.Millisecond, 5 * time.Second} {
		way.Cut()
		for range 20 {
			serial++
			register(t, one, nodeAt("a", "192.0.2.1"), serial)
		}
		register(t, one, withdrawal("b", 0), serial)
		register(t, one, nodeAt("c", "192.0.2.3"), serial)
		response, err := e.Client.Get(t.Context(), "any")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Client.Compact(t.Context(), response.Header.Revision); err != nil {
			t.Fatal(err)
		}
		time.Sleep(outage)
		way.Join()
		expect(t, "caught up", fmt.Sprintf("a [192.0.2.1] [] %d; c [192.0.2.3] [] %[1]d; ", serial), one, other)
		register(t, one, nodeAt("d", "192.0.2.4"), serial)
		expect(t, "goes on", fmt.Sprintf("a [192.0.2.1] [] %d; c [192.0.2.3] [] %[1]d; d [192.0.2.4] [] %[1]d; ", serial), one, other)
		register(t, one, withdrawal("d", 0), serial+1)
		register(t, one, nodeAt("b", "192.0.2.2"), serial+1)
		register(t, one, withdrawal("c", 0), serial+1)
		serial++
		etcdtest.Wait(t, "b to be back", func() bool {
			st := other.State()
			return st.Records["b"] != nil && st.Records["c"] == nil
		})
	}
}

// An etcd that comes back empty is filled from memory.
func TestEmptyEtcdIsFilled(t *testing.T) {
	e := start(t)
	one, other := two(t, e.URL)
	register(t, one, nodeAt("a", "192.0.2.1", "10.0.0.0/8"), 7)
	register(t, other, nodeAt("b", "192.0.2.2"), 7)
	register(t, other, withdrawal("b", 0), 9)
	expect(t, "both", "a [192.0.2.1] [10.0.0.0/8] 7; ", one, other)

	e.Kill()
	e.Lose()
	e.Start()
	etcdtest.Wait(t, "etcd to be filled", func() bool { return len(e.Keys(testPrefix)) == 5 })
	keys := e.Keys(testPrefix)
	if !strings.HasPrefix(keys["serials/a"], "7 ") || !strings.HasPrefix(keys["serials/b"], "9 ") || keys["leases/a"] != "3600" || keys["registrations/a"] == "" {
		t.Errorf("Expected both nodes, got %q", keys)
	}
	expect(t, "goes on", "a [192.0.2.1] [10.0.0.0/8] 7; ", one, other)
	registersAgain(t, one, nodeAt("c", "192.0.2.3"))
	expect(t, "goes on", "a [192.0.2.1] [10.0.0.0/8] 7; c [192.0.2.3] [] 8; ", one, other)
}

// A reload may move what is registered from one store to another.
func TestMoveBetweenStores(t *testing.T) {
	e := start(t)
	etcd, db := Location{URLs: e.URL}, boltstore.Location(t.TempDir()+"/map.db")
	r := registry.New(testZone)
	t.Cleanup(r.Close)
	register(t, r, nodeAt("a", "192.0.2.1"), 7)
	for i, l := range []registry.Location{etcd, db, etcd, nil, etcd} {
		setStore(t, r, l, time.Hour)
		serial := uint64(7 + i)
		expectNow(t, "moved", fmt.Sprintf("a [192.0.2.1] [] %d; ", serial), r)
		if l == etcd {
			etcdtest.Wait(t, "etcd to have it", func() bool {
				keys := e.Keys(testPrefix)
				return strings.HasPrefix(keys["serials/a"], fmt.Sprint(serial)+" ") && keys["leases/a"] == "3600"
			})
		}
		if got := time.Until(r.State().Records["a"].LeaseEnd); got < 59*time.Minute || got > time.Hour+time.Second {
			t.Errorf("Expected a lease of an hour at %v, got %s", l, got)
		}
		register(t, r, nodeAt("a", "192.0.2.1"), serial+1)
	}
	expect(t, "another server", "a [192.0.2.1] [] 12; ", at(t, etcd, time.Hour))
}

// Keys that are corrupt do no harm to the others.
func TestCorruptKeysAreIgnored(t *testing.T) {
	e := start(t)
	for key, value := range map[string]string{
		"serials/c": "seven", "registrations/c": "", "leases/c": "for ever",
		"serials/d": "7 8", "registrations/d": "\x00\x01", "other/e": "1", "f": "1", "serials/": "1",
	} {
		if _, err := e.Client.Put(t.Context(), testPrefix+key, value); err != nil {
			t.Fatal(err)
		}
	}
	one, other := two(t, e.URL)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	expect(t, "both", "a [192.0.2.1] [] 7; ", one, other)
	register(t, other, nodeAt("d", "192.0.2.4"), 9)
	register(t, other, nodeAt("c", "192.0.2.3"), 9)
	expect(t, "mended", "a [192.0.2.1] [] 7; c [192.0.2.3] [] 9; d [192.0.2.4] [] 9; ", one, other)
}

// TestKeys compares the keys of two nodes with what earlier versions write.
func TestKeys(t *testing.T) {
	e := start(t)
	r := at(t, Location{URLs: e.URL}, time.Hour)
	reg := nodeAt("par1", "192.0.2.53", "198.51.100.0/24")
	encoded, err := registry.Encode(reg)
	if err != nil {
		t.Fatal(err)
	}
	register(t, r, nodeAt("nyc1", "192.0.2.54"), 1763800000123)
	register(t, r, withdrawal("nyc1", 0), 1763800000124)
	withdrawn := r.Serial()
	reg.Serial = 1763800000125
	if _, err := apply(t, r, reg, 1800*time.Second); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"/dnsb/gslb.example.org./serials/nyc1":       fmt.Sprintf("1763800000124 %d", withdrawn),
		"/dnsb/gslb.example.org./serials/par1":       fmt.Sprintf("1763800000125 %d", r.Serial()),
		"/dnsb/gslb.example.org./registrations/par1": string(encoded),
		"/dnsb/gslb.example.org./leases/par1":        "1800",
	}
	keys := e.Keys("")
	version := keys[testPrefix+versionKey]
	if number, name, _ := strings.Cut(version, " "); number != "1" || len(name) < 16 {
		t.Errorf("Expected the version and a name, got %q", version)
	}
	want[testPrefix+versionKey] = version
	for key, value := range want {
		if got, ok := keys[key]; !ok || got != value {
			t.Errorf("Expected %s with %q, got %q", key, value, got)
		}
	}
	if len(keys) != len(want) {
		t.Errorf("Expected %d keys, got %q", len(want), keys)
	}
}

// Of three members any one may be down, the leader or not.
func TestCluster(t *testing.T) {
	var members []*etcdtest.Server
	var urls, cluster []string
	for _, name := range []string{"one", "two", "three"} {
		e := etcdtest.NewMember(t, name, nil)
		members, urls, cluster = append(members, e), append(urls, e.URL), append(cluster, e.Member)
	}
	for _, e := range members {
		e.Cluster = strings.Join(cluster, ",")
		e.Launch()
	}
	for _, e := range members {
		e.Ready()
	}
	one, other := two(t, urls...)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	expect(t, "both", "a [192.0.2.1] [] 7; ", one, other)
	serial := uint64(7)
	for _, member := range members {
		member.Kill()
		serial++
		etcdtest.Wait(t, "registrations without "+member.Member, func() bool {
			reg := nodeAt("a", "192.0.2.1")
			reg.Serial = serial
			_, _, err := one.Apply(reg, time.Hour)
			return err == nil
		})
		expect(t, "without "+member.Member, fmt.Sprintf("a [192.0.2.1] [] %d; ", serial), one, other)
		member.Start()
	}
}

// Certificates of both sides, and a user with a role for the keys of the plugin.
func TestCertificatesAndUser(t *testing.T) {
	cert, key, pool := testcert.Loopback(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	e := etcdtest.NewMember(t, "one", &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	e.Args = []string{"--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", cert}
	e.Start()
	ctx := t.Context()
	for _, do := range []func() error{
		func() error { _, err := e.Client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := e.Client.UserAdd(ctx, "root", "rootsecret"); return err },
		func() error { _, err := e.Client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := e.Client.RoleAdd(ctx, "dnsb"); return err },
		func() error {
			_, err := e.Client.RoleGrantPermission(ctx, "dnsb", root, clientv3.GetPrefixRangeEnd(root), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := e.Client.UserAdd(ctx, "dnsb", "secret"); return err },
		func() error { _, err := e.Client.UserGrantRole(ctx, "dnsb", "dnsb"); return err },
		func() error { _, err := e.Client.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}

	l := Location{URLs: e.URL, Cert: cert, Key: key, CA: cert, User: "dnsb", Password: "secret"}
	one, other := at(t, l, time.Hour), at(t, l, time.Hour)
	register(t, one, nodeAt("a", "192.0.2.1"), 7)
	register(t, other, nodeAt("b", "192.0.2.2"), 7)
	register(t, other, nodeAt("a", "192.0.2.1"), 8)
	register(t, one, withdrawal("b", 0), 8)
	expect(t, "both", "a [192.0.2.1] [] 8; ", one, other)

	for want, wrong := range map[string]Location{
		"invalid user ID or password": {URLs: e.URL, Cert: cert, Key: key, CA: cert, User: "dnsb", Password: "wrong"},
		"etcd does not answer":        {URLs: e.URL, CA: cert, User: "dnsb", Password: "secret"},
		"unknown authority":           {URLs: e.URL, Cert: cert, Key: key, User: "dnsb", Password: "secret"},
	} {
		r := at(t, wrong, time.Hour)
		etcdtest.Wait(t, "the reason "+want, func() bool {
			_, _, err := r.Apply(nodeAt("a", "192.0.2.1"), time.Hour)
			return err != nil && strings.Contains(err.Error(), want)
		})
	}
}

// Whatever is written to etcd is taken or ignored.
func FuzzKeys(f *testing.F) {
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		s := newStore(Location{}, testZone, nil)
		kv := &mvccpb.KeyValue{Key: []byte(s.prefix + key), Value: value, ModRevision: 7}
		name := s.read(s.nodes, kv, true, 7)
		n := s.nodes[name]
		if (name != "") != (n != nil) || n != nil && n.seen != 7 {
			t.Errorf("Expected a node or nothing, got %q, %+v", name, n)
		}
		if n != nil && n.entry.Serial != 0 && n.parseSerials([]byte(formatSerials(&n.entry))) != nil {
			t.Errorf("Expected the serials to be read as written, got %d %d", n.entry.Serial, n.entry.ZoneSerial)
		}
	})
}

// A serial that is reset at one server is reset at all, also after a restart, and
// no server writes the higher one again.
func TestResetSerialAtAllServers(t *testing.T) {
	e := start(t)
	one, other := two(t, e.URL)
	ahead := uint64(time.Now().Add(4 * time.Minute).UnixMilli()) // #nosec G115 -- positive since 1970
	register(t, one, nodeAt("a", "192.0.2.1"), ahead)
	etcdtest.Wait(t, "the registration at the other server", func() bool { return other.LastSerial("a") == ahead })
	if reset, err := one.ResetSerial("a"); !reset || err != nil {
		t.Fatalf("Expected a reset, got %v, %v", reset, err)
	}
	etcdtest.Wait(t, "the reset at the other server", func() bool { return other.LastSerial("a") < ahead })
	third := at(t, Location{URLs: e.URL}, time.Hour)
	for name, r := range map[string]*registry.Registry{"one": one, "other": other, "third": third} {
		if last := r.LastSerial("a"); last >= ahead || r.State().Records["a"] == nil {
			t.Errorf("%s: Expected the node with a serial of now, got %d", name, last)
		}
	}
	time.Sleep(10 * time.Millisecond)
	register(t, other, nodeAt("a", "192.0.2.2"), uint64(time.Now().UnixMilli())) // #nosec G115 -- positive since 1970
	etcdtest.Wait(t, "the next registration", func() bool {
		rec := one.State().Records["a"]
		return rec != nil && rec.Addresses[0].String() == "192.0.2.2"
	})
}

// A server that is cut off while a serial is reset, and the node registers again,
// does not write what it remembers over that.
func TestResetWhileCutOff(t *testing.T) {
	e := start(t)
	way := etcdtest.NewRelay(t, e)
	one := at(t, Location{URLs: e.URL}, time.Hour)
	other := at(t, Location{URLs: way.URL}, time.Hour)
	ahead := uint64(time.Now().Add(4 * time.Minute).UnixMilli()) // #nosec G115 -- positive since 1970
	register(t, one, nodeAt("a", "192.0.2.1"), ahead)
	expect(t, "both", fmt.Sprintf("a [192.0.2.1] [] %d; ", ahead), one, other)
	way.Cut()
	if reset, err := one.ResetSerial("a"); !reset || err != nil {
		t.Fatalf("Expected a reset, got %v, %v", reset, err)
	}
	time.Sleep(time.Millisecond)
	now := uint64(time.Now().UnixMilli()) // #nosec G115 -- positive since 1970
	register(t, one, nodeAt("a", "192.0.2.2"), now)
	way.Join()
	expect(t, "joined", fmt.Sprintf("a [192.0.2.2] [] %d; ", now), other, one)
	if got := e.Keys(testPrefix)["serials/a"]; !strings.HasPrefix(got, fmt.Sprintf("%d ", now)) || !strings.HasSuffix(got, " 1") {
		t.Errorf("Expected etcd to have the serial %d and one reset, got %q", now, got)
	}
}
