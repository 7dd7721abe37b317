package latencyprobe

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

// icmp measures an echo.
type icmp struct{}

func (icmp) kind() string { return "icmp" }

func (icmp) measure(ctx context.Context, addr, source netip.Addr) (result, error) {
	allowed := icmpSocket
	if addr.Is6() {
		allowed = icmp6Socket
	}
	privileged, err := allowed()
	if err != nil {
		return result{}, err
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
		return result{}, err
	}
	if s := p.Statistics(); s.PacketsRecv > 0 {
		return result{rtt: s.MinRtt}, nil
	}
	return result{}, context.DeadlineExceeded
}

// icmpSocket and icmp6Socket say which kind of socket this process may open,
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
	return false, fmt.Errorf("this process may not send ICMP echoes: allow it by the sysctl net.ipv4.ping_group_range, which is for IPv6 as well, or by CAP_NET_RAW, or measure by 'rtt tcp PORT': %w", errors.Join(err, rawErr))
}
