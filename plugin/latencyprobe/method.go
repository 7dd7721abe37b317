package latencyprobe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// method takes one sample of one address. Implementations hold no state of the
// address, so that one serves all targets of a probe.
type method interface {
	// measure returns what it measured, or why there is nothing. The deadline is
	// that of ctx; an invalid source leaves the choice to the kernel.
	measure(ctx context.Context, addr, source netip.Addr) (result, error)
	// kind is the word in the Corefile, a label of metrics.
	kind() string
}

// result is one measurement: the latency to rank by, and the phases that it is
// made of where a method has them.
type result struct {
	rtt                            time.Duration
	exact                          bool // by the kernel's clock
	late                           bool // our own scheduler may have added to it
	connect, tls, firstByte, total time.Duration
}

// phases calls f for each phase that was measured.
func (r result) phases(f func(name string, took time.Duration)) {
	for _, phase := range []struct {
		name string
		took time.Duration
	}{{"connect", r.connect}, {"tls", r.tls}, {"first_byte", r.firstByte}, {"total", r.total}} {
		if phase.took > 0 {
			f(phase.name, phase.took)
		}
	}
}

const methods = "icmp | tcp PORT | tls PORT [SNI] [insecure] | dns PORT NAME [TYPE] | http(s)://HOST[:PORT]/PATH [ttfb|total] [insecure] [expect CODE] [match TEXT]"

// parseMethod reads a method as it stands behind rtt or health.
func parseMethod(args []string) (method, error) {
	if len(args) == 0 {
		return nil, errors.New("expected a method: " + methods)
	}
	word, rest := args[0], args[1:]
	switch {
	case word == "icmp":
		if len(rest) > 0 {
			return nil, errors.New("icmp takes no argument")
		}
		return icmp{}, nil
	case word == "tcp":
		if len(rest) != 1 {
			return nil, errors.New("expected 'tcp PORT'")
		}
		port, err := parsePort(rest[0])
		return tcp{port}, err
	case word == "tls":
		return parseTLS(rest)
	case word == "dns":
		return parseDNS(rest)
	case strings.HasPrefix(word, "http://"), strings.HasPrefix(word, "https://"):
		return parseHTTP(word, rest)
	}
	return nil, fmt.Errorf("unknown method '%s'; known: %s", word, methods)
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("'%s' is no port: expected a number from 1 to 65535", s)
	}
	return uint16(port), nil
}

// dialer returns a dialer that sends from source.
func dialer(network string, source netip.Addr) *net.Dialer {
	d := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	if source.IsValid() {
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		}
	}
	return d
}

// reason names the kind of a failure, for metrics.
func reason(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "unreachable"
	case errors.As(err, new(*unexpected)):
		return "answer"
	}
	return "other"
}

// unexpected is an answer that came, and that is not the one that was asked for.
type unexpected struct{ text string }

func (u *unexpected) Error() string { return u.text }
