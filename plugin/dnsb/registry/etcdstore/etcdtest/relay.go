package etcdtest

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Relay is a way to an etcd that can be cut. It ends with the test.
type Relay struct {
	URL string // for clients

	listener net.Listener

	mu      sync.Mutex
	to      string
	cut     bool
	cutWhen func() bool
	conns   []net.Conn
}

// NewRelay returns a way to a server that is without TLS.
func NewRelay(t *testing.T, s *Server) *Relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{URL: "http://" + listener.Addr().String(), listener: listener}
	r.Redirect(s)
	go r.accept()
	t.Cleanup(func() { _ = listener.Close(); r.Cut() })
	return r
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		to := r.to
		r.mu.Unlock()
		server, err := net.Dial("tcp", to)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !r.add(client, server) {
			continue
		}
		go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
		go func() { _, _ = io.Copy(client, answers{r, server}); _ = client.Close() }()
	}
}

// add keeps two connections, or closes them if the way is cut.
func (r *Relay) add(client, server net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		_, _ = client.Close(), server.Close()
		return false
	}
	r.conns = append(r.conns, client, server)
	return true
}

// Cut closes all connections, and refuses others.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut, r.cutWhen = true, nil
	r.disconnect()
}

// Redirect makes it the way to another server.
func (r *Relay) Redirect(s *Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = strings.TrimPrefix(s.URL, "http://")
	r.disconnect()
}

// disconnect closes all connections. mu is locked.
func (r *Relay) disconnect() {
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// CutWhen cuts the way, in place of passing an answer of etcd on, once lost
// returns true.
func (r *Relay) CutWhen(lost func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutWhen = lost
}

// Join ends a cut.
func (r *Relay) Join() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut, r.cutWhen = false, nil
}

// answers are what etcd sends over a relay.
type answers struct {
	relay *Relay
	net.Conn
}

// Read implements the io.Reader interface.
func (a answers) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	a.relay.mu.Lock()
	lost := a.relay.cutWhen
	a.relay.mu.Unlock()
	if lost != nil && lost() {
		a.relay.Cut()
		return 0, io.EOF
	}
	return n, err
}
