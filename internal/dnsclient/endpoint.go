package dnsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// Endpoint is the address of a DNS server and how to reach it: ADDRESS:PORT over
// TCP, or tls://ADDRESS:PORT[#NAME] over TLS. The text is canonical, so that it
// compares and is the server's name in logs and metrics.
type Endpoint string

const (
	tlsScheme = "tls://"

	defaultPort    = 53
	defaultTLSPort = 853 // RFC 7858, section 3.1
)

// ParseEndpoint reads ADDRESS[:PORT] or tls://ADDRESS[:PORT][%NAME]. Instead of '%'
// there may be '#', which begins a comment in a Corefile unless it is quoted.
func ParseEndpoint(text string) (Endpoint, error) {
	rest, secure := strings.CutPrefix(text, tlsScheme)
	name, port, scheme := "", uint16(defaultPort), ""
	if secure {
		port, scheme = defaultTLSPort, tlsScheme
		if i := strings.IndexAny(rest, "%#"); i >= 0 {
			rest, name = rest[:i], rest[i+1:]
			if strings.Contains(name, ":") {
				return "", fmt.Errorf("invalid endpoint '%s': write the port before the name, such as tls://192.0.2.1:853%%b1.example.org", text)
			}
			if _, err := corefile.Name(name); err != nil {
				return "", fmt.Errorf("'%s': %w", text, err)
			}
		}
	}
	addrPort, err := netip.ParseAddrPort(rest)
	if err != nil {
		addr, err := netip.ParseAddr(rest)
		if err != nil {
			return "", fmt.Errorf("invalid address '%s': expected an IP address with an optional port, such as 192.0.2.1 or tls://192.0.2.1:853%%b1.example.org", text)
		}
		addrPort = netip.AddrPortFrom(addr, port)
	}
	if zone := addrPort.Addr().Zone(); strings.ContainsFunc(zone, func(r rune) bool { return !isInterfaceRune(r) }) {
		return "", fmt.Errorf("invalid interface '%s' in '%s': expected its name, such as eth0", zone, text)
	}
	if addrPort.Port() == 0 {
		return "", fmt.Errorf("invalid port 0 in '%s': expected 1 to 65535", text)
	}
	endpoint := scheme + addrPort.String()
	if name != "" {
		endpoint += "#" + name
	}
	return Endpoint(endpoint), nil
}

// Addr returns the IP address of the endpoint.
func (e Endpoint) Addr() netip.Addr {
	_, address := e.client(nil)
	addrPort, _ := netip.ParseAddrPort(address)
	return addrPort.Addr()
}

// isInterfaceRune reports whether a character may be in the name of an interface.
// A '#' would begin a host name.
func isInterfaceRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
}

// client returns a client for the endpoint's transport, and the address to
// dial. The server's certificate must be for NAME, or else for the address.
func (e Endpoint) client(ca *x509.CertPool) (client *dns.Client, address string) {
	client = &dns.Client{Net: "tcp", Timeout: Timeout}
	rest, secure := strings.CutPrefix(string(e), tlsScheme)
	address, name, named := strings.Cut(rest, "#")
	if secure {
		client.Net, client.TLSConfig = "tcp-tls", &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12}
		if named {
			client.TLSConfig.ServerName = name
		}
	}
	return client, address
}

// dial connects. The connection is closed when ctx ends, since package dns
// heeds only deadlines while it reads. The caller must call hangUp.
func (e Endpoint) dial(ctx context.Context, ca *x509.CertPool) (conn *dns.Conn, hangUp func(), err error) {
	client, address := e.client(ca)
	conn, err = client.DialContext(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	raw := conn.Conn // the caller may wrap it
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	return conn, func() { stop(); raw.Close() }, nil
}

// ReadCA reads certificates of authorities in PEM form.
func ReadCA(file string) (*x509.CertPool, error) {
	data, err := inputfile.ReadText(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("no certificate in PEM form in %q", file)
	}
	return pool, nil
}
