package latencyprobe

import (
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// handshakeRTT returns the round-trip time that the kernel measured from SYN to
// SYN-ACK, which is all that a new connection has.
func handshakeRTT(conn *net.TCPConn) (time.Duration, bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
		return 0, false
	}
	return time.Duration(info.Rtt) * time.Microsecond, info.Rtt > 0
}

// stampArrivals asks the kernel to note when datagrams arrive.
func stampArrivals(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }); cerr != nil {
		return cerr
	}
	return err
}

// arrival returns when a datagram arrived, by the wall clock, from the control
// messages that came with it.
func arrival(oob []byte) (time.Time, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range messages {
		// A struct timespec of two 64-bit numbers on all systems that Go has with
		// 64 bits; elsewhere the clock of this process will do.
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 {
			seconds, nanos := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return time.Unix(int64(seconds), int64(nanos)), true // #nosec G115 -- the kernel's clock
		}
	}
	return time.Time{}, false
}
