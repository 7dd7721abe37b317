package registrar

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
)

// TestRegistrationInParts checks that a registration that does not fit one
// message is sent in parts of one serial, and that one part that is refused fails
// the whole.
func TestRegistrationInParts(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, dnsbtest.Secret)
	settings := nodeSettings(t, one.Addr)
	settings.Registration.Prefixes = nil
	for i := range 20_000 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		settings.Registration.Prefixes = append(settings.Registration.Prefixes, registration.Prefix{Prefix: prefix})
	}
	r := New()
	defer r.Close()
	r.Configure(settings)
	var parts []*registration.Registration
	for i := range 3 {
		part := one.Next(t)
		if parts = append(parts, part); part.Part != i || part.Parts != 3 || part.Serial != parts[0].Serial || part.Lease != time.Hour {
			t.Errorf("Expected part %d of 3 with one serial and the lease, got %d of %d, serial %d, %s", i, part.Part, part.Parts, part.Serial, part.Lease)
		}
	}
	if whole, err := registration.Join(parts); err != nil || !slices.Equal(whole.Prefixes, settings.Registration.Prefixes) {
		t.Errorf("Expected all prefixes, got %v", err)
	}
	if state := firstResult(t, r); !state.Up || state.LeaseLeft < 3500*time.Second {
		t.Errorf("Expected to be registered for an hour, got %+v", state)
	}

	one.Refuse(1)
	s := r.sorted()[0]
	if _, err := s.register(t.Context(), s.current()); err == nil || !strings.Contains(err.Error(), "part 1 of 3: the server answered REFUSED") {
		t.Errorf("Expected the refusal of a part to be that of the whole, got %v", err)
	}
	if part := one.Next(t); part.Part != 0 {
		t.Errorf("Expected part 0, got %d", part.Part)
	}
	if part := one.Pending(); part != nil {
		t.Errorf("Expected nothing after the part that was refused, got part %d", part.Part)
	}
}

// TestMissingRegistration checks that a node notices when a DNS-B has lost its
// registration.
func TestMissingRegistration(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, dnsbtest.Secret)
	r := New()
	defer r.Close()
	r.Configure(nodeSettings(t, one.Addr))
	one.Next(t)
	firstResult(t, r)
	s := r.sorted()[0]
	if s.needsRegistration(t.Context()) {
		t.Error("Expected DNS-B to know the node that has registered")
	}
	one.Forget()
	previous, serial := s.state(), s.current().serial.Load()
	if !s.needsRegistration(t.Context()) {
		t.Error("Expected to notice that DNS-B does not know the node any more")
	}
	if next := s.current().serial.Load(); next <= serial {
		t.Errorf("Expected a larger serial than that of the lost registration, %d, got %d", serial, next)
	}
	if now := s.state(); now.Up || now.LeaseLeft > 0 {
		t.Errorf("Expected no registration and no lease, got %+v", now)
	}
	s.record(time.Now(), s.stated, time.Hour, nil)
	if now := s.state(); !now.Up || !now.Since.After(previous.Since) {
		t.Errorf("Expected to be registered since later than %s, got %+v", previous.Since, now)
	}
	s.record(time.Now(), s.stated, 0, errors.New("no answer in time"))
	if s.needsRegistration(t.Context()) {
		t.Error("Expected no query while registering fails")
	}
}

// TestDeadDNSBIsNoticed checks that a node that finds its DNS-B unreachable, as it
// does every checkInterval, counts as not registered, while its lease goes on.
func TestDeadDNSBIsNoticed(t *testing.T) {
	l := dnsbtest.Listen(t, "127.0.0.1", "0")
	one := dnsbtest.Serve(t, l, dnsbtest.Secret)
	log := logtest.Capture(t)
	r := New()
	defer r.Close()
	r.Configure(nodeSettings(t, one.Addr))
	one.Next(t)
	firstResult(t, r)
	log.Lines()
	_ = l.Close()
	s := r.sorted()[0]
	start := time.Now()
	if !s.needsRegistration(t.Context()) {
		t.Error("Expected to register at a DNS-B that cannot be asked, which finds out")
	}
	_, err := s.register(t.Context(), s.current())
	s.record(start, s.stated, 0, err)
	if state := s.state(); state.Up || state.LeaseLeft < 3500*time.Second || state.Error == "" {
		t.Errorf("Expected the registration to fail, with a reason, and the lease to go on, got %+v", state)
	}
	log.Expect(t, "Failed to register node \"par1\" at DNS-B "+one.Addr)
	s.record(start, s.stated, time.Hour, nil)
	if state := s.state(); !state.Up || state.Error != "" {
		t.Errorf("Expected no reason any more, got %+v", state)
	}
	s.record(start, s.stated, 0, errors.New(strings.Repeat("\n", 1000)))
	if state := s.state(); len(state.Error) > remotetext.MaxError || strings.Contains(state.Error, "\n") {
		t.Errorf("Expected a reason that is bounded and printable, got %q", state.Error)
	}
}

func TestRefusedRegistration(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, "YW5vdGhlcg==")
	r := New()
	defer r.Close()
	r.Configure(nodeSettings(t, one.Addr))
	const reason = "the server has a different secret for key 'par1.key.' (BADSIG)"
	if state := firstResult(t, r); state.Up || state.LeaseLeft != 0 || !strings.HasPrefix(state.Error, reason) {
		t.Errorf("Expected not to be registered, and the reason, got %+v", state)
	}
}

// TestRegistrationNeedsEDNS registers at a server that refuses EDNS, or that
// something stands in front of which does: the error says so, and nothing is sent
// without the lease. Queries have no EDNS.
func TestRegistrationNeedsEDNS(t *testing.T) {
	for _, rcode := range []int{dns.RcodeFormatError, dns.RcodeNotImplemented} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		updates, done := make(chan bool, 100), make(chan struct{})
		srv := &dns.Server{Listener: l, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
		srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetReply(r)
			m.Authoritative = true
			switch q := r.Question[0]; {
			case r.Opcode == dns.OpcodeUpdate:
				updates <- r.IsEdns0() != nil
				m.Rcode = rcode
			case r.IsEdns0() != nil:
				m.Rcode = rcode
			default:
				m.Answer = []dns.RR{dnsmsg.NewSOA(q.Name, "b1."+q.Name, dnsmsg.Mailbox(q.Name), 1, 30)}
			}
			_ = w.WriteMsg(m)
		})
		go func() { defer close(done); _ = srv.ActivateAndServe() }()

		r := New()
		r.Configure(nodeSettings(t, l.Addr().String()))
		firstResult(t, r)
		want := "the server answered " + dns.RcodeToString[rcode] + ", without EDNS, which a registration needs: check that its address is a DNS-B's"
		s := r.sorted()[0]
		if _, err := s.register(t.Context(), s.current()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Expected an error with %q, got %v", want, err)
		}
		r.Close()
		_ = l.Close()
		<-done
		for len(updates) > 0 {
			if edns := <-updates; !edns {
				t.Error("Expected no registration without EDNS")
			}
		}
	}
}

func TestRenewal(t *testing.T) {
	for range 1000 {
		if d := renewal(1000 * time.Second); d < 800*time.Second || d > 850*time.Second {
			t.Fatalf("Expected a renewal at 80 to 85 %% of the lease (RFC 9664, section 5.2), got %s", d)
		}
	}
}

// TestReminders checks that a lasting failure is one log line at its start and
// one every ten minutes.
func TestReminders(t *testing.T) {
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		s := &session{node: "par1", dnsb: "192.0.2.1:53"}
		var logged []time.Duration
		begin := time.Now()
		for range 60 {
			s.record(time.Now(), s.stated, 0, errors.New("no answer in time"))
			for _, line := range log.Lines() {
				logged = append(logged, time.Since(begin))
				if !strings.Contains(line, `Failed to register node "par1" at DNS-B 192.0.2.1:53 since 2000-01-01T00:00:00Z, no lease, retrying: no answer in time`) {
					t.Errorf("Unexpected line %q", line)
				}
			}
			time.Sleep(time.Minute)
		}
		want := []time.Duration{0, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, 40 * time.Minute, 50 * time.Minute}
		if !slices.Equal(logged, want) {
			t.Errorf("Expected lines after %v, got %v", want, logged)
		}
		if state := s.state(); state.Up || state.LeaseLeft != 0 {
			t.Errorf("Expected no registration, got %+v", state)
		}
		s.record(time.Now(), s.stated, time.Hour, nil)
		log.Expect(t, `Recovered: registration of node "par1" at DNS-B 192.0.2.1:53, lease 1h0m0s`)
		time.Sleep(20 * time.Minute)
		if state := s.state(); !state.Up || state.LeaseLeft != 40*time.Minute {
			t.Errorf("Expected 40 minutes of the lease to be left, got %+v", state)
		}
		s.record(time.Now(), s.stated, 0, errors.New("no answer in time"))
		log.Expect(t, "since 2000-01-01T01:20:00Z, lease left 40m0s, retrying")
		s.record(time.Now(), s.stated, time.Hour, nil)
		s.record(time.Now(), s.stated, time.Hour, nil)
		log.Expect(t, "Recovered: ")
	})
}

// TestOtherStatementIsLogged checks that the log tells when DNS-B has taken what
// was changed, such as another key, and not when a lease was renewed.
func TestOtherStatementIsLogged(t *testing.T) {
	log := logtest.Capture(t)
	s := &session{node: "par1", dnsb: "192.0.2.1:53"}
	for _, stated := range []*statement{new(statement), new(statement)} {
		s.record(time.Now(), stated, time.Hour, nil)
		log.Expect(t, `Registered node "par1" at DNS-B 192.0.2.1:53, lease 1h0m0s`)
		s.record(time.Now(), stated, time.Hour, nil)
		log.Expect(t)
	}
}
