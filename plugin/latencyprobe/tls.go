package latencyprobe

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"time"
)

// tlsHandshake measures the time of a TLS handshake, without the TCP one before
// it. The certificate must be valid for the name, or for the address.
type tlsHandshake struct {
	port uint16
	name string
}

func parseTLS(args []string) (method, error) {
	if len(args) == 0 || len(args) > 2 {
		return nil, errors.New("expected 'tls PORT [SNI]'")
	}
	port, err := parsePort(args[0])
	m := tlsHandshake{port: port}
	if len(args) == 2 {
		m.name = args[1]
	}
	return m, err
}

func (t tlsHandshake) kind() string { return "tls" }

func (t tlsHandshake) measure(ctx context.Context, addr, source netip.Addr) (time.Duration, error) {
	raw, err := dialer("tcp", source).DialContext(ctx, "tcp", netip.AddrPortFrom(addr, t.port).String())
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	name := t.name
	if name == "" {
		name = addr.String()
	}
	conn := tls.Client(raw, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12})
	begin := time.Now()
	if err := conn.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	rtt := time.Since(begin)
	_ = conn.Close() // says goodbye; what the peer makes of it is no latency
	return rtt, nil
}
