package dnsb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"pgregory.net/rapid"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore/etcdtest"
)

// newModelEtcd returns an etcd that runs, and that leads again soon after it was
// killed.
func newModelEtcd(t *testing.T) *etcdtest.Server {
	t.Helper()
	e := etcdtest.New(t)
	e.Args = []string{"--heartbeat-interval", "20", "--election-timeout", "100", "--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"}
	e.Start()
	return e
}

// etcdLane runs one sequence after the other over an etcd that lanes share, and
// reaches it on ways of its own.
type etcdLane struct {
	*etcdtest.Server
	number    int
	relays    [2]*etcdtest.Relay // of the servers
	sequences int
}

func newEtcdLane(t *testing.T, e *etcdtest.Server, number int) *etcdLane {
	t.Helper()
	l := &etcdLane{Server: e, number: number}
	for i := range l.relays {
		l.relays[i] = etcdtest.NewRelay(t, e)
	}
	return l
}

// open begins a sequence; in some of them the servers lose etcd.
func (l *etcdLane) open(t *rapid.T) storeUnderTest {
	l.sequences++
	zone := fmt.Sprintf("%d.%d.%s", l.sequences, l.number, testZone)
	return &etcdUnderTest{etcdLane: l, zone: zone, cuts: rapid.IntRange(0, 9).Draw(t, "cuts") == 9}
}

// openToKill begins a sequence in which etcd itself is killed, as no other lane
// may share it.
func (l *etcdLane) openToKill(t *rapid.T) storeUnderTest {
	e := l.open(t).(*etcdUnderTest)
	e.kills = true
	return e
}

// etcdUnderTest is an etcd that two servers share, with keys of its own.
type etcdUnderTest struct {
	*etcdLane
	zone        string // under which the keys are
	cuts, kills bool   // whether there are outages
	bridges     [2]*bridge

	cut  [2]bool
	down bool
}

func (e *etcdUnderTest) prefix() string { return "/dnsb/" + e.zone + "/" }

func (e *etcdUnderTest) servers() int { return len(e.bridges) }

func (e *etcdUnderTest) location(server int) registry.Location {
	e.bridges[server] = newBridge(etcdstore.Location{URLs: e.relays[server].URL, Haste: 5}, e.zone)
	return e.bridges[server]
}

// crash implements the storeUnderTest interface. A store writes nothing when it is
// closed.
func (e *etcdUnderTest) crash(int) {}

func (e *etcdUnderTest) reachable() bool { return !e.down && e.cut == [2]bool{} }

// restore makes all servers reach etcd again.
func (e *etcdUnderTest) restore() {
	if e.down {
		e.Start()
		e.down = false
	}
	for server := range e.cut {
		e.join(server)
	}
}

func (e *etcdUnderTest) join(server int) {
	e.relays[server].Join()
	e.cut[server] = false
}

func (e *etcdUnderTest) close() {
	e.restore()
	_, _ = e.Client.Delete(context.Background(), e.prefix(), clientv3.WithPrefix())
}

// stored is what etcd holds of a node.
type stored struct {
	reg    *registration.Registration
	serial uint64
	// version is the revision of the last write: a renewal may leave all else as it is.
	version int64
	lease   int // in seconds; 0: there is none
}

// read returns what etcd holds.
func (e *etcdUnderTest) read(t *rapid.T) map[string]stored {
	response, err := e.Client.Get(context.Background(), e.prefix(), clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	keys, versions := make(map[string]string), make(map[string]int64)
	for _, kv := range response.Kvs {
		key := strings.TrimPrefix(string(kv.Key), e.prefix())
		keys[key], versions[key] = string(kv.Value), kv.ModRevision
	}
	all := make(map[string]stored)
	for _, node := range modelNodes {
		s := stored{version: versions["serials/"+node]}
		_, _ = fmt.Sscan(keys["leases/"+node], &s.lease)
		_, _ = fmt.Sscan(keys["serials/"+node], &s.serial)
		if encoded := keys["registrations/"+node]; encoded != "" {
			var err error
			if s.reg, err = registry.Decode([]byte(encoded)); err != nil {
				t.Fatalf("Expected etcd to have a registration of %s, got: %v", node, err)
			}
		}
		all[node] = s
	}
	return all
}

// settle implements the storeUnderTest interface: what etcd holds must be what was
// acknowledged, or a later version that may have failed, and all servers must come
// to hold it.
func (e *etcdUnderTest) settle(t *rapid.T, o *model) {
	e.restore()
	begin, pause := time.Now(), 100*time.Microsecond
	for {
		all := e.read(t)
		waiting := ""
		for _, s := range o.servers {
			o.warm(s)
			if node := e.differs(o, s, all); node != "" {
				waiting = fmt.Sprintf("server %d has %s with %+v and the last serial %d, etcd with %+v", s.number, node,
					s.z.registry.State().Records[node], s.z.registry.LastSerial(node), all[node])
			}
		}
		if waiting == "" {
			e.compare(t, o, all)
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("No agreement after %s: %s", patience, waiting)
		}
		pause = min(2*pause, 20*time.Millisecond)
		for _, s := range o.servers {
			s.do(func() {
				e.bridges[s.number].serve(func() { time.Sleep(pause) })
				synctest.Wait()
			})
		}
	}
}

// differs returns a node of which a server does not hold what etcd does.
func (e *etcdUnderTest) differs(o *model, s *modelServer, all map[string]stored) string {
	st, versions := s.z.registry.State(), make(map[string]int64)
	s.do(func() {
		for node := range all {
			versions[node] = e.bridges[s.number].store.Version(node)
		}
	})
	for node, in := range all {
		rec := st.Records[node]
		stale := in.reg != nil && in.lease == 0 && !o.clock(s).Before(s.graceEnd)
		if !o.holds(rec, in.reg) || s.z.registry.LastSerial(node) != in.serial || versions[node] != in.version || rec != nil && rec.Stale != stale {
			return node
		}
	}
	return ""
}

// compare compares what etcd holds with the model.
func (e *etcdUnderTest) compare(t *rapid.T, o *model, all map[string]stored) {
	for node, in := range all {
		found := false
		for _, v := range o.states[node][o.certain(node):] {
			found = found || sameState(v.reg, in.reg)
		}
		if !found {
			t.Fatalf("etcd has %s with %+v, expected one of %s", node, in.reg, o.history(node, o.certain(node)))
		}
		// The lease of a reset serial may be a second, and end while the sequence runs.
		o.ended[node] = in.reg != nil && time.Duration(in.lease)*time.Second < 5*time.Minute
	}
}

func (e *etcdUnderTest) actions(o *model) map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){
		"end lease":    func(t *rapid.T) { e.endLease(t, o) },
		"slow":         func(t *rapid.T) { e.slow(t, o, false) },
		"crash within": func(t *rapid.T) { e.slow(t, o, true) },
	}
	if e.cuts {
		all["cut"] = func(t *rapid.T) {
			s := o.drawServer(t)
			e.relays[s.number].Cut()
			e.cut[s.number] = true
		}
		all["join"] = func(t *rapid.T) { e.join(o.drawServer(t).number) }
		all["lose answer"] = func(t *rapid.T) { e.loseAnswer(t, o) }
	}
	if e.kills {
		all["kill"] = func(t *rapid.T) {
			if e.down {
				t.Skip()
			}
			e.Kill()
			e.down = true
		}
		all["start"] = func(t *rapid.T) {
			if !e.down {
				t.Skip()
			}
			e.restore()
		}
		all["lose"] = func(t *rapid.T) { e.lose(t, o) }
	}
	return all
}

// loseAnswer has a server lose etcd when that has stored what the server writes,
// and before the answer.
func (e *etcdUnderTest) loseAnswer(t *rapid.T, o *model) {
	s := o.drawServer(t)
	key, r := o.drawChange(t)
	if e.down || e.cut[s.number] {
		t.Skip()
	}
	msg := o.message(key, r, o.drawSerial(t, s, r.Node))
	version := func() (int64, error) {
		response, err := e.Client.Get(context.Background(), e.prefix()+"serials/"+r.Node)
		if err != nil || len(response.Kvs) == 0 {
			return 0, err
		}
		return response.Kvs[0].ModRevision, nil
	}
	before, err := version()
	if err != nil {
		t.Fatal(err)
	}
	relay := e.relays[s.number]
	relay.CutWhen(func() bool {
		now, err := version()
		return err == nil && now != before
	})
	o.send(t, s, msg)
	relay.Cut() // it may have been refused
	e.cut[s.number] = true
}

// lose kills etcd, which has lost all when it starts again. What all servers know
// must survive.
func (e *etcdUnderTest) lose(t *rapid.T, o *model) {
	o.quietIfReachable(t)
	e.Kill()
	e.down = true
	for _, s := range o.servers {
		text := ""
		for begin := time.Now(); !strings.Contains(text, "etcd does not answer: "); { // so that it reads all again
			if time.Since(begin) > patience {
				t.Fatalf("Server %d has not noticed after %s that etcd is down: %s", s.number, patience, text)
			}
			s.do(func() { text = e.bridges[s.number].store.Write(&registry.Txn{Node: "a"}).Error() })
		}
	}
	e.Lose()
	o.quiet(t)
}

// endLease ends the lease of a node, as etcd does when its time is over.
func (e *etcdUnderTest) endLease(t *rapid.T, o *model) {
	if e.down {
		t.Skip()
	}
	node := drawNode(t)
	key, err := e.Client.Get(context.Background(), e.prefix()+"leases/"+node)
	if err != nil {
		t.Fatal(err)
	}
	if len(key.Kvs) == 0 {
		t.Skip()
	}
	if _, err := e.Client.Revoke(context.Background(), clientv3.LeaseID(key.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	o.ended[node] = true
}

// slow has a server write while etcd takes its time. Meanwhile queries are
// answered as before, and what changes besides takes effect. Then etcd answers, or
// the server crashes before it does.
func (e *etcdUnderTest) slow(t *rapid.T, o *model, crash bool) {
	o.quietIfReachable(t) // so that nothing else changes what it answers
	s := o.drawServer(t)
	key, r := o.drawChange(t)
	b := e.bridges[s.number]
	msg := o.message(key, r, o.drawSerial(t, s, r.Node))
	write := &slowWrite{begun: make(chan struct{}), proceed: make(chan struct{})}
	proceed := sync.OnceFunc(func() { close(write.proceed) })
	defer proceed()
	finished := make(chan struct{})
	b.slow = write
	var before, during view
	var result modelResult
	s.do(func() {
		before = s.view()
		go func() {
			result = s.register(msg)
			close(finished)
		}()
	})
	select {
	case <-finished: // it was refused
	case <-write.begun:
		s.do(func() { during = s.view() })
		for question, answer := range before.answers {
			if during.answers[question] != answer {
				t.Fatalf("While etcd is slow: %s is referred to %q, before to %q", question, during.answers[question], answer)
			}
		}
		s.do(func() {
			s.prober.say(staticNode.Addresses[0].String(), silent)
			s.d.refresh()
			during = s.view()
		})
		o.checkAnswers(t, s, during)
		s.do(func() {
			s.prober.say(staticNode.Addresses[0].String(), notProbed)
			s.d.refresh()
		})
	}
	if crash {
		write.lost = rapid.Bool().Draw(t, "lost")
		b.dead.Store(true)
	}
	proceed()
	<-finished
	b.slow = nil
	s.do(synctest.Wait)
	if !crash {
		o.took(t, s, msg, result)
		return
	}
	if o.config.permits(msg.sig.key, msg.reg) {
		reg := msg.reg
		if reg.Addresses == nil {
			reg = nil
		}
		o.states[r.Node] = append(o.states[r.Node], nodeVersion{reg, false})
	}
	s.end()
	s.ahead = rapid.SampledFrom(skews).Draw(t, "ahead")
	o.start(s)
}

// bridge is a location in etcd for a server in a bubble. The store itself runs
// outside, in real time, and calls the registry only while a function of the
// bubble waits for it. So the test says when a server learns what others wrote.
type bridge struct {
	etcdstore.Location
	name string // under which the zone is stored

	waiting sync.Mutex // of functions of the bubble, one at a time
	work    chan func()
	done    chan struct{}
	calls   chan func() // of the registry

	store *bridgedStore
	slow  *slowWrite  // nil: etcd is fast
	dead  atomic.Bool // the process has ended: what comes from etcd changes nothing
}

// slowWrite holds one write back.
type slowWrite struct {
	once           sync.Once
	begun, proceed chan struct{}
	lost           bool // the write does not get to etcd
}

var _ registry.Shared = (*bridge)(nil)

func newBridge(l etcdstore.Location, name string) *bridge {
	b := &bridge{Location: l, name: name, work: make(chan func()), done: make(chan struct{}), calls: make(chan func())}
	go func() {
		for f := range b.work {
			f()
			b.done <- struct{}{}
		}
	}()
	return b
}

// serve runs f outside the bubble, and calls to the registry meanwhile.
func (b *bridge) serve(f func()) {
	b.waiting.Lock()
	defer b.waiting.Unlock()
	b.work <- f
	for {
		select {
		case call := <-b.calls:
			call()
		case <-b.done:
			return
		}
	}
}

// Follow implements the registry.Shared interface.
func (b *bridge) Follow(_ string, replica registry.Replica) registry.Store {
	b.store = &bridgedStore{bridge: b}
	b.serve(func() { b.store.Store = b.Location.Follow(b.name, bridgedReplica{b, replica}) })
	return b.store
}

// bridgedStore is the store as the registry sees it.
type bridgedStore struct {
	registry.Store
	bridge *bridge
}

func (s *bridgedStore) Version(node string) (version int64) {
	s.bridge.serve(func() { version = s.Store.Version(node) })
	return version
}

func (s *bridgedStore) Write(txn *registry.Txn) (err error) {
	s.bridge.serve(func() {
		if slow := s.bridge.slow; slow != nil && slow.hold() {
			err = errors.New("the process ended")
			return
		}
		err = s.Store.Write(txn)
	})
	return err
}

// hold holds the first write back, and reports whether it is lost.
func (w *slowWrite) hold() bool {
	w.once.Do(func() { close(w.begun) })
	<-w.proceed
	return w.lost
}

func (s *bridgedStore) Close() (err error) {
	s.bridge.serve(func() { err = s.Store.Close() })
	close(s.bridge.work)
	return err
}

// bridgedReplica is the registry as the store sees it.
type bridgedReplica struct {
	bridge *bridge
	registry.Replica
}

// call has f called in the bubble.
func (r bridgedReplica) call(f func()) {
	called := make(chan struct{})
	r.bridge.calls <- func() {
		f()
		close(called)
	}
	<-called
}

// tell has f called in the bubble, unless the process has ended.
func (r bridgedReplica) tell(f func()) {
	r.call(func() {
		if !r.bridge.dead.Load() {
			f()
		}
	})
}

func (r bridgedReplica) Replace(all []registry.Entry) {
	left := timesLeft(all)
	r.tell(func() { r.Replica.Replace(atClock(all, left)) })
}

func (r bridgedReplica) Merge(changed []registry.Entry) {
	left := timesLeft(changed)
	r.tell(func() { r.Replica.Merge(atClock(changed, left)) })
}

func (r bridgedReplica) NewerThan(stored []registry.Entry) (nodes []string) {
	r.call(func() { nodes = r.Replica.NewerThan(stored) })
	return nodes
}

func (r bridgedReplica) Restate(node string) (txn *registry.Txn) {
	r.call(func() { txn = r.Replica.Restate(node) })
	return txn
}

// timesLeft returns how long the leases of entries still are, in real time.
func timesLeft(entries []registry.Entry) []time.Duration {
	left := make([]time.Duration, len(entries))
	for i, e := range entries {
		left[i] = time.Until(e.LeaseEnd)
	}
	return left
}

// atClock returns entries whose leases are still so long by the clock of a bubble.
func atClock(entries []registry.Entry, left []time.Duration) []registry.Entry {
	entries = slices.Clone(entries)
	for i := range entries {
		entries[i].LeaseEnd = time.Now().Add(left[i])
	}
	return entries
}
