package prober

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// The tests of this file hold the table of docs/measuring.md.

// server accepts connections on loopback until the test ends.
type server struct {
	port     string
	number   uint16        // of the port
	accepted atomic.Int32  // connections so far
	ended    atomic.Int32  // connections that are closed
	stalled  chan struct{} // closed by stall
}

func serve(t *testing.T, handle func(net.Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s := &server{port: port, number: uint16(l.Addr().(*net.TCPAddr).Port), stalled: make(chan struct{})}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			go func() {
				defer s.ended.Add(1)
				defer conn.Close()
				handle(stallConn{conn, s.stalled})
			}()
		}
	}()
	return s
}

// stallConn is a connection of a server that may stall.
type stallConn struct {
	net.Conn
	stalled chan struct{}
}

// stall says nothing until the client closes the connection. A probe that has
// met it need not wait: its time is up. Each server stalls once.
func stall(conn net.Conn) {
	close(conn.(stallConn).stalled)
	silence(conn)
}

// silence says nothing until the client closes the connection.
func silence(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// stallContext ends like one whose deadline has passed.
type stallContext struct {
	context.Context
	over chan struct{}
}

func (c stallContext) Done() <-chan struct{} { return c.over }

func (c stallContext) Err() error {
	select {
	case <-c.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// respond reads a request and writes parts of an answer.
func respond(parts ...string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		for _, part := range parts {
			if _, err := io.WriteString(conn, part); err != nil {
				return
			}
		}
	}
}

// forever reads a request, writes a beginning, and then a part again and again.
func forever(beginning, part string) func(net.Conn) {
	return func(conn net.Conn) {
		respond(beginning)(conn)
		for {
			if _, err := io.WriteString(conn, part); err != nil {
				return
			}
		}
	}
}

// then calls handlers one after the other.
func then(handlers ...func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		for _, handle := range handlers {
			handle(conn)
		}
	}
}

// outcome is what a probe of an odd server is to say: "ok", or the reason of a
// failure.
func expectOutcome(t *testing.T, want string, err error) {
	t.Helper()
	got := "ok"
	if err != nil {
		got = string(ReasonOf(err))
	}
	if got != want || LocalReasonOf(err) != "" {
		t.Errorf("Expected %s, got %s: %v", want, got, err)
	}
	if !Reached(err) {
		t.Errorf("Expected the server to count as reached, got %v", err)
	}
}

// probeOdd measures a server on loopback. If a timeout is expected, the time is
// up when the server stalls. server is nil for DNS.
func probeOdd(t *testing.T, want string, p Prober, s *server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if want == string(Timeout) {
		ctx = stallContext{ctx, s.stalled}
	}
	result, err := p.Probe(ctx, loopback, netip.Addr{})
	expectOutcome(t, want, err)
	if err == nil && result.RTT <= 0 {
		t.Errorf("Expected a latency, got %+v", result)
	}
	for began := time.Now(); s != nil && s.ended.Load() < s.accepted.Load(); time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("Expected the connection to be closed")
		}
	}
}

func TestOddTCPServers(t *testing.T) {
	tests := []struct {
		name   string
		handle func(net.Conn)
	}{
		{"says nothing", silence},
		{"closes at once", func(net.Conn) {}},
		{"resets", func(conn net.Conn) { _ = conn.(stallConn).Conn.(*net.TCPConn).SetLinger(0) }},
		{"speaks first", forever("220 mail.example.org\r\n", "x")},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, tc.handle)
			for range 10 {
				probeOdd(t, "ok", TCP{Port: s.number}, s)
			}
		})
	}
}

func TestOddHTTPServers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "well")
	z.Close()
	wait := func(d time.Duration) func(net.Conn) { return func(net.Conn) { time.Sleep(d) } }
	tests := []struct {
		name              string
		handle            func(net.Conn)
		ttfb, total, well string // what the probe says: by default, with total, with total and match
	}{
		{"endless body", forever(ok+"\r\n", strings.Repeat("well ", 10000)), "ok", "ok", "ok"},
		{"endless chunks", forever(ok+"Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("4\r\nwell\r\n", 10000)), "ok", "ok", "ok"},
		{"endless body without end of line", forever(ok, strings.Repeat("x", 4096)), "other", "other", "other"},
		{"endless 1xx", forever("", "HTTP/1.1 102 Processing\r\n\r\n"), "other", "other", "other"},
		{"stalled body", then(respond(ok+"Content-Length: 10\r\n\r\nw"), stall), "ok", "timeout", "timeout"},
		{"stalled header", then(respond("HTTP/1.1 200 O"), stall), "timeout", "timeout", "timeout"},
		{"says nothing", then(respond(), stall), "timeout", "timeout", "timeout"},
		{"chunked", respond(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n2\r\nll\r\n0\r\n\r\n"), "ok", "ok", "ok"},
		{"bad chunk", respond(ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n"), "ok", "other", "other"},
		{"early hints", respond("HTTP/1.1 103 Early Hints\r\n\r\n" + ok + "Content-Length: 4\r\n\r\nwell"), "ok", "ok", "ok"},
		{"early hints, then an error", respond("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Sorry\r\nContent-Length: 4\r\n\r\nwell"), "answer", "answer", "answer"},
		{"other protocol", then(respond("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), silence), "answer", "answer", "answer"},
		{"closes at once", func(net.Conn) {}, "other", "other", "other"},
		{"closes in the header", respond(ok + "Content-Len"), "other", "other", "other"},
		{"closes in the body", respond(ok + "Content-Length: 10\r\n\r\nwell"), "ok", "other", "other"},
		{"no length, closes", respond(ok + "\r\nwell"), "ok", "ok", "ok"},
		{"compressed", respond(ok + "Content-Encoding: gzip\r\n\r\n" + zipped.String()), "ok", "ok", "answer"},
		{"huge header", respond(ok+"X: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\nwell", ""), "other", "other", "other"},
		{"large header", respond(ok + "X: " + strings.Repeat("x", maxHeader/2) + "\r\n\r\nwell"), "ok", "ok", "ok"},
		{"keeps the connection", then(respond(ok+"Content-Length: 4\r\nConnection: keep-alive\r\n\r\nwell"), silence), "ok", "ok", "ok"},
		{"two lengths", respond(ok + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nwell"), "other", "other", "other"},
		{"HTTP/1.0", respond("HTTP/1.0 200 OK\r\n\r\nwell"), "ok", "ok", "ok"},
		{"HTTP/0.9", respond("well"), "other", "other", "other"},
		{"another protocol", respond("220 mail.example.org ESMTP\r\n"), "other", "other", "other"},
		{"slow", then(wait(20*time.Millisecond), respond(ok+"\r\nwell")), "ok", "ok", "ok"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			for _, probe := range []struct{ options, want string }{{"", tc.ttfb}, {"total", tc.total}, {"total match well", tc.well}} {
				s := serve(t, tc.handle)
				p, err := Parse(strings.Fields("http://[2001:db8::1]:" + s.port + "/ " + probe.options))
				if err != nil {
					t.Fatal(err)
				}
				probeOdd(t, probe.want, p, s)
				if n := s.accepted.Load(); n != 1 {
					t.Errorf("Expected one connection for each probe, got %d", n)
				}
			}
		})
	}
}

// TestHTTPHostIsIPv6Literal checks the Host header of a URL with an address.
func TestHTTPHostIsIPv6Literal(t *testing.T) {
	request := make(chan string, 1)
	s := serve(t, func(conn net.Conn) {
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		request <- string(buf[:n])
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	})
	rtt, err := probeLoopback(t, "", "http://[2001:db8::1]:"+s.port+"/")
	expectRTT(t, rtt, err, 1)
	if got := <-request; !strings.Contains(got, "\r\nHost: [2001:db8::1]:"+s.port+"\r\n") {
		t.Errorf("Expected the address as host, got %q", got)
	}
}

// TestHTTP2IsNotRetried checks that a server that refuses streams gets one
// connection for each probe.
func TestHTTP2IsNotRetried(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t, time.Now().Add(time.Hour))}, NextProtos: []string{"h2"}}
	for name, refuse := range map[string]func(*http2.Framer) error{
		"GOAWAY":         func(f *http2.Framer) error { return f.WriteGoAway(0, http2.ErrCodeNo, nil) },
		"REFUSED_STREAM": func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeRefusedStream) },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(conn net.Conn) {
				secure := tls.Server(conn, config)
				if _, err := io.ReadFull(secure, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				f := http2.NewFramer(secure, secure)
				_ = f.WriteSettings()
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					if frame.Header().Type == http2.FrameHeaders {
						_ = refuse(f)
					}
				}
			})
			p, err := Parse([]string{"https://www.example.org:" + s.port + "/", "insecure"})
			if err != nil {
				t.Fatal(err)
			}
			probeOdd(t, "answer", p, s)
			if n := s.accepted.Load(); n != 1 {
				t.Errorf("Expected one connection, got %d", n)
			}
		})
	}
}

// certificate returns a certificate for www.example.org, which is its own
// authority.
func certificate(t *testing.T, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"www.example.org"}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOddTLSServers(t *testing.T) {
	good, expired := certificate(t, time.Now().Add(time.Hour)), certificate(t, time.Now().Add(-time.Hour))
	// secure serves TLS and, after the handshake, an HTTP answer.
	secure := func(config *tls.Config) func(net.Conn) {
		if config.Certificates == nil {
			config.Certificates = []tls.Certificate{good}
		}
		return func(conn net.Conn) {
			server := tls.Server(conn, config)
			respond("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(server)
			server.Close()
		}
	}
	const v11, v12 = tls.VersionTLS11, tls.VersionTLS12
	tests := []struct {
		name      string
		handle    func(net.Conn)
		server    string // SNI, "" without one
		verified  string // the error has this text; "" for an untested one
		tls, http string // insecure
	}{
		{"TLS 1.0 and 1.1 alone", secure(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: v11}), "www.example.org", "protocol version", "other", "other"},
		{"TLS 1.2", secure(&tls.Config{MaxVersion: v12}), "www.example.org", "unknown authority", "ok", "ok"},
		{"certificate requested", secure(&tls.Config{ClientAuth: tls.RequestClientCert}), "www.example.org", "unknown authority", "ok", "ok"},
		{"certificate required, TLS 1.2", secure(&tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: v12}), "www.example.org", "", "other", "other"},
		{"certificate required, TLS 1.3", secure(&tls.Config{ClientAuth: tls.RequireAnyClientCert}), "www.example.org", "", "ok", "other"},
		{"another name", secure(&tls.Config{}), "mail.example.org", "not mail.example.org", "ok", "ok"},
		{"no SNI", secure(&tls.Config{}), "", "127.0.0.1", "ok", "ok"},
		{"refuses the name", secure(&tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, fmt.Errorf("no host %q", hello.ServerName)
		}}), "www.example.org", "internal error", "other", "other"},
		{"expired", secure(&tls.Config{Certificates: []tls.Certificate{expired}}), "www.example.org", "expired", "ok", "ok"},
		{"says nothing", then(respond(), stall), "www.example.org", "", "timeout", "timeout"},
		{"closes at once", func(net.Conn) {}, "www.example.org", "", "other", "other"},
		{"another protocol", then(respond("220 mail.example.org ESMTP\r\n"), silence), "www.example.org", "", "other", "other"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, tc.handle)
			probeOdd(t, tc.tls, TLS{Port: s.number, ServerName: tc.server, Insecure: true}, s)
			s = serve(t, tc.handle)
			host := cmp.Or(tc.server, loopback.String())
			page := HTTP{URL: "https://" + host + ":" + s.port + "/", Port: s.port}
			insecure := page
			insecure.Insecure = true
			probeOdd(t, tc.http, insecure, s)
			if tc.verified == "" {
				return
			}
			for _, p := range []Prober{TLS{Port: s.number, ServerName: tc.server}, page} {
				_, err := p.Probe(t.Context(), loopback, netip.Addr{})
				expectOutcome(t, "other", err)
				if err == nil || !strings.Contains(err.Error(), tc.verified) {
					t.Errorf("Expected an error with %q, got %v", tc.verified, err)
				}
			}
		})
	}
}

// listenBoth listens on one port of loopback, over UDP and TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", testport.Free(t))
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return pc, l
}

// dnsServer answers each query by the packets that a function returns, over UDP
// and TCP, and returns the port.
func dnsServer(t *testing.T, reply func(query *dns.Msg, overTCP bool) [][]byte) uint16 {
	t.Helper()
	pc, l := listenBoth(t)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			query := new(dns.Msg)
			if query.Unpack(buf[:n]) != nil {
				continue
			}
			for _, packet := range reply(query, false) {
				_, _ = pc.WriteTo(packet, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := &dns.Conn{Conn: c}
			if query, err := conn.ReadMsg(); err == nil {
				for _, packet := range reply(query, true) {
					_, _ = conn.Write(packet)
				}
			}
			conn.Close()
		}
	}()
	return uint16(pc.LocalAddr().(*net.UDPAddr).Port)
}

func TestOddDNSServers(t *testing.T) {
	pack := func(m *dns.Msg) []byte {
		packed, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return packed
	}
	// answer packs a reply to a query after a change.
	answer := func(query *dns.Msg, change func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetReply(query)
		if change != nil {
			change(m)
		}
		return pack(m)
	}
	always := func(change func(*dns.Msg)) func(*dns.Msg, bool) [][]byte {
		return func(query *dns.Msg, _ bool) [][]byte { return [][]byte{answer(query, change)} }
	}
	// foreign sends a packet that does not answer the query, then one that does.
	foreign := func(change func(*dns.Msg)) func(*dns.Msg, bool) [][]byte {
		return func(query *dns.Msg, _ bool) [][]byte {
			return [][]byte{answer(query, change), answer(query, func(m *dns.Msg) { m.Authoritative = true })}
		}
	}
	refuse := func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }
	aa := func(m *dns.Msg) { m.Authoritative = true }
	big := func(n int) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.Authoritative = true
			for range n / 200 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 188)}})
			}
		}
	}
	// truncated has TC over UDP, and then answers over TCP.
	truncated := func(udp func([]byte) []byte, tcp func(*dns.Msg, bool) [][]byte) func(*dns.Msg, bool) [][]byte {
		return func(query *dns.Msg, overTCP bool) [][]byte {
			if overTCP {
				return tcp(query, true)
			}
			return [][]byte{udp(answer(query, func(m *dns.Msg) { big(400)(m); m.Truncated = true }))}
		}
	}
	whole := func(b []byte) []byte { return b }
	tests := []struct {
		name       string
		reply      func(query *dns.Msg, overTCP bool) [][]byte
		rtt, check string // what 'rtt dns' says, and the check for authority
	}{
		{"authoritative", always(aa), "ok", "ok"},
		{"lame: NOERROR without AA", always(nil), "ok", "answer"},
		{"lame: referral", always(func(m *dns.Msg) {
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "a.root-servers.net."}}
		}), "ok", "answer"},
		{"REFUSED", always(refuse), "answer", "answer"},
		{"SERVFAIL without question", always(func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeServerFailure, nil }), "answer", "answer"},
		{"FORMERR without question", always(func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeFormatError, nil }), "answer", "answer"},
		{"NOERROR without question", always(func(m *dns.Msg) { aa(m); m.Question = nil }), "answer", "answer"},
		{"unknown response code", always(func(m *dns.Msg) { m.Rcode = 12 }), "answer", "answer"},
		{"malformed", func(query *dns.Msg, _ bool) [][]byte {
			packed := answer(query, big(400))
			return [][]byte{packed[:len(packed)-100]}
		}, "answer", "answer"},
		{"another ID first", foreign(func(m *dns.Msg) { refuse(m); m.Id++ }), "ok", "ok"},
		{"another question first", foreign(func(m *dns.Msg) { refuse(m); m.Question[0].Name = "www.example.net." }), "ok", "ok"},
		{"another type first", foreign(func(m *dns.Msg) { refuse(m); m.Question[0].Qtype = dns.TypeNS }), "ok", "ok"},
		{"query first", foreign(func(m *dns.Msg) { refuse(m); m.Response = false }), "ok", "ok"},
		{"question in capitals", always(func(m *dns.Msg) { aa(m); m.Question[0].Name = strings.ToUpper(m.Question[0].Name) }), "ok", "ok"},
		{"larger than announced", always(big(2400)), "ok", "ok"},
		{"truncated", truncated(whole, always(aa)), "ok", "ok"},
		{"truncated in a record", truncated(func(b []byte) []byte { return b[:len(b)-100] }, always(aa)), "ok", "ok"},
		{"truncated to the header", truncated(func(b []byte) []byte { return b[:12] }, always(aa)), "ok", "ok"},
		{"truncated, lame over TCP", truncated(whole, always(nil)), "ok", "answer"},
		{"truncated, REFUSED over TCP", truncated(whole, always(refuse)), "answer", "answer"},
		{"truncated, another ID over TCP", truncated(whole, always(func(m *dns.Msg) { aa(m); m.Id++ })), "answer", "answer"},
		{"truncated, another question over TCP", truncated(whole, always(func(m *dns.Msg) { aa(m); m.Question[0].Name = "." })), "answer", "answer"},
		{"truncated, closes over TCP", truncated(whole, func(*dns.Msg, bool) [][]byte { return nil }), "other", "other"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			port := dnsServer(t, tc.reply)
			probeOdd(t, tc.rtt, DNS{Port: port, Name: "www.example.org.", Type: dns.TypeA}, nil)
			probeOdd(t, tc.check, DNS{Port: port, Name: "www.example.org.", Type: dns.TypeSOA, Authoritative: true}, nil)
		})
	}
}
