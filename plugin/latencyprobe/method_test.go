package latencyprobe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// sample measures loopback once by a method as it stands in a Corefile.
func sampleOnce(t *testing.T, source string, args ...string) (time.Duration, error) {
	t.Helper()
	m, err := parseMethod(args)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var from netip.Addr
	if source != "" {
		from = netip.MustParseAddr(source)
	}
	got, err := m.measure(ctx, loopback, from)
	return got.rtt, err
}

func expect(t *testing.T, what string, rtt time.Duration, err error, atLeast time.Duration) {
	t.Helper()
	if err != nil || rtt < atLeast || rtt > 2*time.Second {
		t.Errorf("%s: expected at least %s, got %s, %v", what, atLeast, rtt, err)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	from := make(chan net.Addr, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			from <- conn.RemoteAddr()
			conn.Close()
		}
	}()
	rtt, err := sampleOnce(t, "127.0.0.9", "tcp", port)
	expect(t, "tcp", rtt, err, 1)
	if got := (<-from).String(); !strings.HasPrefix(got, "127.0.0.9:") {
		t.Errorf("Expected the source address, got %s", got)
	}
	l.Close()
	if _, err := sampleOnce(t, "", "tcp", port); reason(err) != "refused" {
		t.Errorf("Expected to be refused, got %v", err)
	}
}

func TestDNS(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Skip("No port that is free for both transports")
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		_, overUDP := w.RemoteAddr().(*net.UDPAddr)
		switch first, _, _ := strings.Cut(r.Question[0].Name, "."); first {
		case "refused":
			m.Rcode = dns.RcodeRefused
		case "big":
			m.Truncated = overUDP
		case "aa":
			m.Authoritative = true
		case "silent":
			return
		}
		if !overUDP {
			time.Sleep(20 * time.Millisecond)
		}
		_ = w.WriteMsg(m)
	})
	udp, tcp := &dns.Server{PacketConn: pc, Handler: handler}, &dns.Server{Listener: l, Handler: handler}
	go func() { _ = udp.ActivateAndServe() }()
	go func() { _ = tcp.ActivateAndServe() }()
	defer pc.Close()
	defer l.Close()

	rtt, err := sampleOnce(t, "127.0.0.9", "dns", port, "www.example.org")
	expect(t, "dns", rtt, err, 1)
	rtt, err = sampleOnce(t, "", "dns", port, "big.example.org", "TXT")
	expect(t, "dns over TCP", rtt, err, 20*time.Millisecond)
	if _, err = sampleOnce(t, "", "dns", port, "refused.example.org"); reason(err) != "answer" {
		t.Errorf("Expected REFUSED to be a wrong answer, got %v", err)
	}
	if _, err = sampleOnce(t, "", "dns", port, "silent.example.org"); reason(err) != "timeout" {
		t.Errorf("Expected a timeout, got %v", err)
	}

	number, err := parsePort(port)
	if err != nil {
		t.Fatal(err)
	}
	p := (&probe{rtt: icmp{}, timeout: time.Second}).of(Target{Check: Check{number, "aa.example.org.", dns.TypeSOA}})
	if _, err := p.rtt.measure(t.Context(), loopback, netip.Addr{}); err != nil {
		t.Errorf("Expected an authoritative answer to do, got %v", err)
	}
	p = p.of(Target{Check: Check{number, "www.example.org.", dns.TypeSOA}})
	if _, err := p.rtt.measure(t.Context(), loopback, netip.Addr{}); reason(err) != "answer" {
		t.Errorf("Expected an answer without AA not to do, got %v", err)
	}
}

func TestHTTP(t *testing.T) {
	var agent, host string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent, host = r.UserAgent(), r.Host
		switch r.URL.Path {
		case "/error":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/error", http.StatusFound)
		case "/slow":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		default:
			_, _ = io.WriteString(w, "today all is well here")
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	base := func(s *httptest.Server) string {
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return u.Scheme + "://www.example.org:" + u.Port()
	}
	rtt, err := sampleOnce(t, "127.0.0.9", base(plain)+"/")
	expect(t, "http", rtt, err, 1)
	if !strings.Contains(agent, "https://") || !strings.HasPrefix(host, "www.example.org") {
		t.Errorf("Expected who we are and the URL's host, got %q, %q", agent, host)
	}
	rtt, err = sampleOnce(t, "", base(plain)+"/moved")
	expect(t, "a redirect", rtt, err, 1)
	first, err := sampleOnce(t, "", base(plain)+"/slow")
	expect(t, "first byte", first, err, 1)
	total, err := sampleOnce(t, "", base(plain)+"/slow", "total")
	expect(t, "total", total, err, 100*time.Millisecond)
	if _, err = sampleOnce(t, "", base(plain)+"/error"); reason(err) != "answer" {
		t.Errorf("Expected 503 to be a wrong answer, got %v", err)
	}
	for _, tc := range []struct {
		args []string
		ok   bool
	}{
		{[]string{base(plain) + "/error", "expect", "503"}, true},
		{[]string{base(plain) + "/", "expect", "204"}, false},
		{[]string{base(plain) + "/", "match", "all is well"}, true},
		{[]string{base(plain) + "/", "match", "all is lost"}, false},
		{[]string{base(secure) + "/", "insecure"}, true},
		{[]string{"tls", secure.Listener.Addr().(*net.TCPAddr).AddrPort().String()[len("127.0.0.1:"):], "example.com", "insecure"}, true},
	} {
		if _, err := sampleOnce(t, "", tc.args...); (err == nil) != tc.ok || !tc.ok && reason(err) != "answer" {
			t.Errorf("%v: expected success %v, got %v", tc.args, tc.ok, err)
		}
	}
	m, err := parseMethod([]string{base(secure) + "/slow", "insecure", "total"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.measure(t.Context(), loopback, netip.Addr{})
	if err != nil || got.connect <= 0 || got.tls <= 0 || got.firstByte < got.connect+got.tls || got.total <= got.firstByte || got.total < 100*time.Millisecond || got.rtt != got.total {
		t.Errorf("Unexpected phases %+v, %v", got, err)
	}
	var unknown *tls.CertificateVerificationError
	if _, err = sampleOnce(t, "", base(secure)+"/"); !errors.As(err, &unknown) {
		t.Errorf("Expected the certificate to be verified, got %v", err)
	}
	_, port, _ := net.SplitHostPort(secure.Listener.Addr().String())
	if _, err = sampleOnce(t, "", "tls", port, "example.com"); !errors.As(err, &unknown) {
		t.Errorf("Expected the certificate to be verified, got %v", err)
	}
}

func TestICMP(t *testing.T) {
	if _, err := icmpSocket(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	rtt, err := sampleOnce(t, "", "icmp")
	expect(t, "icmp", rtt, err, 1)
	if rtt, err = sampleOnce(t, "127.0.0.9", "icmp"); err != nil {
		t.Errorf("Expected the source address to do, got %s, %v", rtt, err)
	}
}
