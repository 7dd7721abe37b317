package latencyprobe

import (
	"context"
	"net/netip"
	"time"
)

// tcp measures the time of a TCP handshake. At the edge of a cloud it may end
// before it reaches the server.
type tcp struct{ port uint16 }

func (t tcp) kind() string { return "tcp" }

func (t tcp) measure(ctx context.Context, addr, source netip.Addr) (result, error) {
	d := dialer("tcp", source)
	begin := time.Now()
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, t.port).String())
	rtt := time.Since(begin)
	if err != nil {
		return result{}, err
	}
	return result{rtt: rtt}, conn.Close()
}
