package prober

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// ICMP measures an echo.
type ICMP struct{}

var (
	_ Prober = ICMP{}
	_ Sharer = ICMP{}
)

func parseICMP(args []string) (Prober, error) {
	if len(args) > 0 {
		return nil, errors.New("expected 'icmp' without arguments")
	}
	return ICMP{}, nil
}

// Method implements the Prober interface.
func (ICMP) Method() string { return "icmp" }

// ID implements the Prober interface.
func (ICMP) ID() string { return "icmp{}" }

// Probe implements the Prober interface.
func (ICMP) Probe(ctx context.Context, addr, source netip.Addr) (Result, error) {
	socket, release := echoSockets.hold(echoSource(addr, source))
	defer release()
	rtt, err := socket.exchange(ctx, addr)
	return Result{RTT: rtt}, err
}

// Hold implements the Sharer interface.
func (ICMP) Hold(addr, source netip.Addr) (release func()) {
	_, release = echoSockets.hold(echoSource(addr, source))
	return release
}

// echoSource returns the address that a socket for echoes to addr is bound to.
func echoSource(addr, source netip.Addr) netip.Addr {
	switch {
	case source.IsValid():
		return source
	case addr.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// ICMPAllowed returns an error, with the remedy, if this process may not send
// echoes.
func ICMPAllowed() error {
	conn, err := listenEcho(netip.IPv4Unspecified())
	switch {
	case err == nil:
		return conn.Close()
	case LocalReasonOf(err) == LocalPermission:
		return fmt.Errorf("this process may not send ICMP echoes: set the sysctl net.ipv4.ping_group_range (for IPv6 as well), "+
			"grant CAP_NET_RAW, or use 'rtt tcp PORT': %w", err)
	}
	return fmt.Errorf("open ICMP socket: %w", err)
}
