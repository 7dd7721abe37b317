package prober

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// kernelHandshakeRTT returns the round-trip time from SYN to SYN-ACK of a new
// connection, as the kernel measured it. If the SYN was sent twice, the time is
// 0: the kernel would take it from a timestamp that the peer sends.
func kernelHandshakeRTT(conn *net.TCPConn) (rtt time.Duration, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	controlErr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if controlErr != nil || err != nil {
		return 0, false
	}
	if info.Total_retrans > 0 {
		return 0, true
	}
	return time.Duration(info.Rtt) * time.Microsecond, info.Rtt > 0
}

// arrivals has the kernel note the time of arrival of all datagrams while there
// are users. If only the sockets of probes asked for it, the kernel, which
// begins some time after it was asked, would give the times of reading instead.
var arrivals = shared[struct{}, int]{
	open: func(struct{}) int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1 // probes measure nevertheless
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		return fd
	},
	close: func(fd int) { _ = unix.Close(fd) },
}

// enableArrivalTimes has the kernel send the time of arrival with each
// datagram, if it can: emulators of Linux cannot.
func enableArrivalTimes(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err == unix.ENOPROTOOPT {
			err = nil
		}
		err = os.NewSyscallError("setsockopt", err)
	})
	return errors.Join(controlErr, err)
}

// arrivalTime returns when a datagram arrived, by the wall clock, from its
// control messages.
func arrivalTime(control []byte) (time.Time, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range messages {
		// A struct timespec of two 64-bit numbers, on all 64-bit systems of Go.
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 {
			seconds, nanos := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return time.Unix(int64(seconds), int64(nanos)), true // #nosec G115 -- the kernel's clock
		}
	}
	return time.Time{}, false
}
