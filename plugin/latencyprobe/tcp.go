package latencyprobe

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// tcp measures the time of a TCP handshake. At the edge of a cloud it may end
// before it reaches the server.
type tcp struct{ port uint16 }

func (t tcp) kind() string { return "tcp" }

func (t tcp) measure(ctx context.Context, addr, source netip.Addr) (result, error) {
	d := dialer("tcp", source)
	began := time.Now()
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, t.port).String())
	rtt := time.Since(began)
	if err != nil {
		return result{}, err
	}
	// The kernel's own measurement of the handshake does not depend on when this
	// goroutine runs again.
	kernel, exact := handshakeRTT(conn.(*net.TCPConn))
	if exact {
		rtt = min(rtt, kernel)
	}
	return result{rtt: rtt, exact: exact}, conn.Close()
}
