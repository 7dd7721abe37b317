package prober

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeConn is an ICMP socket whose network a test is. It must be made in the
// bubble that reads it.
type fakeConn struct {
	closed  chan struct{}
	close   sync.Once
	sent    chan []byte
	packets chan fakePacket
	sendErr error
}

type fakePacket struct {
	from net.Addr
	data []byte
	err  error
}

func newFakeConn() *fakeConn {
	return &fakeConn{closed: make(chan struct{}), sent: make(chan []byte, 100), packets: make(chan fakePacket, 100)}
}

func (c *fakeConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-c.packets:
		return copy(b, p.data), p.from, p.err
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *fakeConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.sent <- append([]byte(nil), b...)
	return len(b), c.sendErr
}

func (*fakeConn) SetWriteDeadline(time.Time) error { return nil }

func (c *fakeConn) Close() error { c.close.Do(func() { close(c.closed) }); return nil }

const fakeID = 4711

// fakeEcho returns a socket on a network of a test, and its connections.
func fakeEcho() (*echoSocket, chan *fakeConn) {
	opened := make(chan *fakeConn, 10)
	return &echoSocket{source: netip.IPv4Unspecified(), waiting: make(map[uint16]*echo), listen: func(netip.Addr) (*echoConn, error) {
		c := newFakeConn()
		opened <- c
		return &echoConn{c, false, fakeID}, nil
	}}, opened
}

// replyTo turns an echo request into its reply.
func replyTo(request []byte) []byte {
	reply := append([]byte(nil), request...)
	reply[0] = 0
	if request[0] == 128 {
		reply[0] = 129
	}
	return reply
}

func TestForgedEchoRepliesAreIgnored(t *testing.T) {
	target := netip.MustParseAddr("192.0.2.1")
	sender := &net.IPAddr{IP: target.AsSlice()}
	tests := []struct {
		name  string
		forge func(reply []byte) fakePacket
	}{
		{"payload", func(r []byte) fakePacket { r[len(r)-1]++; return fakePacket{from: sender, data: r} }},
		{"payload of another time", func(r []byte) fakePacket {
			binary.BigEndian.PutUint64(r[8:], uint64(time.Now().Add(-2*time.Hour).UnixNano()))
			return fakePacket{from: sender, data: r}
		}},
		{"longer payload", func(r []byte) fakePacket { return fakePacket{from: sender, data: append(r, 0)} }},
		{"no payload", func(r []byte) fakePacket { return fakePacket{from: sender, data: r[:8]} }},
		{"cut off", func(r []byte) fakePacket { return fakePacket{from: sender, data: r[:7]} }},
		{"identifier", func(r []byte) fakePacket { r[5]++; return fakePacket{from: sender, data: r} }},
		{"sequence number", func(r []byte) fakePacket { r[7]++; return fakePacket{from: sender, data: r} }},
		{"request", func(r []byte) fakePacket { r[0] = 8; return fakePacket{from: sender, data: r} }},
		{"code", func(r []byte) fakePacket { r[1] = 1; return fakePacket{from: sender, data: r} }},
		{"sender", func(r []byte) fakePacket { return fakePacket{from: &net.IPAddr{IP: net.IPv4(192, 0, 2, 2)}, data: r} }},
		{"sender of another kind", func(r []byte) fakePacket { return fakePacket{from: &net.TCPAddr{}, data: r} }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, opened := fakeEcho()
				defer s.close()
				go func() {
					conn := <-opened
					reply := replyTo(<-conn.sent)
					time.Sleep(time.Millisecond)
					conn.packets <- tc.forge(append([]byte(nil), reply...))
					time.Sleep(119 * time.Millisecond)
					conn.packets <- fakePacket{from: sender, data: reply}
					conn.packets <- fakePacket{from: sender, data: reply} // twice
				}()
				rtt, err := s.exchange(t.Context(), target)
				if err != nil || rtt != 120*time.Millisecond {
					t.Errorf("Expected the true reply after 120 ms, got %s, %v", rtt, err)
				}
			})
		})
	}
}

func TestLateEchoReplyIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := netip.MustParseAddr("2001:db8::1")
		sender := &net.UDPAddr{IP: target.AsSlice()}
		s, opened := fakeEcho()
		defer s.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.exchange(ctx, target); ReasonOf(err) != Timeout {
			t.Fatalf("Expected no reply in time, got %v", err)
		}
		conn := <-opened
		late := replyTo(<-conn.sent)
		go func() {
			request := <-conn.sent
			conn.packets <- fakePacket{from: sender, data: late}
			time.Sleep(5 * time.Millisecond)
			conn.packets <- fakePacket{from: sender, data: replyTo(request)}
		}()
		if rtt, err := s.exchange(t.Context(), target); err != nil || rtt != 5*time.Millisecond {
			t.Errorf("Expected the reply after 5 ms, got %s, %v", rtt, err)
		}
		if len(s.waiting) != 0 {
			t.Errorf("Expected no echo to be noted, got %d", len(s.waiting))
		}
	})
}

// TestFailedEchoSocketIsOpenedAgain checks that a failure of the socket is this
// machine's, and does not last.
func TestFailedEchoSocketIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := netip.MustParseAddr("192.0.2.1")
		s, opened := fakeEcho()
		defer s.close()
		for _, tc := range []struct {
			err  error
			want LocalReason
		}{{syscall.ENOBUFS, LocalMemory}, {syscall.ENETDOWN, LocalOther}, {errors.New("no reason"), LocalOther}} {
			go func() {
				conn := <-opened
				<-conn.sent
				conn.packets <- fakePacket{err: tc.err}
			}()
			if _, err := s.exchange(t.Context(), target); LocalReasonOf(err) != tc.want {
				t.Errorf("Expected a failure of this machine, %q, got %v", tc.want, err)
			}
		}
		go func() {
			conn := <-opened
			conn.packets <- fakePacket{from: &net.IPAddr{IP: target.AsSlice()}, data: replyTo(<-conn.sent)}
		}()
		if _, err := s.exchange(t.Context(), target); err != nil {
			t.Errorf("Expected another socket, got %v", err)
		}
	})
}

// TestRemovedSourceAddressIsLocal checks that the open socket of an address that
// was removed does not fail at the cost of targets: Linux then has no route for
// IPv4, and is silent for IPv6.
func TestRemovedSourceAddressIsLocal(t *testing.T) {
	for _, tc := range []struct {
		source  string
		sendErr error
		want    LocalReason
	}{
		{"192.0.2.77", syscall.ENETUNREACH, LocalAddress},
		{"192.0.2.77", nil, LocalAddress},
		{"127.0.0.1", syscall.ENETUNREACH, ""},
		{"0.0.0.0", syscall.ENETUNREACH, ""},
		{"127.0.0.1", nil, ""},
		{"0.0.0.0", nil, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, opened := fakeEcho()
			defer s.close()
			s.source = netip.MustParseAddr(tc.source)
			listen := s.listen
			s.listen = func(source netip.Addr) (*echoConn, error) {
				c, err := listen(source)
				(<-opened).sendErr = tc.sendErr
				return c, err
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := s.exchange(ctx, netip.MustParseAddr("198.51.100.1"))
			if got := LocalReasonOf(err); err == nil || got != tc.want {
				t.Errorf("From %s, error %v: Expected the reason %q of this machine, got %q: %v", tc.source, tc.sendErr, tc.want, got, err)
			}
		})
	}
}

// TestEchoSocketIsShared checks that all users of a source have one socket, and
// that the last one closes it.
func TestEchoSocketIsShared(t *testing.T) {
	if err := ICMPAllowed(); err != nil {
		t.Skip(err)
	}
	source := netip.MustParseAddr("127.0.0.78")
	first, release := echoSockets.hold(source)
	releaseOther := ICMP{}.Hold(loopback, source)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := (ICMP{}).Probe(ctx, loopback, source); err != nil {
		t.Fatal(err)
	}
	conn := first.conn
	if _, err := (ICMP{}).Probe(ctx, loopback, source); err != nil || first.conn != conn || conn == nil {
		t.Errorf("Expected one socket for all probes, got %v", err)
	}
	release()
	if first.conn == nil {
		t.Error("Expected the socket to be open while it has a user")
	}
	releaseOther()
	if first.conn != nil || len(echoSockets.values) != 0 {
		t.Error("Expected the last user to close the socket, and its reader to end")
	}
}

// FuzzEchoReply checks that any packet can be received, and that none but the
// reply is taken for it.
func FuzzEchoReply(f *testing.F) {
	v4 := append([]byte{0, 0, 0, 0, fakeID >> 8, fakeID & 255, 0, 1}, make([]byte, 16)...)
	f.Add(v4, false)
	f.Add(append([]byte{129, 0}, v4[2:]...), true)
	f.Fuzz(func(t *testing.T, packet []byte, v6 bool) {
		target := netip.MustParseAddr("192.0.2.1")
		if v6 {
			target = netip.MustParseAddr("2001:db8::1")
		}
		e := &echo{target: target, id: fakeID, sent: time.Now(), result: make(chan echoResult, 1)}
		s := &echoSocket{waiting: map[uint16]*echo{1: e}}
		s.deliver(target, packet, time.Now())
		want := append([]byte(nil), v4...)
		if v6 {
			want[0] = 129
		}
		same := len(packet) == len(want) && packet[0] == want[0] && packet[1] == 0 && string(packet[4:]) == string(want[4:])
		if got := len(e.result) == 1; got != same {
			t.Errorf("Expected a reply %v, got %v: %x", same, got, packet)
		}
	})
}
