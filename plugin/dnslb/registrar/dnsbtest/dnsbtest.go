// Package dnsbtest provides a DNS-B for tests.
package dnsbtest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

const (
	// KeyName and Secret are those of the key that nodes register with.
	KeyName = "par1.key."
	Secret  = "c2VjcmV0c2VjcmV0c2VjcmV0" // #nosec G101 -- of tests only
)

// Key returns the key that nodes register with.
func Key(t *testing.T) dnsclient.Key {
	t.Helper()
	key, err := dnsclient.NewKey(KeyName, "", Secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Server is a DNS-B whose zone is the parent of whatever cut it is asked about.
type Server struct {
	Addr string // ADDRESS:PORT

	registrations chan *registration.Registration

	mu      sync.Mutex
	known   bool   // the node
	refused int    // this part; 0: none
	serial  uint64 // is refused; 0: none
	silent  bool
}

// Start starts a server that accepts registrations signed with a secret, until
// the test ends.
func Start(t *testing.T, secret string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Serve(t, l, secret)
}

// Serve is Start for a listener.
func Serve(t *testing.T, l net.Listener, secret string) *Server {
	t.Helper()
	s := &Server{Addr: l.Addr().String(), registrations: make(chan *registration.Registration, 100)}
	srv := &dns.Server{
		Listener: l, Handler: s, TsigSecret: map[string]string{KeyName: secret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return s
}

// Next returns the next registration, part of one, or withdrawal.
func (s *Server) Next(t *testing.T) *registration.Registration {
	t.Helper()
	select {
	case reg := <-s.registrations:
		return reg
	case <-time.After(20 * time.Second):
		t.Fatal("No UPDATE in time")
		return nil
	}
}

// Pending returns the next registration if there is one already, else nil.
func (s *Server) Pending() *registration.Registration {
	select {
	case reg := <-s.registrations:
		return reg
	default:
		return nil
	}
}

// Forget makes the server forget the node.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = false
}

// Refuse makes the server refuse one part of registrations.
func (s *Server) Refuse(part int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = part
}

// RefuseSerial makes the server refuse registrations with a serial.
func (s *Server) RefuseSerial(serial uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial = serial
}

// Silence makes the server answer no UPDATE.
func (s *Server) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

// ServeDNS implements the dns.Handler interface.
func (s *Server) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.Question[0]
	switch {
	case r.Opcode == dns.OpcodeUpdate:
		s.update(w, r, m)
		return
	case q.Qtype == dns.TypeA && s.known:
		m.Answer = []dns.RR{&dns.A{Hdr: dnsmsg.Header(q.Name, dns.TypeA, 0), A: net.IPv4(192, 0, 2, 53)}}
	case q.Qtype == dns.TypeA:
		m.Rcode = dns.RcodeServerFailure // as just after its start
	default:
		m.Answer = []dns.RR{dnsmsg.NewSOA(q.Name, "b1."+q.Name, dnsmsg.Mailbox(q.Name), 1, 30)}
	}
	_ = w.WriteMsg(m)
}

func (s *Server) update(w dns.ResponseWriter, r, m *dns.Msg) {
	t := r.IsTsig()
	if w.TsigStatus() != nil {
		m.Rcode = dns.RcodeNotAuth
		m.Extra = append(m.Extra, &dns.TSIG{
			Hdr: dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: t.Algorithm,
			Error: dns.RcodeBadSig, OrigId: m.Id, TimeSigned: t.TimeSigned, Fudge: dnsclient.Fudge,
		})
		_ = w.WriteMsg(m)
		return
	}
	switch reg, err := registration.Parse(r); {
	case err != nil:
		m.Rcode = dns.RcodeFormatError
	case s.refused != 0 && reg.Part == s.refused, s.serial != 0 && reg.Serial == s.serial:
		m.Rcode = dns.RcodeRefused
	default:
		s.registrations <- reg
		s.known = len(reg.Addresses) > 0
	}
	if s.silent {
		return
	}
	m.SetTsig(t.Hdr.Name, t.Algorithm, dnsclient.Fudge, time.Now().Unix())
	_ = w.WriteMsg(m)
}

// Listen listens at a port of a loopback address. Port "0" is one that stays free
// at the others, for nodes that listen at the same port.
func Listen(t *testing.T, address, port string) net.Listener {
	t.Helper()
	if port == "0" {
		port = strconv.Itoa(testport.Free(t))
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, port))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ListenSilently accepts connections and never answers, until the test ends. It
// sends to asked when a connection has sent something.
func ListenSilently(t *testing.T, address string) (addr string, asked <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				ch <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), ch
}
