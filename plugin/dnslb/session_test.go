package dnslb

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	testSecret = "c2VjcmV0c2VjcmV0c2VjcmV0"
	testKey    = "par1.key."
)

// fakeDNSB answers SOA questions and notes UPDATEs, over TCP.
type fakeDNSB struct {
	addr string
	got  chan *registration.Registration

	mu     sync.Mutex
	nodes  bool // it knows a node
	deny   int  // the part that it refuses; 0: none
	silent bool // it answers no UPDATE
}

func startDNSB(t *testing.T, secret string) *fakeDNSB {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveDNSB(t, l, secret)
}

// serveDNSB answers on a listener until the test ends.
func serveDNSB(t *testing.T, l net.Listener, secret string) *fakeDNSB {
	t.Helper()
	b := &fakeDNSB{addr: l.Addr().String(), got: make(chan *registration.Registration, 100)}
	srv := &dns.Server{
		Listener: l, Handler: b, TsigSecret: map[string]string{testKey: secret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return b
}

func (b *fakeDNSB) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Opcode == dns.OpcodeQuery && r.Question[0].Qtype == dns.TypeA {
		if b.nodes {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 53)}}
		} else {
			m.Rcode = dns.RcodeServerFailure // cold
		}
		_ = w.WriteMsg(m)
		return
	}
	if r.Opcode == dns.OpcodeQuery {
		m.Answer = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30},
			Ns:  "b1.gslb.example.org.", Mbox: "hostmaster.gslb.example.org.",
		}}
		_ = w.WriteMsg(m)
		return
	}
	t := r.IsTsig()
	if w.TsigStatus() != nil {
		m.Rcode = dns.RcodeNotAuth
		m.Extra = append(m.Extra, &dns.TSIG{
			Hdr: dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: t.Algorithm,
			Error: dns.RcodeBadSig, OrigId: m.Id, TimeSigned: t.TimeSigned, Fudge: dnsclient.Fudge,
		})
		_ = w.WriteMsg(m)
		return
	}
	if reg, err := registration.Parse(r); err == nil && b.deny != 0 && reg.Part == b.deny {
		m.Rcode = dns.RcodeRefused
	} else if err == nil {
		b.got <- reg
		b.nodes = len(reg.Addresses) > 0
	} else {
		m.Rcode = dns.RcodeFormatError
	}
	if b.silent {
		return
	}
	m.SetTsig(t.Hdr.Name, t.Algorithm, dnsclient.Fudge, time.Now().Unix())
	_ = w.WriteMsg(m)
}

func (b *fakeDNSB) next(t *testing.T) *registration.Registration {
	t.Helper()
	select {
	case reg := <-b.got:
		return reg
	case <-time.After(20 * time.Second):
		t.Fatal("No UPDATE in time")
		return nil
	}
}

func nodeConfig(t *testing.T, dnsbs ...string) config {
	t.Helper()
	var upstreams []dnsclient.Endpoint
	for _, dnsb := range dnsbs {
		upstreams = append(upstreams, dnsclient.Endpoint(dnsb))
	}
	key, err := dnsclient.NewKey(testKey, "", testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return config{
		Zones: []string{testZone}, Node: "par1", addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		near:  []registration.Prefix{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}},
		dnsbs: upstreams, key: key, lease: time.Hour,
	}
}

// outcome waits for the first exchange with a DNS-B and returns how the
// registration stands.
func outcome(t *testing.T, r *registrar) (up bool, lease time.Duration) {
	t.Helper()
	for range 1000 {
		s := r.all()[0]
		s.mu.Lock()
		known := s.known
		s.mu.Unlock()
		if known {
			state := s.state()
			return state.Up, state.LeaseLeft
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("No exchange in time")
	return false, 0
}

// TestRegistrar follows a node from its registration to its withdrawal.
func TestRegistrar(t *testing.T) {
	t.Parallel()
	one, two := startDNSB(t, testSecret), startDNSB(t, testSecret)
	r := newRegistrar()
	if r.started() {
		t.Error("Expected nothing to be registered yet")
	}
	r.set(nodeConfig(t, one.addr, two.addr), 1)
	a, b := one.next(t), two.next(t)
	if a.Zone != "gslb.example.org." || a.Node != "par1" || len(a.Addresses) != 1 || len(a.Prefixes) != 1 || a.Cuts[0] != testZone || a.Lease != time.Hour {
		t.Errorf("Unexpected registration %+v", a)
	}
	if a.Serial == b.Serial || a.Serial < uint64(time.Now().Add(-time.Minute).UnixMilli()) {
		t.Errorf("Expected serials by the clock, each another, got %d and %d", a.Serial, b.Serial)
	}
	if up, lease := outcome(t, r); !up || lease < 3500*time.Second || lease > time.Hour {
		t.Errorf("Expected to be registered for an hour, got %v, %v", up, lease)
	}
	if got := r.nodeName(); got != "par1.lb.gslb.example.org." {
		t.Errorf("Unexpected name %q", got)
	}

	// A reload takes one DNS-B away, one zone away and adds one, at once.
	conf := nodeConfig(t, one.addr)
	conf.Zones = []string{"cdn.gslb.example.org."}
	r.set(conf, 2)
	c := one.next(t)
	if c.Serial <= a.Serial || c.Cuts[0] != "cdn.gslb.example.org." || len(c.FormerCuts) != 1 || c.FormerCuts[0] != testZone {
		t.Errorf("Unexpected registration after a reload: %+v", c)
	}
	if w := two.next(t); len(w.Addresses) != 0 || w.Serial <= b.Serial {
		t.Errorf("Expected a withdrawal with a newer serial, got %+v", w)
	}

	// The older instance must not take that back, and one that changes nothing has
	// nothing to tell.
	outcome(t, r)
	r.set(nodeConfig(t, one.addr), 1)
	r.set(conf, 3)
	r.close()
	if w := one.next(t); len(w.Addresses) != 0 || w.Serial <= c.Serial {
		t.Errorf("Expected a withdrawal with a newer serial, got %+v", w)
	}
	r.set(conf, 4)
	select {
	case reg := <-one.got:
		t.Errorf("Expected nothing after the end, got %+v", reg)
	case <-time.After(100 * time.Millisecond):
	}
}

// TestParts checks that a registration which does not fit one message is sent in
// parts of one serial, and that one which is refused is a failure of the whole.
func TestParts(t *testing.T) {
	t.Parallel()
	one := startDNSB(t, testSecret)
	conf := nodeConfig(t, one.addr)
	conf.near = nil
	for i := range 20_000 {
		conf.near = append(conf.near, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	r := newRegistrar()
	defer r.close()
	r.set(conf, 1)
	var parts []*registration.Registration
	for i := range 3 {
		part := one.next(t)
		if parts = append(parts, part); part.Part != i || part.Parts != 3 || part.Serial != parts[0].Serial || part.Lease != time.Hour {
			t.Errorf("Expected part %d of 3 with one serial and the lease, got %d of %d, serial %d, %s", i, part.Part, part.Parts, part.Serial, part.Lease)
		}
	}
	if whole, err := registration.Join(parts); err != nil || !slices.Equal(whole.Prefixes, conf.near) {
		t.Errorf("Expected all prefixes, got %v", err)
	}
	if up, lease := outcome(t, r); !up || lease < 3500*time.Second {
		t.Errorf("Expected to be registered for an hour, got %v, %v", up, lease)
	}

	one.mu.Lock()
	one.deny = 1
	one.mu.Unlock()
	if _, err := r.all()[0].register(t.Context()); err == nil || !strings.Contains(err.Error(), "part 1 of 3: the server answered REFUSED") {
		t.Errorf("Expected the refusal of a part to be that of the whole, got %v", err)
	}
	if part := one.next(t); part.Part != 0 {
		t.Errorf("Expected part 0, got %d", part.Part)
	}
	select {
	case part := <-one.got:
		t.Errorf("Expected nothing behind the part that was refused, got part %d", part.Part)
	default:
	}
}

// TestForgotten checks that a node notices when a DNS-B has lost it.
func TestForgotten(t *testing.T) {
	t.Parallel()
	one := startDNSB(t, testSecret)
	r := newRegistrar()
	defer r.close()
	r.set(nodeConfig(t, one.addr), 1)
	one.next(t)
	outcome(t, r)
	s := r.all()[0]
	if s.forgotten(t.Context()) {
		t.Error("Expected DNS-B to know the node that registered")
	}
	one.mu.Lock()
	one.nodes = false
	one.mu.Unlock()
	if !s.forgotten(t.Context()) {
		t.Error("Expected to notice that DNS-B does not know the node any more")
	}
	before := s.state()
	s.lost()
	if now := s.state(); now.Up || now.LeaseLeft > 0 {
		t.Errorf("Expected no registration to be left, got %+v", now)
	}
	s.note(time.Now(), time.Hour, nil)
	if now := s.state(); !now.Up || !now.Since.After(before.Since) {
		t.Errorf("Expected to be registered since later than %s, got %+v", before.Since, now)
	}
	s.note(time.Now(), 0, errors.New("it does not answer"))
	if s.forgotten(t.Context()) {
		t.Error("Expected not to ask while registering fails")
	}
}

func TestRegistrarRefused(t *testing.T) {
	t.Parallel()
	one := startDNSB(t, "YW5vdGhlcg==")
	r := newRegistrar()
	defer r.close()
	r.set(nodeConfig(t, one.addr), 1)
	if up, lease := outcome(t, r); up || lease != 0 {
		t.Errorf("Expected not to be registered, got %v, %v", up, lease)
	}
}

// TestNeverSent checks that a node that registered nothing withdraws nothing:
// another process may have.
func TestNeverSent(t *testing.T) {
	out := logged(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRegistrar()
		r.set(nodeConfig(t, "127.0.0.1:1"), 1)
		s := r.all()[0]
		r.close() // within the delay of the first registration
		if s.sent {
			t.Error("Expected nothing to be sent")
		}
		out.expect(t) // no withdrawal that fails
	})
}

// silence never answers, and tells of each connection that asks something.
func silence(t *testing.T, address string) (addr string, asked <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				ch <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), ch
}

// TestUnreachable checks that the end of a node waits neither for a question to a
// DNS-B that never answers nor for a registration, but for the withdrawal of one.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	end := func(t *testing.T, r *registrar, want time.Duration) {
		t.Helper()
		begin := time.Now()
		r.close()
		if took := time.Since(begin); took > want+time.Second {
			t.Errorf("Expected to end within %s, took %s", want, took)
		}
	}
	for name, scheme := range map[string]string{"question": "", "handshake": "tls://"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, asked := silence(t, "127.0.0.1:0")
			r := newRegistrar()
			r.set(nodeConfig(t, scheme+addr), 1)
			<-asked
			end(t, r, 0)
		})
	}
	t.Run("registration", func(t *testing.T) {
		t.Parallel()
		one := startDNSB(t, testSecret)
		one.silent = true
		r := newRegistrar()
		r.set(nodeConfig(t, one.addr), 1)
		one.next(t)
		end(t, r, withdrawTime)
	})
}

// TestPutBack checks that a DNS-B which one reload takes away and the next one
// puts back gets the withdrawal first.
func TestPutBack(t *testing.T) {
	t.Parallel()
	one := startDNSB(t, testSecret)
	one.silent = true
	r := newRegistrar()
	defer r.close()
	r.set(nodeConfig(t, one.addr), 1)
	last := one.next(t)
	r.set(nodeConfig(t), 2)
	r.set(nodeConfig(t, one.addr), 3)
	for _, addresses := range []int{0, 1} {
		got := one.next(t)
		if len(got.Addresses) != addresses || got.Serial <= last.Serial {
			t.Errorf("Expected %d addresses and a serial above %d, got %+v", addresses, last.Serial, got)
		}
		last = got
	}
}

// TestWaitsForWithdrawal checks that nothing is sent while the session before at
// the same DNS-B is not gone.
func TestWaitsForWithdrawal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nobody = "127.0.0.1:1"
		r := newRegistrar()
		defer r.close()
		before := &session{gone: make(chan struct{})}
		r.ended[nobody] = before
		r.set(nodeConfig(t, nobody), 1)
		s := r.all()[0]
		time.Sleep(maxFirstDelay)
		synctest.Wait()
		if s.known {
			t.Error("Expected to wait for the session before")
		}
		close(before.gone)
		time.Sleep(maxFirstDelay)
		synctest.Wait()
		if !s.known {
			t.Error("Expected to go on when the session before is gone")
		}
	})
}

// TestStop checks that a stop takes as long as a withdrawal may, whoever does not
// answer, and that DNS-B is told at once.
func TestStop(t *testing.T) {
	t.Parallel()
	one := startDNSB(t, testSecret)
	deaf, _ := silence(t, "127.0.0.1:0")
	deputy, asked := silence(t, "127.0.0.1:0")
	nodes := &knownNodes{nodes: map[string]peer{"lon1": {addresses: []netip.Addr{addr("127.0.0.1")}}}}
	k := newKept()
	k.sharing = newSharing(nodes.find, k.targets)
	conf := nodeConfig(t, one.addr, deaf)
	conf.deputies, conf.viewKey = []string{"lon1"}, viewKey(t, testSecret)
	_, conf.port, _ = net.SplitHostPort(deputy)
	k.sharing.set(conf, 1)
	k.registrar.set(conf, 1)
	one.next(t)
	k.sharing.publish(1, time.Now(), findings{})
	k.sharing.notified("lon1")
	<-asked // by the news
	<-asked // by the look for a view

	begin := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); keeper.Close("", k) }()
	if w := one.next(t); len(w.Addresses) != 0 || time.Since(begin) > time.Second {
		t.Errorf("Expected a withdrawal at once, got %+v after %s", w, time.Since(begin))
	}
	<-done
	if took := time.Since(begin); took > withdrawTime+time.Second {
		t.Errorf("Expected to end within %s, took %s", withdrawTime, took)
	}
}

func TestRefresh(t *testing.T) {
	for range 1000 {
		if d := refresh(1000 * time.Second); d < 800*time.Second || d > 850*time.Second {
			t.Fatalf("Expected a refresh at 80 to 85 %% of the lease (RFC 9664, section 5.2), got %s", d)
		}
	}
}

// TestReminders checks that a lasting failure is one log line at its start and
// one every ten minutes.
func TestReminders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{node: "par1", dnsb: "192.0.2.1:53"}
		var lines []time.Duration
		begin, last := time.Now(), time.Time{}
		for range 60 {
			s.note(time.Now(), 0, errors.New("it does not answer"))
			if s.reminded != last {
				last = s.reminded
				lines = append(lines, last.Sub(begin))
			}
			time.Sleep(time.Minute)
		}
		want := []time.Duration{0, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, 40 * time.Minute, 50 * time.Minute}
		if !slices.Equal(lines, want) {
			t.Errorf("Expected lines after %v, got %v", want, lines)
		}
		if state := s.state(); state.Up || state.LeaseLeft != 0 {
			t.Errorf("Expected no registration, got %+v", state)
		}
		s.note(time.Now(), time.Hour, nil)
		time.Sleep(20 * time.Minute)
		if state := s.state(); !state.Up || state.LeaseLeft != 40*time.Minute {
			t.Errorf("Expected 40 minutes of the lease to be left, got %+v", state)
		}
	})
}
