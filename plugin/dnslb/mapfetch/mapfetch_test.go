package mapfetch

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"
)

func init() { clog.Discard() }

const cut = "svc.gslb.example.org."

func testKey(t *testing.T) dnsclient.Key {
	t.Helper()
	key, err := dnsclient.NewKey("par1.key.example.org", "", dnsbtest.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// server is a DNS-B that answers as a test says.
type server struct {
	dnsclient.Endpoint
	answer atomic.Pointer[dns.HandlerFunc]
}

func startServer(t *testing.T, answer dns.HandlerFunc) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Endpoint: dnsclient.Endpoint(l.Addr().String())}
	s.answer.Store(&answer)
	srv := &dns.Server{
		Listener: l, TsigSecret: map[string]string{"par1.key.example.org.": dnsbtest.Secret},
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { (*s.answer.Load())(signer{w, r}, r) }),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _, _ = srv.Shutdown(), l.Close(); <-done }) // the latter if it has not begun
	return s
}

// signer signs replies as the plugin tsig does.
type signer struct {
	dns.ResponseWriter
	r *dns.Msg
}

func (s signer) WriteMsg(m *dns.Msg) error {
	if t := s.r.IsTsig(); t != nil && s.TsigStatus() == nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, dnsclient.Fudge, time.Now().Unix())
	}
	return s.ResponseWriter.WriteMsg(m)
}

// mapOf answers with a map of a serial.
func mapOf(serial uint32, prefix, node string) dns.HandlerFunc {
	lists := nodemap.NewLists(nodemaptest.InOrder(map[netip.Prefix]nodemap.List{netip.MustParsePrefix(prefix): nodemaptest.List("operator=" + node)}))
	return func(w dns.ResponseWriter, r *dns.Msg) {
		soa := nodemap.SOA(cut, ".", serial)
		switch q := r.Question[0]; {
		case q.Name != nodemap.ZoneOf(cut) || r.IsTsig() == nil:
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused))
		case q.Qtype == dns.TypeSOA:
			m := new(dns.Msg).SetReply(r)
			m.Answer = []dns.RR{soa}
			_ = w.WriteMsg(m)
		default:
			_ = dnsmsg.WriteTransfer(w, r, soa, lists.Records(cut, ".", []string{"par1", "lon1"}))
		}
	}
}

func rcode(rcode int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(r, rcode)) }
}

// instead answers a transfer with these records, and the serial as h does.
func instead(h dns.HandlerFunc, records ...string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Qtype != dns.TypeAXFR {
			h(w, r)
			return
		}
		m := new(dns.Msg).SetReply(r)
		for _, text := range records {
			rr, err := dns.NewRR(strings.ReplaceAll(text, "MAP", nodemap.ZoneOf(cut)))
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
		_ = w.Close()
	}
}

// TestFetcher checks which map a node has after one thing after the other, and
// what is counted and logged.
func TestFetcher(t *testing.T) {
	out := logtest.Capture(t)
	b1, b2 := startServer(t, rcode(dns.RcodeServerFailure)), startServer(t, rcode(dns.RcodeNotAuth))
	var table *nodemap.Table
	f := New(func(m *nodemap.Table) { table = m })
	defer f.Close()
	settings := Settings{Node: "par1", Cut: cut, DNSBs: []dnsclient.Endpoint{b1.Endpoint, b2.Endpoint}, Key: testKey(t)}
	f.failing.Delay = 0
	f.limiter = rate.NewLimiter(rate.Every(time.Hour), 6)
	look := func() error {
		err := f.look(t.Context(), settings)
		f.record(settings, err)
		return err
	}
	owner := func(addr string) string {
		if table == nil {
			return "no map"
		}
		c, _ := table.Lookup(netip.MustParseAddr(addr))
		if len(c.Nodes) == 0 {
			return ""
		}
		return table.Names[c.Nodes[0]]
	}
	const soa = "MAP 0 IN SOA . . 9 1 1 1 0"
	referral := func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Ns = []dns.RR{&dns.NS{Hdr: dnsmsg.Header(cut, dns.TypeNS, 300), Ns: "par1.lb.gslb.example.org."}}
		_ = w.WriteMsg(m)
	}
	f.limiter.Allow() // so that the last version of these is one too many
	for _, step := range []struct {
		name   string
		b1, b2 dns.HandlerFunc // nil: as before
		err    string          // part of the error
		want   string          // the first node for 198.51.100.1
		log    string
	}{
		{"no map yet", nil, nil, "the server has no map yet, as after a restart; DNS-B " + string(b2.Endpoint) + ": the server has no map of svc.gslb.example.org. for key 'par1.key.example.org.': the node has not registered yet", "no map",
			`Failed to fetch the map of "svc.gslb.example.org." for node "par1" since `},
		{"a version without maps", referral, nil, "the server has no zone _map.svc.gslb.example.org.: its version is older than that of this node", "no map", ""},
		{"the first", mapOf(7, "198.51.100.0/24", "par1"), nil, "", "par1", `Fetched the map of "svc.gslb.example.org." for node "par1" from DNS-B ` + string(b1.Endpoint) + ": 1 prefix, 2 nodes"},
		{"the same", nil, nil, "", "par1", ""},
		{"another", mapOf(8, "198.51.100.0/24", "lon1"), nil, "", "lon1", ""},
		{"broken off", instead(mapOf(9, "198.51.100.0/24", "par1"), soa, `MAP 0 IN TXT "v=1"`), nil, "EOF", "lon1", `, keeping the previous map, retrying: DNS-B `},
		{"another version", instead(mapOf(9, "198.51.100.0/24", "par1"), soa, `MAP 0 IN TXT "v=2"`, soa), nil, "unknown version \"v=2\", expected \"v=1\"", "lon1", ""},
		{"from the other DNS-B", nil, mapOf(3, "198.51.100.0/24", "par1"), "", "par1", `Recovered: map of "svc.gslb.example.org." at node "par1"`},
		{"which stays", mapOf(10, "198.51.100.0/24", "lon1"), nil, "", "par1", ""},
		{"too many versions in a minute", nil, mapOf(4, "198.51.100.0/24", "lon1"), "", "par1", ""},
	} {
		if step.b1 != nil {
			b1.answer.Store(&step.b1)
		}
		if step.b2 != nil {
			b2.answer.Store(&step.b2)
		}
		err := look()
		if err == nil && step.err != "" || err != nil && (step.err == "" || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%s: expected error %q, got %v", step.name, step.err, err)
		}
		if got := owner("198.51.100.1"); got != step.want {
			t.Errorf("%s: expected %s, got %s", step.name, step.want, got)
		}
		lines := strings.Join(out.Lines(), "\n")
		if step.log == "" && lines != "" || !strings.Contains(lines, step.log) {
			t.Errorf("%s: expected the log %q, got %q", step.name, step.log, lines)
		}
	}
	for result, want := range map[string]float64{"new": 1, "deferred": 1, "unchanged": 1} {
		if got := testutil.ToFloat64(mapPulls.WithLabelValues("par1", string(b2.Endpoint), result)); got != want {
			t.Errorf("Expected %v pulls that ended as %s, got %v", want, result, got)
		}
	}
	if s := f.State(); s.DNSB != string(b2.Endpoint) || s.Serial != 3 || s.Prefixes != 1 || s.Nodes != 2 || s.Error != "" || s.CheckedAt.Before(s.FetchedAt) {
		t.Errorf("Unexpected state %+v", s)
	}
	f.discard()
	if table != nil || !f.State().FetchedAt.IsZero() {
		t.Error("Expected no map any more")
	}
}

// TestNotify checks that a NOTIFY of a DNS-B makes the node fetch at once, and that
// of another address does not.
func TestNotify(t *testing.T) {
	b1 := startServer(t, mapOf(7, "198.51.100.0/24", "par1"))
	tables := make(chan *nodemap.Table, 4)
	f := New(func(m *nodemap.Table) { tables <- m })
	f.Configure(Settings{Node: "par1", Cut: cut, DNSBs: []dnsclient.Endpoint{b1.Endpoint}, Key: testKey(t)})
	expect := func() {
		t.Helper()
		select {
		case <-tables:
		case <-time.After(20 * time.Second):
			t.Fatal("Expected a map within 20 s, before the next question is due")
		}
	}
	expect()
	next := mapOf(8, "198.51.100.0/24", "par1")
	b1.answer.Store(&next)
	if f.Notify(netip.MustParseAddr("192.0.2.1")) {
		t.Error("Expected a NOTIFY from elsewhere to be rejected")
	}
	if !f.Notify(netip.MustParseAddr("127.0.0.1")) {
		t.Error("Expected a NOTIFY of DNS-B to be accepted")
	}
	expect()
	f.Configure(Settings{Node: "par1", Cut: cut})
	if m := <-tables; m != nil {
		t.Error("Expected no map without a DNS-B")
	}
	f.Close()
}
