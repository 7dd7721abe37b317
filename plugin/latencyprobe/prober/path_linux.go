package prober

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Path measures routers on the way to an address, by queries whose time to live (TTL)
// ends there. The kernel tells who answered (IP_RECVERR), which needs no privilege. All
// packets have the same ports, so that routers send them the same way.
type Path struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	four bool
	addr netip.Addr
	dns  DNS
}

// OpenPath returns a Path that sends the query of d to addr, from source or, if that is
// invalid, from an address that the kernel chooses. Close it.
func OpenPath(ctx context.Context, d DNS, addr, source netip.Addr) (*Path, error) {
	c, err := dialer("udp", source).DialContext(ctx, "udp", netip.AddrPortFrom(addr, d.Port).String())
	if err != nil {
		return nil, err
	}
	p := &Path{conn: c.(*net.UDPConn), four: addr.Is4(), addr: addr, dns: d}
	if p.raw, err = p.conn.SyscallConn(); err == nil {
		err = p.set(unix.IP_RECVERR, unix.IPV6_RECVERR, 1)
	}
	if err == nil {
		err = enableArrivalTimes(p.conn)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the socket.
func (p *Path) Close() { _ = p.conn.Close() }

// set sets an option of the socket, which IPv4 and IPv6 call differently.
func (p *Path) set(four, six, value int) error {
	level, option := unix.IPPROTO_IPV6, six
	if p.four {
		level, option = unix.IPPROTO_IP, four
	}
	var err error
	controlErr := p.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	if controlErr != nil {
		return controlErr
	}
	return os.NewSyscallError("setsockopt", err)
}

// Probe sends one packet with a TTL, and returns what answered. ctx bounds the time.
func (p *Path) Probe(ctx context.Context, ttl int) (Hop, error) {
	query, packed, err := p.dns.query()
	if err != nil {
		return Hop{}, err
	}
	if err := p.set(unix.IP_TTL, unix.IPV6_UNICAST_HOPS, ttl); err != nil {
		return Hop{}, err
	}
	deadline, _ := ctx.Deadline()
	if err := p.conn.SetDeadline(deadline); err != nil {
		return Hop{}, err
	}
	if err := p.receive(query, func(arrival) bool { return false }, true); err != nil { // late answers
		return Hop{}, err
	}
	sent := time.Now()
	if _, err := p.conn.Write(packed); err != nil {
		return Hop{}, err
	}
	var answer arrival
	if err := p.receive(query, func(a arrival) bool { answer = a; return true }, false); err != nil {
		return Hop{}, err
	}
	answer.hop.RTT = timed(sent, answer.read, answer.control).RTT
	return answer.hop, answer.err
}

// arrival is what came for a query.
type arrival struct {
	hop     Hop   // without RTT
	err     error // of this machine: the query was not sent
	read    time.Time
	control []byte
}

// receive calls take for what comes for a query, until that returns true; if atHand, until
// no more is there.
func (p *Path) receive(query *dns.Msg, take func(arrival) bool, atHand bool) error {
	packet, control := make([]byte, maxDatagram), make([]byte, 256)
	return p.raw.Read(func(fd uintptr) bool {
		for {
			n, size, _, _, err := unix.Recvmsg(int(fd), packet, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			fromQueue := err == nil
			if !fromQueue {
				n, size, _, _, err = unix.Recvmsg(int(fd), packet, control, unix.MSG_DONTWAIT)
			}
			a, ok := arrival{read: time.Now(), control: control[:size]}, false
			switch {
			case err == unix.EAGAIN:
				return atHand
			case fromQueue:
				a.hop, ok, a.err = hopOf(control[:size], packet[:n], query)
			case err == nil:
				a.hop = Hop{Addr: p.addr, Last: true}
				_, ok, _ = parseReply(packet[:n], query)
			} // another error was in the queue, too
			if ok && take(a) {
				return true
			}
		}
	})
}

// ICMP messages that say that the TTL has ended (RFC 792, RFC 4443).
const (
	timeExceeded4 = 11
	timeExceeded6 = 3
)

// hopOf reads what the error queue of a socket has: a struct sock_extended_err, and the
// address of the sender (ip(7)). ok is false if it concerns another packet. quoted is the
// data of the packet that the sender quotes, if it does.
func hopOf(control, quoted []byte, query *dns.Msg) (hop Hop, ok bool, local error) {
	if len(quoted) >= 2 && binary.BigEndian.Uint16(quoted) != query.Id {
		return Hop{}, false, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return Hop{}, false, nil
	}
	for _, m := range messages {
		four := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !four && !six || len(m.Data) < 16 {
			continue
		}
		errno, origin, kind, sender := binary.NativeEndian.Uint32(m.Data), m.Data[4], m.Data[5], m.Data[16:]
		switch {
		case origin == unix.SO_EE_ORIGIN_LOCAL:
			return Hop{}, true, os.NewSyscallError("sendto", syscall.Errno(errno))
		case origin == unix.SO_EE_ORIGIN_ICMP && len(sender) >= unix.SizeofSockaddrInet4:
			return Hop{Addr: netip.AddrFrom4([4]byte(sender[4:8])), Last: kind != timeExceeded4}, true, nil
		case origin == unix.SO_EE_ORIGIN_ICMP6 && len(sender) >= unix.SizeofSockaddrInet6-4:
			return Hop{Addr: netip.AddrFrom16([16]byte(sender[8:24])).Unmap(), Last: kind != timeExceeded6}, true, nil
		}
	}
	return Hop{}, false, nil
}
