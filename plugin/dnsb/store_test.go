package dnsb

import (
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore/etcdtest"
)

// sharedRegistry returns a registry that is stored in etcd, as another server
// has one.
func sharedRegistry(t *testing.T, e *etcdtest.Server) *registry.Registry {
	t.Helper()
	r := registry.New(testZone)
	if err := r.SetStore(etcdstore.Location{URLs: e.URL}, time.Hour); err != nil {
		t.Fatal(err)
	}
	return r
}

func apply(t *testing.T, r *registry.Registry, reg *registration.Registration, serial uint64) {
	t.Helper()
	reg.Serial = serial
	if _, _, err := r.Apply(reg, time.Hour); err != nil {
		t.Fatalf("Expected %s to register, got: %v", reg.Node, err)
	}
}

// goroutines returns those in which a function runs, by number.
func goroutines(function string) []string {
	var all strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&all, 2)
	var found []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, function) {
			found = append(found, regexp.MustCompile(`goroutine \d+`).FindString(stack))
		}
	}
	return found
}

// The watch of etcd goes on over reloads, and ends with the last instance.
func TestStoreFollowsEtcdOverReloads(t *testing.T) {
	e := etcdtest.New(t)
	e.Start()
	lines := "store etcd " + e.URL
	t.Run("server", func(t *testing.T) {
		s, port := serve(t, lines)
		watching := goroutines("etcdstore.(*store).run(")
		if len(watching) != 1 {
			t.Fatalf("Expected one store, got %v", watching)
		}
		other := sharedRegistry(t, e)
		apply(t, other, nodeAt("par1", "192.0.2.53", "127.0.0.0/8"), 7)
		for range 3 {
			etcdtest.Wait(t, "par1", func() bool { return referral(t, port) == "par1" })
			if err := s.restart(lines); err != nil {
				t.Fatal(err)
			}
			if err := s.restart(lines + "\nprefix 127.0.0.0/8 nobody"); err == nil {
				t.Fatal("Expected a restart with an unknown node to fail")
			}
			if now := goroutines("etcdstore.(*store).run("); len(now) != 2 || now[0] != watching[0] && now[1] != watching[0] {
				t.Fatalf("Expected the store to go on over a reload, got %v after %v", now, watching)
			}
		}
		apply(t, other, &registration.Registration{Zone: testZone, Node: "par1"}, 8)
		etcdtest.Wait(t, "no par1", func() bool { return referral(t, port) != "par1" })
		other.Close()
	})
	etcdtest.Wait(t, "all goroutines to end", func() bool {
		return len(goroutines("etcdstore.(*store)")) == 0 && len(goroutines("watchGrpcStream")) == 0
	})
}

// Until etcd is read, nobody knows what is registered.
func TestServfailUntilEtcdIsRead(t *testing.T) {
	e := etcdtest.New(t)
	e.Start()
	other := sharedRegistry(t, e)
	defer other.Close()
	apply(t, other, nodeAt("a", "192.0.2.1"), 7)
	e.Kill()

	z := newZone(testZone)
	d := startedWith(t, z, "accept k1 a any\naccept k1 new any", nil)
	if err := z.registry.SetStore(etcdstore.Location{URLs: e.URL}, time.Hour); err != nil {
		t.Fatal(err)
	}
	etcdtest.Wait(t, "SERVFAIL", func() bool { return ask(t, d, "10.0.0.1", "svc."+testZone, 1).Rcode == 2 })

	e.Start()
	etcdtest.Wait(t, "a referral", func() bool { return len(ask(t, d, "10.0.0.1", "svc."+testZone, 1).Ns) > 0 })
	if m := ask(t, d, "10.0.0.1", "nobody."+testZone, 1); m.Rcode != 3 {
		t.Errorf("Expected NXDOMAIN once etcd is read, got %v", m)
	}
}

// blocked is a shared store whose writes wait until proceed is closed.
type blocked struct {
	leases
	writing atomic.Bool
	proceed chan struct{}
}

func (b *blocked) Follow(zone string, replica registry.Replica) registry.Store {
	b.leases.Follow(zone, replica)
	return b
}

func (b *blocked) Write(txn *registry.Txn) error {
	b.writing.Store(true)
	<-b.proceed
	b.Merge([]registry.Entry{{Node: txn.Node, Serial: txn.Serial, ZoneSerial: txn.ZoneSerial, Registration: txn.Registration, Lease: txn.Lease}})
	return nil
}

// overtaken is a shared store to which another server writes before the first write
// of this one.
type overtaken struct {
	leases
	other *registry.Entry
}

func (o *overtaken) Follow(zone string, replica registry.Replica) registry.Store {
	o.leases.Follow(zone, replica)
	return o
}

func (o *overtaken) Write(txn *registry.Txn) error {
	if o.other != nil {
		o.Merge([]registry.Entry{*o.other})
		o.other = nil
		return registry.ErrSuperseded
	}
	o.Merge([]registry.Entry{{Node: txn.Node, Serial: txn.Serial, ZoneSerial: txn.ZoneSerial, Registration: txn.Registration, Lease: txn.Lease}})
	return nil
}

// A withdrawal stays when what another server accepted in the same second is
// replayed at this one, which did not know of it before it wrote.
func TestReplayOfWhatAnotherServerAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := started(t, "accept k1 par1 any", nil)
		now := time.Now().Truncate(time.Second)
		second := uint64(now.UnixMilli()) // #nosec G115 -- positive since 1970
		par := nodeAt("par1", "192.0.2.1")
		store := &overtaken{other: &registry.Entry{Node: "par1", Serial: second, Registration: par, Lease: time.Hour, LeaseEnd: now.Add(time.Hour)}}
		if err := d.registry.SetStore(store, time.Hour); err != nil {
			t.Fatal(err)
		}
		withdrawal := &registration.Registration{Zone: testZone, Node: "par1", Serial: second + 3}
		if _, got, err := d.register(withdrawal.Withdrawal(), signature{key: "k1.", time: now, mac: "withdrawal"}); got != registry.Withdrawn {
			t.Fatalf("Expected a withdrawal, got %s, %v", got, err)
		}
		if _, got, err := d.register(sent(t, par), signature{key: "k1.", time: now, mac: "par"}); got != replayed || err == nil {
			t.Errorf("Expected the replay to be refused, got %s, %v", got, err)
		}
		if rec := d.registry.State().Records["par1"]; rec != nil {
			t.Errorf("Expected the node to stay withdrawn, got %+v", rec)
		}
	})
}

// While a node is being forgotten in a slow store, other changes take effect.
func TestForgettingDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := filepath.Join(t.TempDir(), "admin")
		writeMap(t, admin, "forget par1 until "+time.Now().Add(time.Hour).Format(time.RFC3339)+" reason gone\n")
		p := newFakeProber()
		d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\nadmin "+admin, func() prober { return p })
		store := &blocked{proceed: make(chan struct{})}
		if err := d.registry.SetStore(store, time.Hour); err != nil {
			t.Fatal(err)
		}
		for node, addr := range map[string]string{"par1": "192.0.2.1", "nyc1": "192.0.2.2"} {
			store.Merge([]registry.Entry{{Node: node, Serial: 7, Registration: nodeAt(node, addr), Lease: time.Hour, LeaseEnd: time.Now().Add(time.Hour)}})
		}
		p.say("192.0.2.1", silent)
		d.refresh()
		synctest.Wait()
		if !store.writing.Load() {
			t.Fatal("Expected a dead node to be forgotten")
		}
		p.say("192.0.2.2", silent)
		d.refresh()
		if nodes := d.Nodes(); len(nodes) != 2 || nodes[0].State != string(nodeDead) {
			t.Errorf("Expected the other node to be dead, got %+v", nodes)
		}
		close(store.proceed)
		synctest.Wait()
		if nodes := d.Nodes(); len(nodes) != 1 || nodes[0].Node != "nyc1" {
			t.Errorf("Expected par1 to be forgotten, got %+v", nodes)
		}
	})
}
