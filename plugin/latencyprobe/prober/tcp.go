package prober

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// TCP measures the time of a TCP handshake. At the edge of a cloud it may end
// before it reaches the server.
type TCP struct {
	Port    uint16
	Refusal bool // counts as an answer, too
}

var _ Prober = TCP{}

func parseTCP(args []string) (Prober, error) {
	if len(args) != 1 {
		return nil, errors.New("expected 'tcp PORT', for example 'tcp 443'")
	}
	port, err := parsePort(args[0])
	return TCP{Port: port}, err
}

// Method implements the Prober interface.
func (TCP) Method() string { return "tcp" }

// ID implements the Prober interface.
func (t TCP) ID() string { return fmt.Sprintf("tcp{%d}", t.Port) }

// Probe implements the Prober interface.
func (t TCP) Probe(ctx context.Context, addr, source netip.Addr) (Result, error) {
	d := dialer("tcp", source)
	start := time.Now()
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, t.Port).String())
	rtt := time.Since(start)
	switch {
	case errors.Is(err, syscall.ECONNRESET): // after the handshake: a reset of the SYN is ECONNREFUSED
		return Result{RTT: rtt}, nil
	case t.Refusal && errors.Is(err, syscall.ECONNREFUSED):
		return Result{RTT: rtt}, nil
	case err != nil:
		return Result{}, err
	}
	defer conn.Close()
	kernel, ok := kernelHandshakeRTT(conn.(*net.TCPConn))
	if ok {
		rtt = min(rtt, kernel)
	}
	return Result{RTT: rtt, KernelTimed: ok}, nil
}
