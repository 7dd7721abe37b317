package fastpath

import (
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The sizes of receive buffers in bytes. The default is too small for a burst, such as what
// comes while the garbage collector has the processor. What is full holds the queries
// of a tenth of a second, at what the fast path and the chain can answer on one
// core: if more come, answers are lost rather than too late.
const (
	fastBuffer  = 4 << 20
	chainBuffer = 1 << 20
)

// setReceiveBuffer sets the size of the buffer of a socket, as far as that is allowed.
func setReceiveBuffer(fd, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil { // needs a privilege
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
}

// enlargeReceiveBuffers enlarges those of the sockets of this process at the address of a
// server, unless they are larger. CoreDNS gives its sockets to nobody, so they are
// looked for. Without /proc they stay as they are.
func enlargeReceiveBuffers(addr string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	want, err := net.ResolveUDPAddr("udp", hostPort(addr))
	if err != nil {
		return
	}
	for _, entry := range entries {
		n, err := strconv.Atoi(entry.Name())
		if err != nil || !isAt(n, want) {
			continue // a second descriptor would hold the port of any socket that is just being closed
		}
		// The descriptor may be closed, and its number be that of another file, meanwhile.
		fd, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0) // #nosec G115 -- a descriptor
		if err != nil {
			continue
		}
		// The kernel doubles what is set.
		if size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && size < 2*chainBuffer && isAt(fd, want) {
			setReceiveBuffer(fd, chainBuffer)
		}
		_ = unix.Close(fd)
	}
}

// isAt reports whether a descriptor is a UDP socket at an address.
func isAt(fd int, want *net.UDPAddr) bool {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || kind != unix.IPPROTO_UDP {
		return false
	}
	var at netip.Addr
	port := 0
	switch local, _ := unix.Getsockname(fd); local := local.(type) {
	case *unix.SockaddrInet4:
		at, port = netip.AddrFrom4(local.Addr), local.Port
	case *unix.SockaddrInet6:
		at, port = netip.AddrFrom16(local.Addr).Unmap(), local.Port
	}
	wanted := want.AddrPort().Addr().Unmap() // invalid: all addresses
	return port == want.Port && (at == wanted || at.IsUnspecified() && (!wanted.IsValid() || wanted.IsUnspecified()))
}
