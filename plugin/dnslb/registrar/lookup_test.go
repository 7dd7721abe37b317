package registrar

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// serveNodes answers for the nodes par1
// and cold (SERVFAIL), until the test ends.
func serveNodes(t *testing.T) dnsclient.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		switch q := r.Question[0]; {
		case q.Name == "cold.lb.gslb.example.org.":
			m.Rcode = dns.RcodeServerFailure
		case q.Name != "par1.lb.gslb.example.org.":
			m.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dnsmsg.Header(q.Name, dns.TypeA, 0), A: net.IPv4(192, 0, 2, 53)}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _, _ = srv.Shutdown(), l.Close(); <-done }) // the latter if it has not begun
	return dnsclient.Endpoint(l.Addr().String())
}

func TestLookup(t *testing.T) {
	r := New()
	if _, err := r.Lookup(t.Context(), "par1"); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("Expected an error before the node is registered, got %v", err)
	}
	s := &session{registrar: r, node: "lon1", dnsb: serveNodes(t), stated: new(statement), zone: "gslb.example.org."}
	r.sessions[s.dnsb] = s
	n, err := r.Lookup(t.Context(), "par1")
	if err != nil || fmt.Sprint(n) != "[192.0.2.53]" {
		t.Errorf("Unexpected addresses %v, %v", n, err)
	}
	if _, err := r.Lookup(t.Context(), "lon2"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("Expected an unknown node, got %v", err)
	}
	if _, err := r.Lookup(t.Context(), "cold"); err == nil || errors.Is(err, ErrUnknownNode) {
		t.Errorf("Expected an error that does not say whether the node exists, got %v", err)
	}
}
