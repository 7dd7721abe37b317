package dnsb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// etcdServer is a real etcd, which ends with the test.
type etcdServer struct {
	t       *testing.T
	name    string
	dir     string
	url     string
	peer    string
	cluster string   // members
	args    []string // more
	cmd     *exec.Cmd
	client  *clientv3.Client
}

// newEtcdServer prepares an etcd on ports of its own.
func newEtcdServer(t *testing.T) *etcdServer {
	t.Helper()
	return newEtcdMember(t, "one", "http", nil)
}

func newEtcdMember(t *testing.T, name, scheme string, conf *tls.Config) *etcdServer {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("etcd is not installed")
	}
	e := &etcdServer{t: t, name: name, dir: t.TempDir(), url: fmt.Sprintf("%s://127.0.0.1:%d", scheme, freePort(t)), peer: fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}
	e.cluster = name + "=" + e.peer
	var err error
	e.client, err = clientv3.New(clientv3.Config{Endpoints: []string{e.url}, TLS: conf, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.client.Close(); e.kill() })
	return e
}

func (e *etcdServer) start() {
	e.t.Helper()
	e.launch()
	e.ready()
}

func (e *etcdServer) launch() {
	e.t.Helper()
	e.cmd = exec.Command("etcd", "--data-dir", e.dir, "--name", e.name, "--log-level", "error",
		"--listen-client-urls", e.url, "--advertise-client-urls", e.url,
		"--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer, "--initial-cluster", e.cluster) // #nosec G204 -- a test
	e.cmd.Args = append(e.cmd.Args, e.args...)
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
}

// ready waits until etcd answers.
func (e *etcdServer) ready() {
	e.t.Helper()
	e.wait("etcd to start", 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := e.client.Get(ctx, "any")
		return err == nil
	})
}

// kill ends etcd as a loss of power would.
func (e *etcdServer) kill() {
	if e.cmd != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
		e.cmd = nil
	}
}

func (e *etcdServer) wait(what string, limit time.Duration, ok func() bool) {
	e.t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > limit {
			e.t.Fatalf("Waited %s for %s", limit, what)
		}
	}
}

// keys returns what is stored, by key.
func (e *etcdServer) keys() map[string]string {
	e.t.Helper()
	response, err := e.client.Get(e.t.Context(), etcdRoot, clientv3.WithPrefix())
	if err != nil {
		e.t.Fatal(err)
	}
	all := make(map[string]string)
	for _, kv := range response.Kvs {
		all[strings.TrimPrefix(string(kv.Key), etcdRoot+testZone+"/")] = string(kv.Value)
	}
	return all
}

// registry returns one that keeps what is registered in etcd.
func (e *etcdServer) registry(urls ...string) *registry {
	e.t.Helper()
	if len(urls) == 0 {
		urls = []string{e.url}
	}
	r := newRegistry()
	e.t.Cleanup(r.close)
	e.use(r, storage{urls: strings.Join(urls, " ")})
	return r
}

func (e *etcdServer) use(r *registry, at storage) {
	e.t.Helper()
	if err := r.use(at, testZone, time.Hour); err != nil {
		e.t.Fatal(err)
	}
}

// shows describes what is registered: nodes with their addresses, serials and
// whether they are stale.
func shows(r *registry) string {
	st := r.state()
	var b strings.Builder
	for _, node := range []string{"a", "b", "c", "d"} {
		if rec := st.records[node]; rec != nil {
			fmt.Fprintf(&b, "%s %v %v %d", node, rec.Addresses, rec.Prefixes, rec.serial)
			if rec.stale {
				b.WriteString(" stale")
			}
			b.WriteString("; ")
		}
	}
	return b.String()
}

// same waits until all show the same of what want says.
func (e *etcdServer) same(step string, limit time.Duration, want string, all ...*registry) {
	e.t.Helper()
	begin := time.Now()
	for _, r := range all {
		for shows(r) != want {
			if time.Since(begin) > limit {
				e.t.Fatalf("%s: Expected %q within %s, got %q", step, want, limit, shows(r))
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func serialsOf(all ...*registry) []uint32 {
	serials := make([]uint32, len(all))
	for i, r := range all {
		serials[i] = r.state().serial
	}
	return serials
}

// What is done at one of two servers is seen at the other within a second.
func TestEtcd(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	one, two := e.registry(), e.registry()
	now := uint64(time.Now().UnixMilli())

	steps := []struct {
		name   string
		at     *registry
		change *registration.Registration
		serial uint64
		want   outcome
		shows  string
	}{
		{"registration", one, nodeAt("a", "192.0.2.1", "10.0.0.0/8", "!10.1.0.0/16"), now, added, "a [192.0.2.1] [10.0.0.0/8 !10.1.0.0/16] 0; "},
		{"registration of another node", two, nodeAt("b", "192.0.2.2"), now + 1, added, "a [192.0.2.1] [10.0.0.0/8 !10.1.0.0/16] 0; b [192.0.2.2] [] 1; "},
		{"change at the other server", two, nodeAt("a", "192.0.2.3", "11.0.0.0/8"), now + 2, changed, "a [192.0.2.3] [11.0.0.0/8] 2; b [192.0.2.2] [] 1; "},
		{"refresh", one, nodeAt("a", "192.0.2.3", "11.0.0.0/8"), now + 3, refreshed, "a [192.0.2.3] [11.0.0.0/8] 3; b [192.0.2.2] [] 1; "},
		{"the same again at the other server", two, nodeAt("a", "192.0.2.3", "11.0.0.0/8"), now + 3, refreshed, "a [192.0.2.3] [11.0.0.0/8] 3; b [192.0.2.2] [] 1; "},
		{"older", two, nodeAt("a", "192.0.2.4"), now + 2, late, "a [192.0.2.3] [11.0.0.0/8] 3; b [192.0.2.2] [] 1; "},
		{"withdrawal", two, &registration.Registration{Zone: testZone, Node: "a"}, now + 4, withdrawn, "b [192.0.2.2] [] 1; "},
		{"older than the withdrawal", one, nodeAt("a", "192.0.2.4"), now + 3, late, "b [192.0.2.2] [] 1; "},
		{"withdrawal again", one, &registration.Registration{Zone: testZone, Node: "a"}, now + 4, withdrawn, "b [192.0.2.2] [] 1; "},
		{"back", one, nodeAt("a", "192.0.2.4"), now + 5, added, "a [192.0.2.4] [] 5; b [192.0.2.2] [] 1; "},
	}
	last := serialsOf(one, two)
	for _, step := range steps {
		step.change.Serial = step.serial
		if got, err := step.at.apply(step.change, time.Minute); got != step.want || (err != nil) != (got == late) {
			t.Fatalf("%s: Expected %s, got %s, %v", step.name, step.want, got, err)
		}
		want := step.shows
		for i := range uint64(10) {
			want = strings.ReplaceAll(want, fmt.Sprintf("] %d; ", i), fmt.Sprintf("] %d; ", now+i))
		}
		e.same(step.name, 0, want, step.at) // who has the answer sees it
		e.same(step.name, time.Second, want, one, two)
		serials := serialsOf(one, two)
		for i := range serials {
			if serials[i] < last[i] || step.want == changed && serials[i] == last[i] {
				t.Errorf("%s: Expected the serials of the zone to grow from %v, got %v", step.name, last, serials)
			}
		}
		last = serials
	}

	if err := one.forget("a"); err != nil {
		t.Fatal(err)
	}
	e.same("forgotten", time.Second, fmt.Sprintf("b [192.0.2.2] [] %d; ", now+1), one, two)
	r := nodeAt("a", "192.0.2.4")
	r.Serial = now + 4
	if got, _ := two.apply(r, time.Minute); got != late {
		t.Errorf("Expected the highest serial to be known of a node that is forgotten, got %s", got)
	}

	// The next process knows it all.
	for _, r := range []*registry{one, two} {
		if err := r.use(storage{}, testZone, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	three := e.registry()
	e.same("after a restart", 0, fmt.Sprintf("b [192.0.2.2] [] %d; ", now+1), three)
	if got, _ := three.apply(r, time.Minute); got != late {
		t.Errorf("Expected the highest serial to survive a restart, got %s", got)
	}
	if st := three.state(); st.serial < last[0] || st.serial < last[1] {
		t.Errorf("Expected the serial of the zone to grow from %v over a restart, got %d", last, st.serial)
	}
	if got := three.coldUntil(time.Hour); !got.Before(time.Now()) {
		t.Errorf("Expected nobody to be waited for, got %s", got)
	}
}

// Of what two servers get at once the highest serial wins, at both.
func TestEtcdConcurrent(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	servers := []*registry{e.registry(), e.registry()}
	now := uint64(time.Now().UnixMilli())
	const rounds = 40
	var wg sync.WaitGroup
	for i, r := range servers {
		wg.Go(func() {
			for n := range uint64(rounds) {
				for _, node := range []string{"a", "b"} {
					reg := nodeAt(node, fmt.Sprintf("192.0.2.%d", 2*n+uint64(i)+1))
					reg.Serial = now + 2*n + uint64(i)
					if got, err := r.apply(reg, time.Minute); err != nil && got != late {
						t.Errorf("Expected a change or a late one, got %s, %v", got, err)
					}
				}
			}
		})
	}
	wg.Wait()
	highest := now + 2*rounds - 1
	e.same("after all", time.Second, fmt.Sprintf("a [192.0.2.%d] [] %d; b [192.0.2.%[1]d] [] %[2]d; ", 2*rounds, highest), servers...)
}

// What was planned before another server changed the node is planned again, by what
// that one wrote.
func TestEtcdSuperseded(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	one, two := e.registry(), e.registry()
	put(t, one, nodeAt("a", "192.0.2.1"), 7)
	e.same("both", time.Second, "a [192.0.2.1] [] 7; ", one, two)
	for _, tc := range []struct {
		name      string
		back      uint64
		meanwhile func() error
	}{
		{"withdrawn", 101, func() error {
			_, err := one.apply(&registration.Registration{Zone: testZone, Node: "a", Serial: 100}, time.Hour)
			return err
		}},
		{"forgotten", 103, func() error { return one.forget("a") }},
	} {
		reg := nodeAt("a", "192.0.2.1")
		reg.Serial = 102
		c, _, err := two.plan(reg, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := tc.meanwhile(); err != nil {
			t.Fatal(err)
		}
		if err := two.commit(c); !errors.Is(err, errSuperseded) {
			t.Errorf("%s: Expected the change to be superseded, got %v", tc.name, err)
		}
		e.same(tc.name, 0, "", two)
		e.same(tc.name, time.Second, "", one)
		put(t, two, nodeAt("a", "192.0.2.1"), tc.back)
		e.same(tc.name, time.Second, fmt.Sprintf("a [192.0.2.1] [] %d; ", tc.back), one, two)
	}
}

// A lease ends in etcd, for all servers at once. It makes the node stale.
func TestEtcdLease(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	one, two := e.registry(), e.registry()
	one.grace, two.grace = time.Time{}, time.Time{}
	put(t, one, nodeAt("b", "192.0.2.2"), 7)
	reg := nodeAt("a", "192.0.2.1")
	reg.Serial = 7
	if _, err := one.apply(reg, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	reg.Serial = 8
	if _, err := two.apply(reg, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	e.same("alive", time.Second, "a [192.0.2.1] [] 8; b [192.0.2.2] [] 7; ", one, two)
	before := serialsOf(one, two)
	e.same("stale", 8*time.Second, "a [192.0.2.1] [] 8 stale; b [192.0.2.2] [] 7; ", one, two)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("Expected a lease of 2s, got %s", took)
	}
	for i, serial := range serialsOf(one, two) {
		if serial <= before[i] {
			t.Errorf("Expected the serial of the zone to grow from %v, got %v", before, serialsOf(one, two))
		}
	}

	// After a start a node has the longest lease to come back.
	three := e.registry()
	e.same("started", 0, "a [192.0.2.1] [] 8; b [192.0.2.2] [] 7; ", three)
	if left := time.Until(three.state().records["a"].ends); left < 59*time.Minute || left > time.Hour {
		t.Errorf("Expected a longest lease, got %s", left)
	}
	put(t, two, reg, 9)
	e.same("back", time.Second, "a [192.0.2.1] [] 9; b [192.0.2.2] [] 7; ", one, two, three)
}

// While etcd is away the map stays and registrations fail, soon; then all go on.
func TestEtcdAway(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	one, two := e.registry(), e.registry()
	put(t, one, nodeAt("a", "192.0.2.1"), 7)
	put(t, two, nodeAt("b", "192.0.2.2"), 7)
	all := "a [192.0.2.1] [] 7; b [192.0.2.2] [] 7; "
	e.same("both", time.Second, all, one, two)

	e.kill()
	for _, r := range []*registry{one, two, one} {
		began := time.Now()
		reg := nodeAt("a", "192.0.2.9")
		reg.Serial = 8
		got, err := r.apply(reg, time.Hour)
		if got != failed || err == nil || !strings.Contains(err.Error(), "the store failed: etcd") {
			t.Errorf("Expected the store to fail, got %s, %v", got, err)
		}
		if took := time.Since(began); took > etcdTime+time.Second {
			t.Errorf("Expected an answer within %s, got one after %s", etcdTime, took)
		}
		e.same("away", 0, all, r)
	}
	e.wait("the metric", 10*time.Second, func() bool { return testutil.ToFloat64(storeUp.WithLabelValues(testZone)) == 0 })
	began := time.Now()
	if got, _ := one.apply(nodeAt("a", "192.0.2.9"), time.Hour); got != failed || time.Since(began) > 100*time.Millisecond {
		t.Errorf("Expected a failure at once when etcd is known to be away, got %s after %s", got, time.Since(began))
	}

	// One that starts now serves nothing, and says that it does not know.
	three := newRegistry()
	d := startedWith(t, three, "accept k1 a any\naccept k1 b any", nil)
	e.use(three, storage{urls: e.url})
	e.wait("SERVFAIL", time.Second, func() bool { return ask(t, d, "10.0.0.1", "svc."+testZone, 1).Rcode == 2 })
	if until := three.coldUntil(time.Hour); time.Until(until) < 24*time.Hour {
		t.Errorf("Expected SERVFAIL until etcd is read, got until %s", until)
	}

	e.start()
	e.same("back", 10*time.Second, all, one, two, three)
	e.wait("a referral", time.Second, func() bool { return len(ask(t, d, "10.0.0.1", "svc."+testZone, 1).Ns) > 0 })
	e.wait("registrations", 10*time.Second, func() bool {
		reg := nodeAt("a", "192.0.2.9")
		reg.Serial = 8
		_, err := one.apply(reg, time.Hour)
		return err == nil
	})
	e.same("registered", time.Second, "a [192.0.2.9] [] 8; b [192.0.2.2] [] 7; ", two, three)
	if m := ask(t, d, "10.0.0.1", "nobody."+testZone, 1); m.Rcode != 3 {
		t.Errorf("Expected NXDOMAIN once etcd is read, got %v", m)
	}
}

// line is a way to etcd that can be cut.
type line struct {
	t  *testing.T
	to string
	at string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
}

func newLine(e *etcdServer) *line {
	l := &line{t: e.t, to: strings.TrimPrefix(e.url, "http://"), at: fmt.Sprintf("127.0.0.1:%d", freePort(e.t))}
	l.join()
	e.t.Cleanup(l.cut)
	return l
}

func (l *line) join() {
	l.t.Helper()
	listener, err := net.Listen("tcp", l.at)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.l = listener
	l.mu.Unlock()
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", l.to)
			if err != nil {
				_ = near.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, near, far)
			l.mu.Unlock()
			go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
			go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
		}
	}()
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.l.Close()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// A server that was cut off catches up, also when etcd has dropped the history,
// and whether it was long or short.
func TestEtcdCompacted(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	way := newLine(e)
	one, two := e.registry(), e.registry("http://"+way.at)
	put(t, one, nodeAt("a", "192.0.2.1"), 7)
	put(t, one, nodeAt("b", "192.0.2.2"), 7)
	e.same("both", time.Second, "a [192.0.2.1] [] 7; b [192.0.2.2] [] 7; ", one, two)

	serial := uint64(8)
	for _, away := range []time.Duration{100 * time.Millisecond, 5 * time.Second} {
		way.cut()
		for range 20 {
			serial++
			put(t, one, nodeAt("a", "192.0.2.1"), serial)
		}
		put(t, one, &registration.Registration{Zone: testZone, Node: "b"}, serial)
		put(t, one, nodeAt("c", "192.0.2.3"), serial)
		response, err := e.client.Get(t.Context(), "any")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.client.Compact(t.Context(), response.Header.Revision); err != nil {
			t.Fatal(err)
		}
		time.Sleep(away)
		way.join()
		e.same("caught up", 15*time.Second, fmt.Sprintf("a [192.0.2.1] [] %d; c [192.0.2.3] [] %[1]d; ", serial), one, two)
		put(t, one, nodeAt("d", "192.0.2.4"), serial)
		e.same("goes on", time.Second, fmt.Sprintf("a [192.0.2.1] [] %d; c [192.0.2.3] [] %[1]d; d [192.0.2.4] [] %[1]d; ", serial), one, two)
		put(t, one, &registration.Registration{Zone: testZone, Node: "d"}, serial+1)
		put(t, one, nodeAt("b", "192.0.2.2"), serial+1)
		put(t, one, &registration.Registration{Zone: testZone, Node: "c"}, serial+1)
		serial++
		e.wait("b to be back", time.Second, func() bool { return two.state().records["b"] != nil && two.state().records["c"] == nil })
	}
}

// An etcd that comes back empty is filled from memory.
func TestEtcdLosesAll(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	one, two := e.registry(), e.registry()
	put(t, one, nodeAt("a", "192.0.2.1", "10.0.0.0/8"), 7)
	put(t, two, nodeAt("b", "192.0.2.2"), 7)
	put(t, two, &registration.Registration{Zone: testZone, Node: "b"}, 9)
	e.same("both", time.Second, "a [192.0.2.1] [10.0.0.0/8] 7; ", one, two)

	e.kill()
	e.dir = t.TempDir()
	e.start()
	e.wait("etcd to be filled", 15*time.Second, func() bool { return len(e.keys()) == 4 })
	keys := e.keys()
	if !strings.HasPrefix(keys[markKey+"a"], "7 ") || !strings.HasPrefix(keys[markKey+"b"], "9 ") || keys[leaseKey+"a"] != "3600" || keys[registrationKey+"a"] == "" {
		t.Errorf("Expected both nodes, got %q", keys)
	}
	e.same("goes on", time.Second, "a [192.0.2.1] [10.0.0.0/8] 7; ", one, two)
	e.wait("registrations", 5*time.Second, func() bool {
		reg := nodeAt("c", "192.0.2.3")
		reg.Serial = 8
		_, err := one.apply(reg, time.Hour)
		return err == nil
	})
	e.same("goes on", time.Second, "a [192.0.2.1] [10.0.0.0/8] 7; c [192.0.2.3] [] 8; ", one, two)
}

// A reload may move what is registered from one store to another.
func TestEtcdMoves(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	db := storage{db: t.TempDir() + "/map.db"}
	r := newRegistry()
	t.Cleanup(r.close)
	put(t, r, nodeAt("a", "192.0.2.1"), 7)
	for i, at := range []storage{{urls: e.url}, db, {urls: e.url}, {}, {urls: e.url}} {
		e.use(r, at)
		e.same("moved", 0, "a [192.0.2.1] [] "+fmt.Sprint(7+i)+"; ", r)
		e.wait("the record to be of the store", time.Second, func() bool { return r.state().records["a"].elsewhere == at.isShared() })
		if got := time.Until(r.state().records["a"].ends); got < 59*time.Minute || got > time.Hour+time.Second {
			t.Errorf("Expected a lease of an hour in %s, got %s", at, got)
		}
		put(t, r, nodeAt("a", "192.0.2.1"), uint64(8+i))
	}
	e.same("another", 0, "a [192.0.2.1] [] 12; ", e.registry())
}

// Keys that somebody else has damaged do no harm to the others.
func TestEtcdDamaged(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	for key, value := range map[string]string{
		markKey + "c": "seven", registrationKey + "c": "", leaseKey + "c": "for ever",
		markKey + "d": "7 8", registrationKey + "d": "\x00\x01", "other/e": "1", "f": "1", markKey: "1",
	} {
		if _, err := e.client.Put(t.Context(), etcdRoot+testZone+"/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	one, two := e.registry(), e.registry()
	put(t, one, nodeAt("a", "192.0.2.1"), 7)
	e.same("both", time.Second, "a [192.0.2.1] [] 7; ", one, two)
	put(t, two, nodeAt("d", "192.0.2.4"), 9)
	put(t, two, nodeAt("c", "192.0.2.3"), 9)
	e.same("mended", time.Second, "a [192.0.2.1] [] 7; c [192.0.2.3] [] 9; d [192.0.2.4] [] 9; ", one, two)
}

// Of three members any one may be away, the leader or not.
func TestEtcdCluster(t *testing.T) {
	var members []*etcdServer
	var urls, cluster []string
	for _, name := range []string{"one", "two", "three"} {
		e := newEtcdMember(t, name, "http", nil)
		members, urls, cluster = append(members, e), append(urls, e.url), append(cluster, e.cluster)
	}
	for _, e := range members {
		e.cluster = strings.Join(cluster, ",")
		e.launch()
	}
	for _, e := range members {
		e.ready()
	}
	e := members[0]
	one, two := e.registry(urls...), e.registry(urls...)
	put(t, one, nodeAt("a", "192.0.2.1"), 7)
	e.same("both", time.Second, "a [192.0.2.1] [] 7; ", one, two)
	serial := uint64(7)
	for _, member := range members {
		member.kill()
		serial++
		e.wait("registrations without member "+member.name, 15*time.Second, func() bool {
			reg := nodeAt("a", "192.0.2.1")
			reg.Serial = serial
			_, err := one.apply(reg, time.Hour)
			return err == nil
		})
		e.same("without member "+member.name, 5*time.Second, fmt.Sprintf("a [192.0.2.1] [] %d; ", serial), one, two)
		member.start()
	}
}

// Certificates of both sides, and a user with a role for the keys of the plugin.
func TestEtcdSecure(t *testing.T) {
	cert, key, pool := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	e := newEtcdMember(t, "one", "https", &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	e.args = []string{"--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", cert}
	e.start()
	ctx := t.Context()
	prefix := clientv3.GetPrefixRangeEnd(etcdRoot)
	for _, do := range []func() error{
		func() error { _, err := e.client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := e.client.UserAdd(ctx, "root", "rootsecret"); return err },
		func() error { _, err := e.client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := e.client.RoleAdd(ctx, "dnsb"); return err },
		func() error {
			_, err := e.client.RoleGrantPermission(ctx, "dnsb", etcdRoot, prefix, clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := e.client.UserAdd(ctx, "dnsb", "secret"); return err },
		func() error { _, err := e.client.UserGrantRole(ctx, "dnsb", "dnsb"); return err },
		func() error { _, err := e.client.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}

	at := storage{urls: e.url, cert: cert, key: key, ca: cert, user: "dnsb", password: "secret"}
	one, two := newRegistry(), newRegistry()
	for _, r := range []*registry{one, two} {
		t.Cleanup(r.close)
		e.use(r, at)
	}
	put(t, one, nodeAt("a", "192.0.2.1"), 7)
	put(t, two, nodeAt("b", "192.0.2.2"), 7)
	put(t, two, nodeAt("a", "192.0.2.1"), 8)
	put(t, one, &registration.Registration{Zone: testZone, Node: "b"}, 8)
	e.same("both", time.Second, "a [192.0.2.1] [] 8; ", one, two)

	for want, wrong := range map[string]storage{
		"invalid user ID or password": {urls: e.url, cert: cert, key: key, ca: cert, user: "dnsb", password: "wrong"},
		"etcd does not answer":        {urls: e.url, ca: cert, user: "dnsb", password: "secret"},
		"unknown authority":           {urls: e.url, cert: cert, key: key, user: "dnsb", password: "secret"},
	} {
		r := newRegistry()
		t.Cleanup(r.close)
		e.use(r, wrong)
		e.wait("the reason "+want, 10*time.Second, func() bool {
			_, err := r.apply(nodeAt("a", "192.0.2.1"), time.Hour)
			return err != nil && strings.Contains(err.Error(), want)
		})
	}
}

// The watch goes on over reloads, and ends with the last instance.
func TestEtcdReload(t *testing.T) {
	e := newEtcdServer(t)
	e.start()
	lines := "store etcd " + e.url
	t.Run("server", func(t *testing.T) {
		s, port := serve(t, lines)
		kept := registries.Values()[0].store
		other := e.registry()
		put(t, other, nodeAt("par1", "192.0.2.53", "127.0.0.0/8"), 7)
		for range 3 {
			e.wait("par1", time.Second, func() bool { return referral(t, port) == "par1" })
			if err := s.restart(lines); err != nil {
				t.Fatal(err)
			}
			if err := s.restart(lines + "\nprefix 127.0.0.0/8 nobody"); err == nil {
				t.Fatal("Expected a restart with an unknown node to fail")
			}
			if registries.Values()[0].store != kept {
				t.Fatal("Expected the store to be kept over a reload")
			}
		}
		put(t, other, &registration.Registration{Zone: testZone, Node: "par1"}, 8)
		e.wait("no par1", time.Second, func() bool { return referral(t, port) != "par1" })
		other.close()
	})
	e.wait("all goroutines to end", 5*time.Second, func() bool {
		var b strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
		return !strings.Contains(b.String(), "etcdStore") && !strings.Contains(b.String(), "watchGrpcStream")
	})
}

// Whatever somebody writes there is taken or left out.
func FuzzEtcdKeys(f *testing.F) {
	message, err := encode(nodeAt("a", "192.0.2.1", "10.0.0.0/8"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("serials/a", []byte("1763800000123 1763800000"))
	f.Add("registrations/a", message)
	f.Add("leases/a", []byte("1800"))
	f.Add("serials/", []byte("-1"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		s := newEtcd(storage{}, testZone, nil)
		kv := &mvccpb.KeyValue{Key: []byte(s.prefix + key), Value: value, ModRevision: 7}
		node := s.learn(s.nodes, kv, true, 7)
		n := s.nodes[node]
		if (node != "") != (n != nil) || n != nil && n.seen != 7 {
			t.Errorf("Expected a node or nothing, got %q, %+v", node, n)
		}
		if n != nil && n.mark != 0 && n.parseMark([]byte(formatMark(n.mark, n.serial))) != nil {
			t.Errorf("Expected the serials to be read as written, got %d %d", n.mark, n.serial)
		}
	})
}
