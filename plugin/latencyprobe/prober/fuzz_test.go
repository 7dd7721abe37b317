package prober

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
)

// FuzzConnection sends anything over the connection of a probe, and ends it. The
// probe ends as well: with an answer that was expected, or with the reason of a
// failure after the target had answered.
func FuzzConnection(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	reply := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	reply.Id, reply.Response = 4711, true
	packed, err := reply.Pack()
	if err != nil {
		f.Fatal(err)
	}
	framed := append([]byte{0, byte(len(packed))}, packed...)
	for _, stream := range [][]byte{
		[]byte(ok), []byte("HTTP/1.0 200\r\n\r\nok"), []byte("HTTP/1.1 503 \x1b[2J" + strings.Repeat("x", 1000) + "\r\n\r\n"), []byte("HTTP/1.1 100 Continue\r\n\r\n" + ok), []byte("HTTP/1.1 101 Switching\r\n\r\n"),
		[]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
		[]byte("HTTP/1.1 204 No Content\r\n\r\n"), []byte("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08"), []byte("HTTP/9.9 999 \x00\r\n: \r\n\r\n"),
		framed, framed[:2], framed[:10], append([]byte{0, 12}, packed[:12]...), {0xff, 0xff}, nil,
		[]byte("\x16\x03\x01\x00\x00"), []byte("\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + strings.Repeat("r", 32) + "\x00\x13\x01\x00"), []byte("\x15\x03\x03\x00\x02\x02\x28"), []byte("220 mail.example.org ESMTP\r\n"),
	} {
		for method := range uint8(5) {
			f.Add(stream, method)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	port := uint16(l.Addr().(*net.TCPAddr).Port) // #nosec G115 -- a port
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	f.Fuzz(func(t *testing.T, content []byte, method uint8) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if conn, err := l.Accept(); err == nil {
				send(conn, content)
			}
		}()
		defer func() { <-ended }()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		start := time.Now()
		var result Result
		var err error
		switch method % 5 {
		case 0:
			result, err = HTTP{URL: url, Port: fmt.Sprint(port)}.Probe(ctx, loopback, netip.Addr{})
		case 1:
			result, err = HTTP{URL: url, Port: fmt.Sprint(port), Total: true, Match: "ok"}.Probe(ctx, loopback, netip.Addr{})
		case 2:
			result, err = TLS{Port: port, Insecure: true}.Probe(ctx, loopback, netip.Addr{})
			if err == nil {
				t.Fatal("Expected no handshake without a key")
			}
		case 3:
			result, err = TCP{Port: port}.Probe(ctx, loopback, netip.Addr{})
		case 4:
			query := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
			query.Id = 4711
			packed, _ := query.Pack()
			var answer *dns.Msg
			answer, result, err = exchangeTCP(ctx, query, packed, netip.AddrPortFrom(loopback, port).String(), netip.Addr{})
			if err == nil && answer.Id != query.Id {
				t.Fatalf("Expected the answer to the query, got %v", answer)
			}
		}
		if err == nil {
			if took := time.Since(start); result.RTT <= 0 || result.RTT > took {
				t.Fatalf("Expected a time of at most %s, got %s", took, result.RTT)
			}
			return
		}
		if result != (Result{}) {
			t.Fatalf("Expected no time with an error, got %+v, %v", result, err)
		}
		if LocalReasonOf(err) != "" || !slices.Contains([]Reason{Refused, WrongAnswer, Other}, ReasonOf(err)) {
			t.Fatalf("Expected a failure of the target, got %q and %q: %v", LocalReasonOf(err), ReasonOf(err), err)
		}
		if text := remotetext.Clean(err.Error()); text == "" {
			t.Fatal("Expected the reason of the failure")
		}
	})
}

// send writes what there is while it reads what the client sends, and closes the
// connection after the client.
func send(conn net.Conn, content []byte) {
	_, _ = conn.Read(make([]byte, 1)) // *http* does not take an answer before its request
	_, _ = conn.Write(content)
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}
