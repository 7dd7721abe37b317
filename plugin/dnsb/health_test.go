package dnsb

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// mortal is a node that can fall silent, or refuse, and come back.
type mortal struct {
	name, addr string
	silent     atomic.Bool
	answered   atomic.Int32
	conn       net.PacketConn
}

func (m *mortal) start(t *testing.T) {
	t.Helper()
	var err error
	if m.conn, err = net.ListenPacket("udp", m.addr); err != nil {
		t.Skipf("%s is not an address of this machine: %v", m.addr, err)
	}
	go func(conn net.PacketConn) {
		buf := make([]byte, dns.MinMsgSize)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q, r := new(dns.Msg), new(dns.Msg)
			if m.silent.Load() || q.Unpack(buf[:n]) != nil {
				continue
			}
			r.SetReply(q)
			r.Authoritative = true
			wire, err := r.Pack()
			if err != nil {
				continue
			}
			m.answered.Add(1)
			_, _ = conn.WriteTo(wire, from)
		}
	}(m.conn)
}

// At the default settings, a node that falls silent is left out of referrals
// within 13 s, one that refuses within 9 s, and both are back after two answers.
func TestDeathOfNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute until nodes are dead and back")
	}
	const lines = `
		node quiet 127.0.0.3
		node closed 127.0.0.4
		node good 127.0.0.5
		cut quiet quiet good
		cut closed closed good
		prefix 127.0.0.0/8 quiet closed good
	}
	latencyprobe {`
	_, port := serve(t, lines)
	quiet, closed, good := &mortal{name: "quiet"}, &mortal{name: "closed"}, &mortal{name: "good"}
	for i, m := range []*mortal{quiet, closed, good} {
		m.addr = fmt.Sprintf("127.0.0.%d:%d", i+3, port)
		m.start(t)
	}
	t.Cleanup(func() {
		for _, m := range []*mortal{quiet, closed, good} {
			_ = m.conn.Close()
		}
	})
	referredTo := func(cut string) string {
		for _, rr := range query(t, port, "udp", "www."+cut+".gslb.example.org.", dns.TypeA).Ns {
			if ns, ok := rr.(*dns.NS); ok {
				return strings.SplitN(ns.Ns, ".", 2)[0]
			}
		}
		return ""
	}
	wait := func(m *mortal, want string, limit time.Duration) {
		t.Helper()
		for end := time.Now().Add(limit); referredTo(m.name) != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("Expected resolvers of %s to be referred to %s within %s, got %s", m.name, want, limit, referredTo(m.name))
			}
		}
	}

	for end := time.Now().Add(20 * time.Second); quiet.answered.Load() == 0 || closed.answered.Load() == 0 || good.answered.Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Expected all nodes to be probed")
		}
	}
	wait(quiet, "quiet", time.Second)
	wait(closed, "closed", time.Second)

	died := time.Now()
	quiet.silent.Store(true)
	_ = closed.conn.Close()
	wait(closed, "good", 9*time.Second)
	t.Logf("The one that refuses was left out after %s", time.Since(died))
	wait(quiet, "good", 13*time.Second-time.Since(died))
	t.Logf("The silent one was left out after %s", time.Since(died))

	back := time.Now()
	for _, m := range []*mortal{quiet, closed} {
		m.answered.Store(0)
	}
	closed.start(t)
	quiet.silent.Store(false)
	for _, m := range []*mortal{quiet, closed} {
		wait(m, m.name, 10*time.Second)
		if n := m.answered.Load(); n < 2 {
			t.Errorf("Expected %s to be back after 2 answers, got %d", m.name, n)
		}
	}
	t.Logf("Both were back after %s", time.Since(back))
}
