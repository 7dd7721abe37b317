package fastpath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/multisocket"
	_ "github.com/coredns/coredns/plugin/nsid"
	"github.com/coredns/coredns/plugin/pkg/reuseport"
	_ "github.com/coredns/coredns/plugin/shed"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/tsig"
	_ "github.com/coredns/coredns/plugin/view"
	_ "github.com/coredns/coredns/plugin/whoami"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// echo is a plugin that answers with the address that asks. What it counts and how it
// fails, the tests set.
type echo struct{}

const (
	echoName  = "fastecho"
	echoScope = 20
)

var (
	chainAnswers, fastAnswers atomic.Int64
	lies, panics, flaps       atomic.Bool
	changes                   atomic.Int64 // of what echo answers
)

func init() {
	caddy.Quiet, dnsserver.Quiet = true, true
	plugin.Register(echoName, func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return echo{} })
		c.Next()
		c.NextArg()
		Enable(c, Block{Plugin: echoName, Answerer: echo{}, Off: strings.TrimPrefix(c.Val(), echoName)})
		return nil
	})
	i := slices.Index(dnsserver.Directives, "dynupdate")
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), i, echoName)
}

func (echo) Name() string { return echoName }

func (echo) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	chainAnswers.Add(1)
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	from := w.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	hdr := dns.RR_Header{Name: r.Question[0].Name, Class: dns.ClassINET, Ttl: 7}
	switch q := r.Question[0]; {
	case q.Qtype == dns.TypeTXT:
		hdr.Rrtype = dns.TypeTXT
		m.Answer = []dns.RR{&dns.TXT{Hdr: hdr, Txt: []string{"of the chain"}}}
	case from.Is4():
		hdr.Rrtype = dns.TypeA
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: from.AsSlice()}}
	default:
		hdr.Rrtype = dns.TypeAAAA
		m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: from.AsSlice()}}
	}
	dnsmsg.SetOptions(m, r, 0, "")
	dnsmsg.SetScope(m, echoScope)
	if flaps.Load() { // what is answered by changes, and changes back
		changes.Add(2)
		m.Answer[0].Header().Ttl = 8
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

func (echo) Basis(*Query) any { return changes.Load() }

func (echo) Answer(q *Query, out []byte) (n int, ok bool) {
	if q.Type == dns.TypeTXT {
		return 0, false
	}
	if panics.Load() {
		panic("as the test wants")
	}
	from := q.From
	if lies.Load() {
		from = from.Next()
	}
	if !q.Trial {
		fastAnswers.Add(1)
	}
	return q.EndEcho(AppendAddress(q.Begin(out, true, dns.RcodeSuccess, 1, 0, 0), q.Suffix(0), from, 7), echoScope)
}

// running is a running server.
type running struct {
	t        *testing.T
	instance *caddy.Instance
}

func input(text string, port int) caddy.Input {
	text = strings.ReplaceAll(text, "PORT", fmt.Sprint(port))
	return caddy.CaddyfileInput{Contents: []byte(text), Filepath: "Corefile", ServerTypeName: "dns"}
}

func serve(t *testing.T, text string, port int) *running {
	t.Helper()
	instance, err := caddy.Start(input(text, port))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t, instance}
	t.Cleanup(func() {
		if err := errors.Join(r.instance.ShutdownCallbacks()...); err != nil {
			t.Error(err)
		}
		_ = r.instance.Stop()
		for _, l := range listeners.Values() {
			if strings.HasSuffix(l.addr, fmt.Sprintf(":%d", port)) {
				t.Errorf("Expected no listener to remain, got %s", l.addr)
			}
		}
	})
	return r
}

func (r *running) reload(text string, port int) {
	r.t.Helper()
	instance, err := r.instance.Restart(input(text, port))
	if err != nil {
		r.t.Fatal(err)
	}
	r.instance = instance
}

// opened waits until the fast path of a server is open.
func opened(t *testing.T, addr string) *listener {
	t.Helper()
	var found *listener
	waitFor(t, "the fast path to open at "+addr, func() bool {
		for _, l := range listeners.Values() {
			if l.addr == addr {
				found = l
			}
		}
		return found != nil && testutil.ToFloat64(enabledGauge.WithLabelValues(addr)) == 1
	})
	return found
}

func waitFor(t *testing.T, event string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("Expected %s within a minute", event)
		}
	}
}

// ask asks from an address of this machine, again if a datagram is lost, and returns the data of
// the answer and who sent it.
func ask(t *testing.T, from, to string, qtype uint16, edit func(*dns.Msg)) (answer, by string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("www.example.org.", qtype)
	if edit != nil {
		edit(m)
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 4096)
	for range 10 {
		if _, err := conn.WriteToUDPAddrPort(packet, netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, peer, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			continue
		}
		r := new(dns.Msg)
		if err := r.Unpack(b[:n]); err != nil {
			t.Fatal(err)
		}
		if len(r.Answer) == 0 {
			return dns.RcodeToString[r.Rcode], peer.String()
		}
		_, answer, _ := strings.Cut(r.Answer[0].String(), dns.TypeToString[r.Answer[0].Header().Rrtype]+"\t")
		return answer, peer.String()
	}
	t.Fatalf("Expected a reply of %s", to)
	return "", ""
}

// begun waits until CoreDNS serves by its own sockets: it does not stop a server that
// has not begun to, as that of an instance which is reloaded at once.
func begun(t *testing.T, addr string) {
	t.Helper()
	if got, _ := ask(t, "127.0.0.1", addr, dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }); got != "NOTIMP" {
		t.Errorf("Expected NOTIMP for an UPDATE, got %s", got)
	}
	client := dns.Client{Net: "tcp", Timeout: time.Minute}
	if r, _, err := client.Exchange(new(dns.Msg).SetQuestion(".", dns.TypeNS), addr); err != nil || r.Rcode != dns.RcodeRefused {
		t.Errorf("Expected REFUSED over TCP for a zone of others, got %v, %v", r, err)
	}
}

const echoBlock = "example.org:PORT {\nbind 127.0.0.1\nerrors\nfastecho\n}\n"

func TestListenerAnswers(t *testing.T) {
	for _, tc := range []struct{ name, bind, addr, from, to string }{
		{"IPv4", "bind 127.0.0.1", "127.0.0.1:%d", "127.0.0.2", "127.0.0.1:%d"},
		{"IPv6", "bind ::1", "[::1]:%d", "::1", "[::1]:%d"},
		{"all addresses, IPv4", "", ":%d", "127.0.0.3", "127.0.0.7:%d"},
		{"all addresses, IPv6", "", ":%d", "::1", "[::1]:%d"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			port := testport.Free(t)
			addr, to := "dns://"+fmt.Sprintf(tc.addr, port), fmt.Sprintf(tc.to, port)
			serve(t, "example.org:PORT {\n"+tc.bind+"\nerrors\nfastecho\n}\nsub.example.org:PORT {\n"+tc.bind+"\nwhoami\n}\n", port)
			l := opened(t, addr)
			fast := fastAnswers.Load()
			for range 100 {
				if got, by := ask(t, tc.from, to, dns.TypeA, nil); got != tc.from || by != to {
					t.Fatalf("Expected %s from %s, got %s from %s", tc.from, to, got, by)
				}
			}
			if n := fastAnswers.Load() - fast; n == 0 || n != int64(testutil.ToFloat64(l.results.answered)) {
				t.Errorf("Expected answers of the fast path, got %d, counted %v", n, testutil.ToFloat64(l.results.answered))
			}
			if n := testutil.ToFloat64(l.results.compared); n < 1 {
				t.Errorf("Expected comparisons, got %v", n)
			}
			handed := testutil.ToFloat64(l.results.chain)
			if got, by := ask(t, tc.from, to, dns.TypeTXT, nil); got != `"of the chain"` || by != to {
				t.Errorf("Expected the answer of the chain from %s, got %s from %s", to, got, by)
			}
			if got, by := ask(t, tc.from, to, dns.TypeA, func(m *dns.Msg) { m.Question[0].Name = "a.sub.example.org." }); got != "NOERROR" || by != to {
				t.Errorf("Expected the answer of another server block from %s, got %s from %s", to, got, by)
			}
			waitFor(t, "2 queries to be handed over", func() bool { return testutil.ToFloat64(l.results.chain)-handed >= 2 })
			if got, _ := ask(t, tc.from, to, dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }); got != "NOTIMP" {
				t.Errorf("Expected NOTIMP for an UPDATE, got %s", got)
			}
		})
	}
}

func TestFailureSwitchesOff(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail *atomic.Bool
		want string
	}{
		{"different reply", &lies, "differ"},
		{"panic", &panics, "it panicked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := logtest.Capture(t)
			tc.fail.Store(true)
			defer tc.fail.Store(false)
			port := testport.Free(t)
			addr, to := fmt.Sprintf("dns://127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port)
			r := serve(t, echoBlock, port)
			opened(t, addr)
			for range 50 {
				if got, _ := ask(t, "127.0.0.1", to, dns.TypeA, nil); got != "127.0.0.1" {
					t.Fatalf("Expected no wrong answer, got %s", got)
				}
			}
			waitFor(t, "the fast path to switch itself off", func() bool { return testutil.ToFloat64(enabledGauge.WithLabelValues(addr)) == 0 })
			if text := strings.Join(out.Lines(), "\n"); !strings.Contains(text, tc.want) || strings.Count(text, "Switched the fast path") != 1 {
				t.Errorf("Expected one line with %q, got:\n%s", tc.want, text)
			}
			tc.fail.Store(false)
			r.reload(echoBlock, port)
			opened(t, addr)
			fast := fastAnswers.Load()
			waitFor(t, "the fast path to answer after a reload", func() bool {
				ask(t, "127.0.0.1", to, dns.TypeA, nil)
				return fastAnswers.Load() > fast
			})
		})
	}
}

// TestChangesWhileChainAnswers has the chain answer from what there is for a moment only, so
// that the fast path has the same reply before and after.
func TestChangesWhileChainAnswers(t *testing.T) {
	flaps.Store(true)
	defer flaps.Store(false)
	port := testport.Free(t)
	addr := fmt.Sprintf("dns://127.0.0.1:%d", port)
	serve(t, echoBlock, port)
	l := opened(t, addr)
	waitFor(t, "16 comparisons", func() bool {
		ask(t, "127.0.0.1", fmt.Sprintf("127.0.0.1:%d", port), dns.TypeA, nil)
		return testutil.ToFloat64(l.results.compared) >= compareFirst
	})
	if testutil.ToFloat64(enabledGauge.WithLabelValues(addr)) != 1 {
		t.Error("Expected the fast path to stay on")
	}
}

// TestReceiveBuffers looks at the sockets of a server, where the fast path is on, and where
// it is off.
func TestReceiveBuffers(t *testing.T) {
	want := func() int {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		file, err := conn.File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		setReceiveBuffer(int(file.Fd()), chainBuffer) // #nosec G115 -- a descriptor
		return bufferOf(t, int(file.Fd()))            // #nosec G115 -- a descriptor
	}()
	for _, bind := range []string{"bind 127.0.0.1", ""} {
		for word, sockets := range map[string]int{"": 1 + runtime.GOMAXPROCS(0), " off": 1} {
			port := testport.Free(t)
			serve(t, "example.org:PORT {\n"+bind+"\nerrors\nfastecho"+word+"\n}\n", port)
			host := ""
			if bind != "" {
				host = "127.0.0.1"
			}
			waitFor(t, fmt.Sprintf("%d sockets with %d bytes, %q, %q", sockets, want, bind, word), func() bool {
				entries, err := os.ReadDir("/proc/self/fd")
				if err != nil {
					t.Fatal(err)
				}
				large := 0
				for _, entry := range entries {
					if fd, _ := strconv.Atoi(entry.Name()); isAt(fd, &net.UDPAddr{IP: net.ParseIP(host), Port: port}) && bufferOf(t, fd) >= want {
						large++
					}
				}
				return large >= sockets
			})
		}
	}
}

func bufferOf(t *testing.T, fd int) int {
	t.Helper()
	size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func TestSelfTestFindsWrongOrder(t *testing.T) {
	port := testport.Free(t)
	other, err := reuseport.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, echoBlock, port)
	l := opened(t, fmt.Sprintf("dns://127.0.0.1:%d", port))
	l.cancel() // its own test
	waitFor(t, "the self-test to end", func() bool { return l.test.Load() == nil })
	if err := l.tryOnce(t.Context()); err == nil {
		t.Error("Expected the self-test to fail while another socket is the first one")
	}
	_ = other.Close() // the last socket takes its place
	if got, _ := ask(t, "127.0.0.1", fmt.Sprintf("127.0.0.1:%d", port), dns.TypeA, nil); got != "127.0.0.1" {
		t.Errorf("Expected the right answer whatever the order, got %s", got)
	}
}

// TestReloadLosesNothing reloads in all ways while queries come, one after the other
// from each of several clients.
func TestReloadLosesNothing(t *testing.T) {
	port := testport.Free(t)
	off := strings.Replace(echoBlock, "fastecho", "fastecho off", 1)
	r := serve(t, echoBlock, port)
	opened(t, fmt.Sprintf("dns://127.0.0.1:%d", port))
	begun(t, fmt.Sprintf("127.0.0.1:%d", port))
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 4)
	for client := range cap(failed) {
		go func() { failed <- askUntil(ctx, fmt.Sprintf("127.0.0.%d", client+10), port) }()
	}
	for _, text := range []string{echoBlock, off, off, echoBlock, echoBlock + "example.net:PORT {\nbind 127.0.0.1\nfastecho\n}\n", echoBlock} {
		r.reload(text, port)
		begun(t, fmt.Sprintf("127.0.0.1:%d", port))
	}
	cancel()
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

// askUntil asks until the context ends, and returns an error for the first query
// without an answer. It waits longer than any machine is slow.
func askUntil(ctx context.Context, from string, port int) error {
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return err
	}
	defer conn.Close()
	m := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	b := make([]byte, 512)
	for n := 0; ctx.Err() == nil; n++ {
		m.Id = uint16(n) // #nosec G115 -- any
		packet, err := m.Pack()
		if err != nil {
			return err
		}
		if _, err := conn.Write(packet); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		size, err := conn.Read(b)
		if err != nil {
			return fmt.Errorf("query %d of %s was lost: %w", n, from, err)
		}
		if !bytes.Equal(b[:2], packet[:2]) || !bytes.Contains(b[:size], net.ParseIP(from).To4()) {
			return fmt.Errorf("wrong reply to query %d of %s: %x", n, from, b[:size])
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil
}

func TestObstacles(t *testing.T) {
	const tsigLines = "tsig {\nsecret k. c2VjcmV0LWV4YW1wbGUtb25seQ==\n%s}\n"
	for _, tc := range []struct{ name, text, want string }{
		{"none", echoBlock, ""},
		{"harmless plugins", strings.Replace(echoBlock, "errors", "errors\nnsid x\nprometheus 127.0.0.1:0\n"+fmt.Sprintf(tsigLines, ""), 1), ""},
		{"plugin after it", strings.Replace(echoBlock, "errors", "whoami", 1), ""},
		{"TSIG for a part", strings.Replace(echoBlock, "errors", fmt.Sprintf(tsigLines, "require SOA AXFR\n"), 1), "tsig requires signatures of queries"},
		{"TSIG for all", strings.Replace(echoBlock, "errors", fmt.Sprintf(tsigLines, "require all\n"), 1), "tsig requires signatures of queries"},
		{"word", strings.Replace(echoBlock, "fastecho", "fastecho off", 1), "'off'"},
		{"log", strings.Replace(echoBlock, "errors", "log", 1), "plugin log has to see all queries"},
		{"acl", strings.Replace(echoBlock, "errors", "acl {\nallow\n}", 1), "plugin acl has to see all queries"},
		{"cache", strings.Replace(echoBlock, "errors", "cache", 1), "plugin cache has to see all queries"},
		{"template", strings.Replace(echoBlock, "errors", "template IN A {\nanswer \"x. 1 A 127.0.0.1\"\n}", 1), "plugin template has to see all queries"},
		{"shed", strings.Replace(echoBlock, "errors", "shed", 1), "plugin shed has to see all queries"},
		{"shed of another block", echoBlock + "example.net:PORT {\nbind 127.0.0.1\nshed\nwhoami\n}\n", "plugin shed has to see all queries"},
		{"another block", echoBlock + "example.net:PORT {\nbind 127.0.0.1\nlog\nwhoami\n}\n", ""},
		{"multisocket", strings.Replace(echoBlock, "errors", "multisocket 2", 1), "multisocket opens sockets of its own"},
		{"view", strings.Replace(echoBlock, "errors", "view v {\nexpr true\n}", 1), "a view has to see all queries"},
		{"view of another block", echoBlock + "example.org:PORT {\nbind 127.0.0.1\nwhoami\nview v {\nexpr false\n}\n}\n", "has the same zone and a view"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, port := logtest.Capture(t), testport.Free(t)
			serve(t, tc.text, port)
			text := strings.Join(out.Lines(), "\n")
			if on := strings.Contains(text, "Enabled the fast path of fastecho"); on != (tc.want == "") || !strings.Contains(text, tc.want) || strings.Count(text, "the fast path") != 1 {
				t.Fatalf("Expected one line with %q, got:\n%s", tc.want, text)
			}
			if tc.want == "" {
				opened(t, fmt.Sprintf("dns://127.0.0.1:%d", port))
			} else if n := len(listeners.Values()); n != 0 {
				t.Errorf("Expected no listener, got %d", n)
			}
		})
	}
}

// TestPrometheusCountsAlike sends the same queries to a server with the fast path and to
// one without: what *prometheus* counts is the same.
func TestPrometheusCountsAlike(t *testing.T) {
	const responses = "coredns_dns_responses_total plugin=errors rcode=NOERROR view= zone=example.org."
	var counted [2]map[string]float64
	for i, word := range []string{"", " off"} {
		port := testport.Free(t)
		addr := fmt.Sprintf("dns://127.0.0.1:%d", port)
		text := strings.Replace(echoBlock, "fastecho", "prometheus 127.0.0.1:0\nfastecho"+word, 1)
		fast := fastAnswers.Load()
		serve(t, text, port)
		if word == "" {
			opened(t, addr)
		}
		for n := range 40 {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeHTTPS, dns.TypeLOC, dns.TypeTXT} {
				ask(t, "127.0.0.1", fmt.Sprintf("127.0.0.1:%d", port), qtype, func(m *dns.Msg) {
					if n%2 == 0 {
						m.SetEdns0(1232, n%4 == 0)
					}
					if n%8 < 4 && n%2 == 0 {
						m.IsEdns0().Option = []dns.EDNS0{subnet(1, 24, 192, 0, 2, 0)}
					}
				})
			}
		}
		if n := fastAnswers.Load() - fast; (n > 0) != (word == "") {
			t.Errorf("Expected answers of the fast path only where it is on, got %d", n)
		}
		// CoreDNS counts a query after its reply.
		waitFor(t, "all queries to be counted", func() bool {
			all := countedOf(t, addr)
			return all["coredns_dns_response_size_bytes proto=udp view= zone=example.org. count"] >= 160 && all[responses] >= 160
		})
		counted[i] = countedOf(t, addr) // again: what is read first may be older than the rest
	}
	if len(counted[0]) < 10 {
		t.Fatalf("Expected counts, got %v", counted[0])
	}
	for name, want := range counted[1] {
		if got := counted[0][name]; got != want {
			t.Errorf("Expected %v for %s with the fast path, got %v", want, name, got)
		}
	}
	if len(counted[0]) != len(counted[1]) {
		t.Errorf("Expected the same series, got %v and %v", counted[0], counted[1])
	}
}

// countedOf returns what *prometheus* has counted of a server, without times.
func countedOf(t *testing.T, server string) map[string]float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]float64)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "coredns_dns_") {
			continue
		}
		for _, m := range f.GetMetric() {
			name := f.GetName()
			ours := false
			for _, l := range m.GetLabel() {
				if l.GetName() == "server" {
					ours = l.GetValue() == server
					continue
				}
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			if !ours {
				continue
			}
			if h := m.GetHistogram(); h != nil {
				counted[name+" count"] = float64(h.GetSampleCount())
				if !strings.Contains(name, "seconds") {
					counted[name+" sum"] = h.GetSampleSum()
				}
				continue
			}
			counted[name] = m.GetCounter().GetValue()
		}
	}
	return counted
}
