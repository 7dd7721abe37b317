package overridefetch

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
)

func init() { clog.Discard() }

const (
	cut      = "svc.gslb.example.org."
	later    = " until 2100-01-01T00:00:00Z reason new disk"
	patience = 2 * time.Minute // longer than anything takes on a busy machine
)

// server is a DNS-B that answers as a test says.
type server struct {
	dnsclient.Endpoint

	mu    sync.Mutex
	lines []string
	rcode int
	asked int
}

func startServer(t *testing.T, address string) *server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Endpoint: dnsclient.Endpoint(l.Addr().String())}
	srv := &dns.Server{Listener: l, TsigSecret: map[string]string{dnsbtest.KeyName: dnsbtest.Secret}, Handler: s}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _, _ = srv.Shutdown(), l.Close(); <-done }) // the latter if it has not begun
	return s
}

func (s *server) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	m := new(dns.Msg).SetRcode(r, s.rcode)
	if q := r.Question[0]; s.rcode == dns.RcodeSuccess && q.Name == "par1._override."+cut && q.Qtype == dns.TypeTXT {
		m.Answer = serveroverride.Records(q.Name, s.lines)
	}
	if t := r.IsTsig(); t != nil && w.TsigStatus() == nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, dnsclient.Fudge, time.Now().Unix())
	}
	_ = w.WriteMsg(m)
}

func (s *server) set(rcode int, lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode, s.lines = rcode, lines
}

func (s *server) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func texts(f *Fetcher) []string {
	var all []string
	for _, o := range f.Overrides() {
		all = append(all, o.Text)
	}
	return all
}

// await waits until the Fetcher has overrides of these texts.
func await(t *testing.T, f *Fetcher, want ...string) {
	t.Helper()
	changed, unsubscribe := f.Subscribe()
	defer unsubscribe()
	limit := time.After(patience)
	for !slices.Equal(texts(f), want) {
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("Expected overrides %q, got %q", want, texts(f))
		}
	}
}

// TestFetcher checks that a node has the overrides of all of its DNS-Bs, and keeps
// those of one that does not answer, whose silence delays nothing.
func TestFetcher(t *testing.T) {
	out := logtest.Capture(t)
	b1, b2 := startServer(t, "127.0.0.1:0"), startServer(t, "127.0.0.2:0")
	silent, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	from := func(line string, s *server) string { return fmt.Sprintf("%s (from DNS-B %s)", line+later, s.Endpoint) }
	b1.set(dns.RcodeSuccess, "down fra"+later)
	b2.set(dns.RcodeSuccess, "up iad"+later, "repair nrt"+later, "drain nrt"+later)
	f := New()
	defer f.Close()
	settings := Settings{Node: "par1", Cut: cut, DNSBs: []dnsclient.Endpoint{dnsclient.Endpoint(silent.Addr().String()), b1.Endpoint, b2.Endpoint}, Key: dnsbtest.Key(t)}
	f.Configure(settings)
	await(t, f, from("down fra", b1), from("up iad", b2), from("drain nrt", b2))
	if o := f.Overrides()[0]; o.Action != (serveroverride.Action{Verb: serveroverride.Down, Server: "fra", DNSB: string(b1.Endpoint)}) {
		t.Errorf("Unexpected action %+v", o.Action)
	}
	if states := f.States(); len(states) != 3 || !states[0].CheckedAt.IsZero() || states[1].Overrides != 1 || states[2].Overrides != 2 || states[2].CheckedAt.IsZero() {
		t.Errorf("Unexpected states %+v", states)
	}
	if lines := strings.Join(out.Lines(), "\n"); strings.Count(lines, "Ignoring an override from DNS-B "+string(b2.Endpoint)) != 1 || !strings.Contains(lines, "unknown verb 'repair'") {
		t.Errorf("Expected one line about the verb of a later version, got %s", lines)
	}

	if f.Notify(netip.MustParseAddr("127.0.0.99")) {
		t.Error("Expected a NOTIFY from another address to be rejected")
	}
	notify := func(s *server) {
		if !f.Notify(s.Addr()) {
			t.Error("Expected a NOTIFY of DNS-B to be accepted")
		}
	}
	b1.set(dns.RcodeSuccess)
	notify(b1)
	await(t, f, from("up iad", b2), from("drain nrt", b2))

	failed := func() float64 {
		return testutil.ToFloat64(pulls.WithLabelValues("par1", string(b2.Endpoint), "failed"))
	}
	b2.set(dns.RcodeServerFailure)
	notify(b2)
	for begin := time.Now(); failed() < 1; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("Expected a failure to be counted")
		}
	}
	await(t, f, from("up iad", b2), from("drain nrt", b2))
	if got := f.States()[2].Error; !strings.Contains(got, "error in its admin file") {
		t.Errorf("Expected the reason, got %q", got)
	}

	settings.DNSBs = settings.DNSBs[1:]
	f.Configure(settings)
	await(t, f, from("up iad", b2), from("drain nrt", b2)) // a reload loses nothing
	settings.DNSBs = settings.DNSBs[:1]
	f.Configure(settings)
	await(t, f)
	before := b2.questions()
	if f.Notify(b2.Addr()) || b2.questions() != before {
		t.Error("Expected no question for a DNS-B that is gone from the settings")
	}
}

// TestRefusals checks what a node says of answers that have no overrides.
func TestRefusals(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	one := &source{settings: Settings{Node: "par1", Cut: cut, Key: dnsbtest.Key(t)}, dnsb: s.Endpoint}
	for rcode, want := range map[int]string{
		dns.RcodeServerFailure: "the server has an error in its admin file",
		dns.RcodeNotAuth:       "no 'accept' line of the server lets key 'par1.key.' register node par1 for " + cut,
		dns.RcodeRefused:       "the server answered REFUSED",
	} {
		s.set(rcode)
		if _, err := one.ask(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Expected %q, got %v", dns.RcodeToString[rcode], want, err)
		}
	}
	s.set(dns.RcodeSuccess)
	one.settings.Node = "lon1" // the server has no records for it
	if _, err := one.ask(t.Context()); err == nil || !strings.Contains(err.Error(), "its version is older") {
		t.Errorf("Expected an older version to be named, got %v", err)
	}
}
