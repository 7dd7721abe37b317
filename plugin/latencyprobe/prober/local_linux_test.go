package prober

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// localMethods are all methods, as they stand in a Corefile.
var localMethods = []string{"icmp", "tcp 9", "tls 9", "dns 9 www.example.org", "http://www.example.org:9/", "https://www.example.org:9/"}

// expectLocal probes by each method and expects a failure of this machine.
func expectLocal(t *testing.T, source netip.Addr, want LocalReason, icmpAllowed bool) {
	t.Helper()
	for _, method := range localMethods {
		p, err := Parse(strings.Fields(method))
		if err != nil {
			t.Fatal(err)
		}
		want := want
		if method == "icmp" && !icmpAllowed {
			want = LocalPermission
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = p.Probe(ctx, loopback, source)
		cancel()
		if got := LocalReasonOf(err); got != want {
			t.Errorf("%s: Expected the reason %q of this machine, got %q: %v", method, want, got, err)
		}
	}
}

func TestMissingSourceAddressIsLocal(t *testing.T) {
	expectLocal(t, netip.MustParseAddr("192.0.2.77"), LocalAddress, ICMPAllowed() == nil)
}

func TestTooManyOpenFilesAreLocal(t *testing.T) {
	allowed := ICMPAllowed() == nil // before no file can be opened
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	expectLocal(t, netip.Addr{}, LocalFiles, allowed)
}

func TestLocalReasonOf(t *testing.T) {
	v4, v6 := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443")), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:443"))
	failed := func(call string, addr net.Addr, errno syscall.Errno) error {
		return fmt.Errorf("wrapped: %w", &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError(call, errno)})
	}
	tests := []struct {
		err    error
		local  LocalReason
		reason Reason // if not local
	}{
		{failed("socket", v4, syscall.EMFILE), LocalFiles, ""},
		{failed("socket", v4, syscall.ENFILE), LocalFiles, ""},
		{failed("connect", v4, syscall.ENOMEM), LocalMemory, ""},
		{failed("sendto", v4, syscall.ENOBUFS), LocalMemory, ""},
		{failed("bind", v4, syscall.EADDRNOTAVAIL), LocalAddress, ""},
		{failed("bind", v4, syscall.EADDRINUSE), LocalAddress, ""},
		{failed("sendto", v4, syscall.EINVAL), LocalAddress, ""},
		{failed("connect", v4, syscall.EAGAIN), LocalAddress, ""},
		{failed("sendto", v4, syscall.EPERM), LocalPermission, ""},
		{failed("sendto", v6, syscall.EPERM), LocalPermission, ""},
		{failed("socket", v6, syscall.EACCES), LocalPermission, ""},
		{failed("connect", v4, syscall.EACCES), LocalPermission, ""},
		{failed("socket", v4, syscall.EPROTONOSUPPORT), LocalOther, ""},
		{failed("setsockopt", v4, syscall.ENOPROTOOPT), LocalOther, ""},
		{x509.SystemRootsError{Err: os.ErrNotExist}, LocalOther, ""},
		{failed("connect", v6, syscall.EACCES), "", Unreachable},
		{failed("connect", v4, syscall.ENETUNREACH), "", Unreachable},
		{failed("connect", v4, syscall.EHOSTUNREACH), "", Unreachable},
		{failed("connect", v4, syscall.ENETDOWN), "", Unreachable},
		{failed("socket", v6, syscall.EAFNOSUPPORT), "", Unreachable},
		{failed("connect", v4, syscall.ECONNREFUSED), "", Refused},
		{failed("connect", v4, syscall.ETIMEDOUT), "", Timeout},
		{failed("read", v4, syscall.ECONNRESET), "", Other},
		{context.DeadlineExceeded, "", Timeout},
		{AnswerError("HTTP status 500"), "", WrongAnswer},
		{nil, "", ""},
	}
	for _, tc := range tests {
		if got := LocalReasonOf(tc.err); got != tc.local {
			t.Errorf("%v: Expected the reason %q of this machine, got %q", tc.err, tc.local, got)
		}
		if got := ReasonOf(tc.err); tc.local == "" && got != tc.reason {
			t.Errorf("%v: Expected the reason %q, got %q", tc.err, tc.reason, got)
		}
	}
}
