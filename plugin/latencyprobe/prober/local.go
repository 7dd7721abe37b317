package prober

import (
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"
)

// LocalReason is the kind of a failure of this machine, a label value of
// metrics.
type LocalReason string

// The reasons of failures of this machine.
const (
	LocalFiles      LocalReason = "files"      // too many open files
	LocalMemory     LocalReason = "memory"     // no memory, or no buffers
	LocalAddress    LocalReason = "address"    // the source address is not of this machine, or no port is free
	LocalPermission LocalReason = "permission" // no capability, or a firewall or route of this machine forbids to send
	LocalStalled    LocalReason = "stalled"    // this process did not run for a while; LocalReasonOf cannot tell that
	LocalOther      LocalReason = "other"
)

// localError is a failure of this machine, whatever its cause.
type localError struct{ error }

// Unwrap serves errors.Is and errors.As.
func (e localError) Unwrap() error { return e.error }

// LocalReasonOf returns why this machine could not send a probe or could not
// receive its answer, or "" for an error that says something about the target.
// That this machine has no route, or that its interface is down, counts as
// Unreachable: if that concerns nearly all targets, it is isolation.
func LocalReasonOf(err error) LocalReason {
	if reason := localReason(err); reason != "" {
		return reason
	}
	if errors.As(err, new(localError)) || errors.As(err, new(x509.SystemRootsError)) {
		return LocalOther
	}
	return ""
}

func localReason(err error) LocalReason {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE:
		return LocalFiles
	case syscall.ENOBUFS, syscall.ENOMEM:
		return LocalMemory
	case syscall.EADDRNOTAVAIL, syscall.EADDRINUSE,
		syscall.EINVAL, // a bound source address that was removed, or that cannot reach the target
		syscall.EAGAIN: // no free port for UDP
		return LocalAddress
	case syscall.EPERM:
		return LocalPermission
	case syscall.EACCES:
		if rejectedOnPath(err) {
			return ""
		}
		return LocalPermission
	case syscall.EAFNOSUPPORT, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN:
		return ""
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		switch call.Syscall {
		case "socket", "bind", "setsockopt", "getsockname":
			return LocalOther
		}
	}
	return ""
}

// rejectedOnPath reports whether an EACCES may come from a router or a firewall
// on the path: Linux returns it for the ICMPv6 codes that prohibit
// communication (RFC 4443, section 3.1), for those of IPv4 EHOSTUNREACH.
func rejectedOnPath(err error) bool {
	var op *net.OpError
	var call *os.SyscallError
	if !errors.As(err, &op) || errors.As(err, &call) && (call.Syscall == "socket" || call.Syscall == "bind") {
		return false
	}
	switch addr := op.Addr.(type) {
	case *net.TCPAddr:
		return addr.IP.To4() == nil
	case *net.UDPAddr:
		return addr.IP.To4() == nil
	}
	return false
}
