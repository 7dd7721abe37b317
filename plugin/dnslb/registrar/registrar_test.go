package registrar

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
)

const testZone = "svc.gslb.example.org."

// nodeSettings returns the settings of a node that registers at these DNS-Bs.
func nodeSettings(t *testing.T, dnsbs ...string) Settings {
	t.Helper()
	settings := Settings{
		Registration: registration.Registration{
			Node: "par1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Cuts: []string{testZone}, Lease: time.Hour,
			Prefixes: []registration.Prefix{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}},
		},
		Key: dnsbtest.Key(t),
	}
	for _, dnsb := range dnsbs {
		settings.DNSBs = append(settings.DNSBs, dnsclient.Endpoint(dnsb))
	}
	return settings
}

// patience is how long tests wait for what is certain to come: longer than anything
// takes on a busy machine.
const patience = 2 * time.Minute

// firstResult waits for the result of the first registration.
func firstResult(t *testing.T, r *Registrar) State {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if state := r.States()[0]; !state.Since.IsZero() {
			return state
		}
	}
	t.Fatal("No registration in time")
	return State{}
}

// TestRegistrar follows a node from its registration to its withdrawal.
func TestRegistrar(t *testing.T) {
	t.Parallel()
	one, two := dnsbtest.Start(t, dnsbtest.Secret), dnsbtest.Start(t, dnsbtest.Secret)
	r := New()
	if r.Configured() {
		t.Error("Expected nothing to be registered yet")
	}
	r.Configure(nodeSettings(t, one.Addr, two.Addr))
	a, b := one.Next(t), two.Next(t)
	if a.Zone != "gslb.example.org." || a.Node != "par1" || len(a.Addresses) != 1 || len(a.Prefixes) != 1 || a.Cuts[0] != testZone || a.Lease != time.Hour {
		t.Errorf("Unexpected registration %+v", a)
	}
	if a.Serial != b.Serial || a.Serial < uint64(time.Now().Add(-time.Minute).UnixMilli()) {
		t.Errorf("Expected one serial by the clock, got %d and %d", a.Serial, b.Serial)
	}
	if state := firstResult(t, r); !state.Up || state.LeaseLeft < 3500*time.Second || state.LeaseLeft > time.Hour {
		t.Errorf("Expected to be registered for an hour, got %+v", state)
	}
	if got := r.NodeName(); got != "par1.lb.gslb.example.org." {
		t.Errorf("Unexpected name %q", got)
	}

	// A reload removes one DNS-B and replaces the cut.
	settings := nodeSettings(t, one.Addr)
	settings.Registration.Cuts = []string{"cdn.gslb.example.org."}
	r.Configure(settings)
	c := one.Next(t)
	if c.Serial <= a.Serial || c.Cuts[0] != "cdn.gslb.example.org." || len(c.FormerCuts) != 1 || c.FormerCuts[0] != testZone {
		t.Errorf("Unexpected registration after a reload: %+v", c)
	}
	if w := two.Next(t); len(w.Addresses) != 0 || w.Serial <= b.Serial || w.Serial >= c.Serial {
		t.Errorf("Expected a withdrawal with a serial between %d and %d, got %+v", b.Serial, c.Serial, w)
	}

	// The same settings are not registered again.
	firstResult(t, r)
	r.Configure(settings)
	r.Close()
	if w := one.Next(t); len(w.Addresses) != 0 || w.Serial <= c.Serial {
		t.Errorf("Expected a withdrawal with a newer serial, got %+v", w)
	}
	r.Configure(settings)
	time.Sleep(100 * time.Millisecond)
	if reg := one.Pending(); reg != nil {
		t.Errorf("Expected nothing after Close, got %+v", reg)
	}
}

// TestOneSerialForEachState checks that all DNS-Bs get each state with the same
// serial, also those that are added later and those that a renewal reaches; a
// serial that a DNS-B refuses is replaced.
func TestOneSerialForEachState(t *testing.T) {
	t.Parallel()
	one, two, three := dnsbtest.Start(t, dnsbtest.Secret), dnsbtest.Start(t, dnsbtest.Secret), dnsbtest.Start(t, dnsbtest.Secret)
	r := New()
	defer r.Close()
	r.Configure(nodeSettings(t, one.Addr, two.Addr))
	allUp := func() {
		t.Helper()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if !slices.ContainsFunc(r.States(), func(s State) bool { return !s.Up }) {
				return
			}
		}
		t.Fatalf("Expected all registrations to succeed, got %+v", r.States())
	}
	serial := one.Next(t).Serial
	expect := func(step string, got *registration.Registration) {
		t.Helper()
		if got.Serial != serial {
			t.Errorf("%s: Expected serial %d, got %d", step, serial, got.Serial)
		}
	}
	expect("second DNS-B", two.Next(t))
	allUp()
	r.Configure(nodeSettings(t, one.Addr, two.Addr, three.Addr))
	expect("DNS-B that is added", three.Next(t))
	allUp()
	renew := func(dnsb *dnsbtest.Server) error {
		for _, s := range r.sorted() {
			if string(s.dnsb) == dnsb.Addr {
				_, err := s.register(t.Context(), s.current())
				return err
			}
		}
		return errors.New("no session")
	}
	if err := renew(two); err != nil {
		t.Fatal(err)
	}
	expect("renewal", two.Next(t))

	changed := nodeSettings(t, one.Addr, two.Addr, three.Addr)
	changed.Registration.Prefixes = nil
	r.Configure(changed)
	next := one.Next(t).Serial
	if next <= serial {
		t.Errorf("Expected another state to have a larger serial than %d, got %d", serial, next)
	}
	serial = next
	expect("other state", two.Next(t))
	expect("other state", three.Next(t))

	two.RefuseSerial(serial)
	if err := renew(two); err == nil {
		t.Error("Expected the serial to be refused")
	}
	if err := renew(two); err != nil {
		t.Errorf("Expected another serial to be accepted, got: %v", err)
	}
	next = two.Next(t).Serial
	if next <= serial {
		t.Errorf("Expected a larger serial than the refused one, %d, got %d", serial, next)
	}
	serial = next
	if err := renew(one); err != nil {
		t.Fatal(err)
	}
	expect("renewal after a serial was refused", one.Next(t))
}

func TestFormerCuts(t *testing.T) {
	previous := registration.Registration{Cuts: []string{"a.", "b."}, FormerCuts: []string{"c.", "d."}}
	next := registration.Registration{Cuts: []string{"b.", "c."}, FormerCuts: []string{"d."}}
	if got := formerCuts(next, previous); !slices.Equal(got, []string{"d.", "a."}) {
		t.Errorf("Expected all cuts of earlier configurations that are none now, got %q", got)
	}
}

// TestWithdrawalWithoutRegistration checks that a node that has registered
// nothing withdraws nothing: another process may have registered it.
func TestWithdrawalWithoutRegistration(t *testing.T) {
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		r := New()
		r.Configure(nodeSettings(t, "127.0.0.1:1"))
		s := r.sorted()[0]
		r.Close() // within the delay of the first registration
		if s.sent {
			t.Error("Expected nothing to be sent")
		}
		log.Expect(t) // no withdrawal that fails
	})
}

// TestCloseWaitsForWithdrawalAlone checks that Close waits neither for a query
// that is not answered nor for a registration, but for a withdrawal.
func TestCloseWaitsForWithdrawalAlone(t *testing.T) {
	t.Parallel()
	closesWithin := func(t *testing.T, want time.Duration, r *Registrar) {
		t.Helper()
		watch := testwatch.Start(t)
		r.Close()
		if took := watch.Elapsed(); took > want+time.Second {
			t.Errorf("Expected to end within %s, took %s", want, took)
		}
	}
	for name, scheme := range map[string]string{"query": "", "handshake": "tls://"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, asked := dnsbtest.ListenSilently(t, "127.0.0.1:0")
			r := New()
			r.Configure(nodeSettings(t, scheme+addr))
			<-asked
			closesWithin(t, 0, r)
		})
	}
	t.Run("registration", func(t *testing.T) {
		t.Parallel()
		one := dnsbtest.Start(t, dnsbtest.Secret)
		one.Silence()
		r := New()
		r.Configure(nodeSettings(t, one.Addr))
		one.Next(t)
		closesWithin(t, withdrawTimeout, r)
	})
}

// TestDNSBIsAddedAgain checks that a DNS-B that one reload removes and the next
// one adds receives the withdrawal first.
func TestDNSBIsAddedAgain(t *testing.T) {
	t.Parallel()
	one := dnsbtest.Start(t, dnsbtest.Secret)
	one.Silence()
	r := New()
	defer r.Close()
	r.Configure(nodeSettings(t, one.Addr))
	last := one.Next(t)
	r.Configure(nodeSettings(t))
	r.Configure(nodeSettings(t, one.Addr))
	for _, addresses := range []int{0, 1} {
		got := one.Next(t)
		if len(got.Addresses) != addresses || got.Serial <= last.Serial {
			t.Errorf("Expected %d addresses and a serial above %d, got %+v", addresses, last.Serial, got)
		}
		last = got
	}
}

// TestSessionWaitsForPreviousWithdrawal checks that nothing is sent before the
// previous session at the same DNS-B has ended.
func TestSessionWaitsForPreviousWithdrawal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const unreachable = "127.0.0.1:1"
		r := New()
		defer r.Close()
		previous := &session{done: make(chan struct{})}
		r.withdrawing[unreachable] = previous
		r.Configure(nodeSettings(t, unreachable))
		time.Sleep(maxFirstDelay)
		synctest.Wait()
		if !r.States()[0].Since.IsZero() {
			t.Error("Expected to wait for the previous session")
		}
		close(previous.done)
		time.Sleep(maxFirstDelay)
		synctest.Wait()
		if r.States()[0].Since.IsZero() {
			t.Error("Expected to register when the previous session has ended")
		}
	})
}

// certificate returns a certificate for 127.0.0.1 and a name, and its authority.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestRegistrationOverTLS checks that a node registers with a DNS-B that has the
// right certificate, and with no other.
func TestRegistrationOverTLS(t *testing.T) {
	cert, pool := certificate(t, "b1.example.org")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	b := dnsbtest.Serve(t, l, dnsbtest.Secret)
	tests := []struct {
		name string
		dnsb string
		ca   *x509.CertPool
		up   bool
	}{
		{"by address", "tls://" + b.Addr, pool, true},
		{"by name", "tls://" + b.Addr + "#b1.example.org", pool, true},
		{"another name", "tls://" + b.Addr + "#b2.example.org", pool, false},
		{"unknown authority", "tls://" + b.Addr, nil, false},
		{"not over TLS", b.Addr, pool, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // each waits for its random delay
			settings := nodeSettings(t, tc.dnsb)
			settings.CA = tc.ca
			r := New()
			r.Configure(settings)
			defer r.Close()
			if state := firstResult(t, r); state.Up != tc.up {
				t.Errorf("Expected registration %v, got %v", tc.up, state.Up)
			}
		})
	}
}
