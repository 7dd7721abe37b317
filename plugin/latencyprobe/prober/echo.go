package prober

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// maxEchoPacket bounds what is read of a packet, in bytes: more than an IPv4
	// header with options and our echo.
	maxEchoPacket = 512
	// maxEchoSend bounds how long an echo may wait for room in the buffers of
	// this machine.
	maxEchoSend = time.Second
)

// echoSockets owns the ICMP sockets of the process: one for each source address
// and, for the kernel's choice, one for each address family.
var echoSockets = shared[netip.Addr, *echoSocket]{
	open: func(source netip.Addr) *echoSocket {
		return &echoSocket{source: source, listen: listenEcho, waiting: make(map[uint16]*echo)}
	},
	close: (*echoSocket).close,
}

// echoSocket sends echo requests and matches the replies. Nothing in a reply is
// believed but that it repeats what was sent: times of sending are noted here,
// by the monotonic clock, and the payload is random.
type echoSocket struct {
	source netip.Addr // unspecified: the kernel chooses
	listen func(source netip.Addr) (*echoConn, error)
	reader sync.WaitGroup // runs while conn is open

	mu       sync.Mutex
	conn     *echoConn        // nil: not open
	sequence uint16           // of the last echo
	waiting  map[uint16]*echo // by sequence number
}

// echoConn is an open ICMP socket.
type echoConn struct {
	packetConn
	datagram bool   // unprivileged; else raw
	id       uint16 // of the echoes; the kernel chooses those of datagram sockets
}

type packetConn interface {
	ReadFrom(b []byte) (int, net.Addr, error)
	WriteTo(b []byte, to net.Addr) (int, error)
	SetWriteDeadline(t time.Time) error
	Close() error
}

// echo is an echo request that waits for its reply.
type echo struct {
	target  netip.Addr
	id      uint16
	payload [16]byte
	sent    time.Time
	result  chan echoResult // has room for one
}

type echoResult struct {
	rtt time.Duration
	err error
}

// exchange sends an echo request and returns the time until its reply.
func (s *echoSocket) exchange(ctx context.Context, target netip.Addr) (time.Duration, error) {
	rtt, err := s.tryExchange(ctx, target)
	if err != nil {
		// An open socket does not tell that its source address was removed: sending
		// has no route then, or no reply.
		if sourceErr := checkSource(s.source); errors.Is(sourceErr, syscall.EADDRNOTAVAIL) {
			err = sourceErr
		}
	}
	return rtt, err
}

func (s *echoSocket) tryExchange(ctx context.Context, target netip.Addr) (time.Duration, error) {
	e := &echo{target: target, result: make(chan echoResult, 1)}
	_, _ = rand.Read(e.payload[:]) // never fails
	sequence, err := s.send(e)
	defer s.forget(sequence, e)
	if err != nil && !errors.Is(err, net.ErrClosed) { // the reader failed, it delivers the cause
		return 0, err
	}
	select {
	case result := <-e.result:
		return result.rtt, result.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// send sends an echo request and returns its sequence number.
func (s *echoSocket) send(e *echo) (uint16, error) {
	conn, sequence, request, err := s.add(e)
	if err != nil {
		return sequence, err
	}
	var to net.Addr = &net.IPAddr{IP: e.target.AsSlice()}
	if conn.datagram {
		to = &net.UDPAddr{IP: e.target.AsSlice()}
	}
	if err := conn.SetWriteDeadline(time.Now().Add(maxEchoSend)); err != nil {
		return sequence, err
	}
	_, err = conn.WriteTo(request, to)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = os.NewSyscallError("sendto", syscall.ENOBUFS)
	}
	return sequence, err
}

// add notes an echo as sent now, and returns its packet.
func (s *echoSocket) add(e *echo) (conn *echoConn, sequence uint16, request []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return nil, 0, nil, err
	}
	s.sequence++
	for s.waiting[s.sequence] != nil { // far fewer probes are in flight than there are numbers
		s.sequence++
	}
	var requestType icmp.Type = ipv4.ICMPTypeEcho
	if e.target.Is6() {
		requestType = ipv6.ICMPTypeEchoRequest // the kernel adds the checksum
	}
	e.id = s.conn.id
	message := icmp.Message{Type: requestType, Body: &icmp.Echo{ID: int(e.id), Seq: int(s.sequence), Data: e.payload[:]}}
	if request, err = message.Marshal(nil); err != nil {
		return nil, 0, nil, err
	}
	s.waiting[s.sequence] = e
	e.sent = time.Now()
	return s.conn, s.sequence, request, nil
}

// open opens the socket, unless it is open. s is locked.
func (s *echoSocket) open() error {
	if s.conn != nil {
		return nil
	}
	conn, err := s.listen(s.source)
	if err != nil {
		return err
	}
	s.conn, s.sequence = conn, randomUint16()
	s.reader.Go(func() { s.read(conn) })
	return nil
}

// close ends the socket, and returns when its goroutine has ended.
func (s *echoSocket) close() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // ends the reader
	}
	s.reader.Wait()
}

// read reads replies until the socket is closed. After another error the next
// echo opens it again.
func (s *echoSocket) read(conn *echoConn) {
	buf := make([]byte, maxEchoPacket)
	for {
		n, from, err := conn.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			_ = conn.Close() // ReadFrom has failed already
			s.fail(localError{err})
			return
		}
		if sender, ok := addrOf(from); ok {
			s.deliver(sender, buf[:n], now)
		}
	}
}

// fail ends the wait of all echoes.
func (s *echoSocket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	for sequence, e := range s.waiting {
		e.result <- echoResult{err: err}
		delete(s.waiting, sequence)
	}
}

// deliver gives a reply to its echo. Other packets are ignored: anybody may send
// them, and raw sockets see those for other processes.
func (s *echoSocket) deliver(sender netip.Addr, packet []byte, now time.Time) {
	reply, ok := parseEchoReply(packet, sender.Is6())
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.waiting[reply.sequence]
	if !ok || e.target != sender || e.id != reply.id || string(e.payload[:]) != string(reply.payload) {
		return
	}
	e.result <- echoResult{rtt: now.Sub(e.sent)}
	delete(s.waiting, reply.sequence)
}

func (s *echoSocket) forget(sequence uint16, e *echo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[sequence] == e {
		delete(s.waiting, sequence)
	}
}

type echoReply struct {
	id, sequence uint16
	payload      []byte
}

// parseEchoReply reads an ICMP echo reply (RFC 792, RFC 4443, section 4.2). It
// refers to the packet.
func parseEchoReply(packet []byte, v6 bool) (echoReply, bool) {
	replyType := byte(ipv4.ICMPTypeEchoReply)
	if v6 {
		replyType = byte(ipv6.ICMPTypeEchoReply)
	}
	if len(packet) < 8 || packet[0] != replyType || packet[1] != 0 {
		return echoReply{}, false
	}
	return echoReply{binary.BigEndian.Uint16(packet[4:]), binary.BigEndian.Uint16(packet[6:]), packet[8:]}, true
}

// listenEcho opens an ICMP socket for echoes from source, an unprivileged one
// if that is allowed.
func listenEcho(source netip.Addr) (*echoConn, error) {
	datagram, raw := "udp4", "ip4:icmp"
	if source.Is6() {
		datagram, raw = "udp6", "ip6:ipv6-icmp"
	}
	conn, err := icmp.ListenPacket(datagram, source.String())
	unprivileged := err == nil
	if !unprivileged {
		if reason := LocalReasonOf(err); reason != LocalPermission && reason != LocalOther {
			return nil, err
		}
		var rawErr error
		switch conn, rawErr = icmp.ListenPacket(raw, source.String()); {
		case LocalReasonOf(rawErr) == LocalPermission:
			return nil, fmt.Errorf("%w; %w", err, rawErr)
		case rawErr != nil:
			return nil, rawErr
		}
		filterEchoReplies(conn)
	}
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if ok && runtime.GOOS == "linux" {
		return &echoConn{conn, true, uint16(local.Port)}, nil // #nosec G115 -- ports have 16 bits
	}
	return &echoConn{conn, unprivileged, randomUint16()}, nil
}

func randomUint16() uint16 {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint16(b[:])
}

// filterEchoReplies has the kernel drop other packets, where it can: a raw
// socket sees all of ICMP.
func filterEchoReplies(conn *icmp.PacketConn) {
	if p := conn.IPv4PacketConn(); p != nil {
		var f ipv4.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv4.ICMPTypeEchoReply)
		_ = p.SetICMPFilter(&f)
	}
	if p := conn.IPv6PacketConn(); p != nil {
		var f ipv6.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv6.ICMPTypeEchoReply)
		_ = p.SetICMPFilter(&f)
	}
}

// addrOf returns the address of a sender, without zone.
func addrOf(a net.Addr) (netip.Addr, bool) {
	var ip net.IP
	switch a := a.(type) {
	case *net.IPAddr:
		ip = a.IP
	case *net.UDPAddr:
		ip = a.IP
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
