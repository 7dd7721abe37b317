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
	port     uint16
	name     string // SNI; "": none
	insecure bool   // no verification of the certificate
}

func parseTLS(args []string) (method, error) {
	if len(args) == 0 {
		return nil, errors.New("expected 'tls PORT [SNI] [insecure]'")
	}
	port, err := parsePort(args[0])
	t := tlsHandshake{port: port}
	rest := args[1:]
	if n := len(rest); n > 0 && rest[n-1] == "insecure" {
		t.insecure, rest = true, rest[:n-1]
	}
	if len(rest) > 1 {
		return nil, errors.New("expected 'tls PORT [SNI] [insecure]'")
	}
	if len(rest) == 1 {
		t.name = rest[0]
	}
	return t, err
}

func (t tlsHandshake) kind() string { return "tls" }

func (t tlsHandshake) measure(ctx context.Context, addr, source netip.Addr) (result, error) {
	began := time.Now()
	raw, err := dialer("tcp", source).DialContext(ctx, "tcp", netip.AddrPortFrom(addr, t.port).String())
	if err != nil {
		return result{}, err
	}
	defer raw.Close()
	out := result{connect: time.Since(began)}
	name := t.name
	if name == "" {
		name = addr.String()
	}
	conn := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: t.insecure, MinVersion: tls.VersionTLS12}) // #nosec G402 -- as configured
	began = time.Now()
	if err := conn.HandshakeContext(ctx); err != nil {
		return result{}, err
	}
	out.tls = time.Since(began)
	out.rtt = out.tls
	_ = conn.Close() // says goodbye; what the peer makes of it is no latency
	return out, nil
}
