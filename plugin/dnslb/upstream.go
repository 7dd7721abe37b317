package dnslb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"
)

// upstream is where a DNS-B is, or another node: ADDRESS:PORT, or
// tls://ADDRESS:PORT#NAME. The text is its name in logs and metrics.
type upstream string

const tlsScheme = "tls://"

// parseUpstream reads ADDRESS[:PORT] or tls://ADDRESS[:PORT][#NAME].
func parseUpstream(text string) (upstream, error) {
	rest, secure := strings.CutPrefix(text, tlsScheme)
	name, port, scheme := "", uint16(53), ""
	if secure {
		port, scheme = 853, tlsScheme // RFC 7858, section 3.1
		rest, name, _ = strings.Cut(rest, "#")
		if _, ok := dns.IsDomainName(name); name != "" && !ok {
			return "", fmt.Errorf("'%s' is no host name", name)
		}
	}
	addrPort, err := netip.ParseAddrPort(rest)
	if err != nil {
		addr, err := netip.ParseAddr(rest)
		if err != nil {
			return "", errors.New("expected an IP address with an optional port, behind 'tls://' if it is to be asked over TLS")
		}
		addrPort = netip.AddrPortFrom(addr, port)
	}
	if addrPort.Port() == 0 {
		return "", errors.New("no port 0")
	}
	out := scheme + addrPort.String()
	if name != "" {
		out += "#" + name
	}
	return upstream(out), nil
}

// client returns what asks the DNS-B, and where it is. Its certificate must be
// for NAME, or else for the address.
func (u upstream) client(ca *x509.CertPool) (client *dns.Client, address string) {
	client = &dns.Client{Net: "tcp", Timeout: exchangeTime}
	rest, secure := strings.CutPrefix(string(u), tlsScheme)
	address, name, named := strings.Cut(rest, "#")
	if secure {
		client.Net, client.TLSConfig = "tcp-tls", &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12}
		if named {
			client.TLSConfig.ServerName = name
		}
	}
	return client, address
}

// readCA reads the certificates of authorities in PEM form.
func readCA(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}
