package prober

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// TLS measures the time of a TLS handshake, without the TCP handshake before
// it. The certificate must be valid for the server name, or for the address.
type TLS struct {
	Port       uint16
	ServerName string // SNI; "": none
	Insecure   bool   // the certificate is not verified
}

var (
	_ Prober = TLS{}
	_ Sharer = TLS{}
)

// readTrustedCertificates has the process read its trusted certificates. That is
// done once: a later first probe may find no file descriptor for it, and then
// all others fail as well.
var readTrustedCertificates = sync.OnceFunc(func() { _, _ = x509.SystemCertPool() })

func parseTLS(args []string) (Prober, error) {
	wrongShape := errors.New("expected 'tls PORT [SNI] [insecure]', for example 'tls 443 www.example.org'")
	if len(args) == 0 {
		return nil, wrongShape
	}
	port, err := parsePort(args[0])
	t := TLS{Port: port}
	rest := args[1:]
	if n := len(rest); n > 0 && rest[n-1] == "insecure" {
		t.Insecure, rest = true, rest[:n-1]
	}
	if len(rest) > 1 {
		return nil, wrongShape
	}
	if len(rest) == 1 {
		t.ServerName = rest[0]
		if _, err := corefile.Name(t.ServerName); err != nil {
			return nil, err
		}
	}
	return t, err
}

// Method implements the Prober interface.
func (TLS) Method() string { return "tls" }

// ID implements the Prober interface.
func (t TLS) ID() string {
	return fmt.Sprintf("tlsHandshake{%d %s %t}", t.Port, t.ServerName, t.Insecure)
}

// Hold implements the Sharer interface.
func (t TLS) Hold(netip.Addr, netip.Addr) (release func()) {
	if !t.Insecure {
		readTrustedCertificates()
	}
	return func() {}
}

// Probe implements the Prober interface.
func (t TLS) Probe(ctx context.Context, addr, source netip.Addr) (Result, error) {
	start := time.Now()
	raw, err := dialer("tcp", source).DialContext(ctx, "tcp", netip.AddrPortFrom(addr, t.Port).String())
	if err != nil {
		return Result{}, err
	}
	defer raw.Close()
	result := Result{Connect: time.Since(start)}
	name := t.ServerName
	if name == "" {
		name = addr.String()
	}
	config := &tls.Config{ServerName: name, InsecureSkipVerify: t.Insecure, MinVersion: tls.VersionTLS12} // #nosec G402 -- as configured
	conn := tls.Client(raw, config)
	start = time.Now()
	if err := conn.HandshakeContext(ctx); err != nil {
		return Result{}, reachedError{err}
	}
	result.TLS = time.Since(start)
	result.RTT = result.TLS
	_ = conn.Close() // sends close_notify; whether that arrives does not matter
	return result, nil
}
