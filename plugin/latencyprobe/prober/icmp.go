package prober

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	probing "github.com/prometheus-community/pro-bing"
	xicmp "golang.org/x/net/icmp"
)

// ICMP measures an echo.
type ICMP struct{}

var _ Prober = ICMP{}

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
	openable := icmpSocket
	if addr.Is6() {
		openable = icmp6Socket
	}
	privileged, err := openable()
	if err != nil {
		return Result{}, err
	}
	p := probing.New("")
	p.SetIPAddr(&net.IPAddr{IP: addr.AsSlice()})
	p.SetPrivileged(privileged)
	p.Count = 1
	if deadline, ok := ctx.Deadline(); ok {
		p.Timeout = time.Until(deadline)
	}
	if source.IsValid() {
		p.Source = source.String()
	}
	if err := p.RunWithContext(ctx); err != nil {
		return Result{}, err
	}
	if s := p.Statistics(); s.PacketsRecv > 0 {
		return Result{RTT: s.MinRtt}, nil
	}
	return Result{}, context.DeadlineExceeded
}

// ICMPAllowed returns an error, with the remedy, if this process may not send
// echoes.
func ICMPAllowed() error {
	_, err := icmpSocket()
	return err
}

// icmpSocket and icmp6Socket return which kind of socket this process may open,
// unprivileged first.
var (
	icmpSocket  = sync.OnceValues(func() (privileged bool, err error) { return openICMP("udp4", "ip4:icmp", "0.0.0.0") })
	icmp6Socket = sync.OnceValues(func() (privileged bool, err error) { return openICMP("udp6", "ip6:ipv6-icmp", "::") })
)

func openICMP(datagram, raw, address string) (privileged bool, err error) {
	conn, err := xicmp.ListenPacket(datagram, address)
	if err == nil {
		return false, conn.Close()
	}
	conn, rawErr := xicmp.ListenPacket(raw, address)
	if rawErr == nil {
		return true, conn.Close()
	}
	return false, fmt.Errorf("this process may not send ICMP echoes: set the sysctl net.ipv4.ping_group_range (for IPv6 as well), "+
		"grant CAP_NET_RAW, or use 'rtt tcp PORT': %w", errors.Join(err, rawErr))
}
