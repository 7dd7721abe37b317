package fastpath

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// readTimeout bounds how long a reader takes to notice that it has to end.
	readTimeout = 200 * time.Millisecond
	controlSize = 64 // bytes, more than a control message with an address takes
)

// openSocket opens one more socket at the address of a server. It blocks in reads: the
// network poller takes a fifth more CPU time.
func openSocket(addr string) (*os.File, error) {
	lc := net.ListenConfig{Control: func(network, address string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = setOptions(int(fd), network, address) }); e != nil { // #nosec G115 -- a descriptor
			return e
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp", hostPort(addr))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil { // #nosec G115 -- a descriptor
		return nil, fmt.Errorf("make a socket block: %w", err)
	}
	return file, nil
}

// hostPort returns what follows the protocol in the address of a server.
func hostPort(addr string) string {
	_, after, _ := strings.Cut(addr, "://")
	return after
}

func setOptions(fd int, network, address string) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("SO_REUSEPORT: %w", err)
	}
	if ap, err := netip.ParseAddrPort(address); err != nil || ap.Addr().IsUnspecified() {
		// Replies come from the address that was asked.
		level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		if network == "udp4" {
			level, option = unix.IPPROTO_IP, unix.IP_PKTINFO
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return fmt.Errorf("PKTINFO: %w", err)
		}
	}
	timeout := unix.NsecToTimeval(readTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("SO_RCVTIMEO: %w", err)
	}
	setReceiveBuffer(fd, fastBuffer)
	return nil
}

// attach has the kernel choose between the sockets of a group by a program.
func attach(socket *os.File, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the classifier: %w", err)
	}
	filters := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]} // #nosec G115 -- 15 at most
	return control(socket, func(fd int) error {
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, fprog); err != nil {
			return fmt.Errorf("SO_ATTACH_REUSEPORT_CBPF: %w", err)
		}
		return nil
	})
}

// control calls f with the descriptor of a socket, which is not closed meanwhile.
func control(socket *os.File, f func(fd int) error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil { // #nosec G115 -- a descriptor
		return e
	}
	return err
}

// route is where a datagram came from, and how the reply gets there.
type route struct {
	peer    unix.RawSockaddrInet6 // or a RawSockaddrInet4 in its place
	control [controlSize]byte
	size    int // of control that is used
}

// source returns the address of the sender, unmapped or not, and its port.
func source(peer *unix.RawSockaddrInet6) netip.AddrPort {
	if peer.Family == unix.AF_INET {
		peer4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(peer)) // #nosec G103 -- as the family says
		return netip.AddrPortFrom(netip.AddrFrom4(peer4.Addr), hostOrder(peer4.Port))
	}
	addr := netip.AddrFrom16(peer.Addr)
	if peer.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(peer.Scope_id), 10))
	}
	return netip.AddrPortFrom(addr, hostOrder(peer.Port))
}

// hostOrder returns a port that was read from a socket address.
func hostOrder(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port)) // #nosec G103 -- its bytes
	return uint16(b[0])<<8 | uint16(b[1])
}

// releaseInterface takes the interface out of a control message, so that a reply takes
// the route of its address. A link-local address needs its interface.
func releaseInterface(message []byte) {
	header := (*unix.Cmsghdr)(unsafe.Pointer(&message[0])) // #nosec G103 -- the kernel wrote it
	data := unsafe.Pointer(&message[unix.CmsgLen(0)])      // #nosec G103 -- the same
	switch {
	case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO:
		if info := (*unix.Inet6Pktinfo)(data); info.Addr[0] != 0xfe {
			info.Ifindex = 0
		}
	case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO:
		(*unix.Inet4Pktinfo)(data).Ifindex = 0
	}
}

// send sends a reply by a socket.
func send(socket *os.File, r *route, reply []byte) error {
	vec := unix.Iovec{Base: &reply[0]}
	vec.SetLen(len(reply))
	msg := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&r.peer)), Namelen: nameSize(&r.peer), Iov: &vec} // #nosec G103 -- for the kernel
	msg.SetIovlen(1)
	if r.size > 0 {
		msg.Control = &r.control[0]
		msg.SetControllen(r.size)
	}
	return control(socket, func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 0); errno != 0 { // #nosec G103 G115 -- a system call
			return errno
		}
		return nil
	})
}

func nameSize(peer *unix.RawSockaddrInet6) uint32 {
	if peer.Family == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}
