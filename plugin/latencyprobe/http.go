package latencyprobe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"time"
)

const (
	// userAgent tells who reads a server's log where the requests come from.
	userAgent = "coredns-latencyprobe (+https://github.com/coredns-dnslb/coredns-dnslb)"
	// maxBody bounds what is read of an answer, in bytes.
	maxBody = 1 << 20
)

// httpGet measures a GET request over a new connection, from the first packet
// to the first byte of the answer, or to its end.
type httpGet struct {
	url   string
	port  string
	total bool
}

func parseHTTP(address string, args []string) (method, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("'%s' is no URL with a host name", address)
	}
	m := httpGet{url: address, port: u.Port()}
	if m.port == "" {
		m.port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if _, err := parsePort(m.port); err != nil {
		return nil, err
	}
	switch {
	case len(args) == 0 || len(args) == 1 && args[0] == "ttfb":
	case len(args) == 1 && args[0] == "total":
		m.total = true
	default:
		return nil, errors.New("expected 'ttfb' or 'total' behind the URL")
	}
	return m, nil
}

func (h httpGet) kind() string { return "http" }

func (h httpGet) measure(ctx context.Context, addr, source netip.Addr) (time.Duration, error) {
	transport := &http.Transport{
		// The URL's host is SNI and Host; the connection goes to the server.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer("tcp", source).DialContext(ctx, network, net.JoinHostPort(addr.String(), h.port))
		},
		DisableKeepAlives:  true,
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	var first time.Time
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { first = time.Now() }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", userAgent)

	begin := time.Now()
	resp, err := transport.RoundTrip(req) // no redirects: they lead elsewhere
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return 0, &unexpected{"it answers " + resp.Status}
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return 0, err
	}
	if h.total {
		return time.Since(begin), nil
	}
	return first.Sub(begin), nil
}
