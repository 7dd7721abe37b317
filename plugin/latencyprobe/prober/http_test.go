package prober

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

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
			_, _ = io.WriteString(w, "today all is well")
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
	_, securePort, _ := net.SplitHostPort(secure.Listener.Addr().String())

	t.Run("headers of the request", func(t *testing.T) {
		rtt, err := probeLoopback(t, "127.0.0.9", base(plain)+"/")
		expectRTT(t, rtt, err, 1)
		if !strings.Contains(agent, "https://") || !strings.HasPrefix(host, "www.example.org") {
			t.Errorf("Expected a User-Agent with a URL, and the URL's host, got %q, %q", agent, host)
		}
	})
	t.Run("redirect is not followed", func(t *testing.T) {
		rtt, err := probeLoopback(t, "", base(plain)+"/moved")
		expectRTT(t, rtt, err, 1)
	})
	t.Run("first byte", func(t *testing.T) {
		rtt, err := probeLoopback(t, "", base(plain)+"/slow")
		expectRTT(t, rtt, err, 1)
	})
	t.Run("total", func(t *testing.T) {
		rtt, err := probeLoopback(t, "", base(plain)+"/slow", "total")
		expectRTT(t, rtt, err, 100*time.Millisecond)
	})
	t.Run("status 503", func(t *testing.T) {
		_, err := probeLoopback(t, "", base(plain)+"/error")
		expectReason(t, err, WrongAnswer)
	})
	for _, tc := range []struct {
		method []string
		ok     bool
	}{
		{[]string{base(plain) + "/error", "expect", "503"}, true},
		{[]string{base(plain) + "/", "expect", "204"}, false},
		{[]string{base(plain) + "/", "match", "all is well"}, true},
		{[]string{base(plain) + "/", "match", "all is lost"}, false},
		{[]string{base(secure) + "/", "insecure"}, true},
		{[]string{"tls", securePort, "example.com", "insecure"}, true},
	} {
		t.Run(strings.Join(tc.method[1:], " "), func(t *testing.T) {
			if _, err := probeLoopback(t, "", tc.method...); (err == nil) != tc.ok || !tc.ok && ReasonOf(err) != WrongAnswer {
				t.Errorf("Expected success %v, got %v", tc.ok, err)
			}
		})
	}
	t.Run("phases", func(t *testing.T) {
		p, err := Parse([]string{base(secure) + "/slow", "insecure", "total"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Probe(t.Context(), loopback, netip.Addr{})
		if err != nil || got.Connect <= 0 || got.TLS <= 0 || got.FirstByte < got.Connect+got.TLS ||
			got.Total <= got.FirstByte || got.Total < 100*time.Millisecond || got.RTT != got.Total {
			t.Errorf("Unexpected phases %+v, %v", got, err)
		}
	})
	for _, method := range [][]string{{base(secure) + "/"}, {"tls", securePort, "example.com"}} {
		t.Run("unknown certificate", func(t *testing.T) {
			var unknown *tls.CertificateVerificationError
			if _, err := probeLoopback(t, "", method...); !errors.As(err, &unknown) {
				t.Errorf("%v: Expected the certificate to be verified, got %v", method, err)
			}
		})
	}
}

// TestHTTP2 checks that a server that speaks nothing else is measured like
// others: over a new connection each time, which is closed, with all phases.
func TestHTTP2(t *testing.T) {
	var opened, closed atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		}
		if r.URL.Path == "/endless" {
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 1<<16))
			}
			return
		}
		_, _ = io.WriteString(w, "today all is well")
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{NextProtos: []string{"h2"}}
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	server.TLS.NextProtos = []string{"h2"} // StartTLS adds http/1.1
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for i, method := range []string{"/", "/ total match well", "/endless", "/endless total"} {
		p, err := Parse(strings.Fields("https://www.example.org:" + port + method + " insecure"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Probe(t.Context(), loopback, netip.Addr{})
		if err != nil || got.Connect <= 0 || got.TLS <= 0 || got.FirstByte < got.Connect+got.TLS || got.RTT < got.FirstByte {
			t.Errorf("%s: Unexpected phases %+v, %v", method, got, err)
		}
		if n := opened.Load(); n != int32(i)+1 {
			t.Errorf("%s: Expected %d connections, got %d", method, i+1, n)
		}
		for began := time.Now(); closed.Load() < int32(i)+1; time.Sleep(time.Millisecond) {
			if time.Since(began) > patience {
				t.Fatalf("%s: Expected the connection to be closed", method)
			}
		}
	}
}
