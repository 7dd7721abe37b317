package latencyprobe

import (
	"bytes"
	"context"
	"crypto/tls"

	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
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
	url      string
	port     string
	total    bool
	insecure bool   // no verification of the certificate
	expect   int    // status; 0: any below 400
	match    string // text that the body must hold
}

func parseHTTP(address string, args []string) (method, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("'%s' is no URL with a host name", address)
	}
	h := httpGet{url: address, port: u.Port()}
	if h.port == "" {
		h.port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if _, err := parsePort(h.port); err != nil {
		return nil, err
	}
	for i := 0; i < len(args); i++ {
		word := args[i]
		switch word {
		case "ttfb", "total":
			h.total = word == "total"
			continue
		case "insecure":
			h.insecure = true
			continue
		case "expect", "match":
		default:
			return nil, fmt.Errorf("unknown word '%s' behind the URL; known: ttfb, total, insecure, expect CODE, match TEXT", word)
		}
		if i++; i == len(args) || args[i] == "" {
			return nil, fmt.Errorf("'%s' needs a value", word)
		}
		if word == "match" {
			h.match = args[i]
			continue
		}
		if h.expect, err = strconv.Atoi(args[i]); err != nil || h.expect < 200 || h.expect > 599 {
			return nil, fmt.Errorf("'expect %s': expected a status code from 200 to 599", args[i])
		}
	}
	return h, nil
}

func (h httpGet) kind() string { return "http" }

func (h httpGet) measure(ctx context.Context, addr, source netip.Addr) (result, error) {
	var (
		out          result
		began, first time.Time
		shook        time.Time // when the TLS handshake began
	)
	transport := &http.Transport{
		// The URL's host is SNI and Host; the connection goes to the server.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer("tcp", source).DialContext(ctx, network, net.JoinHostPort(addr.String(), h.port))
		},
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: h.insecure, MinVersion: tls.VersionTLS12}, // #nosec G402 -- as configured
		DisableKeepAlives:  true,
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone:          func(string, string, error) { out.connect = time.Since(began) },
		TLSHandshakeStart:    func() { shook = time.Now() },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { out.tls = time.Since(shook) },
		GotFirstResponseByte: func() { first = time.Now() },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return result{}, err
	}
	req.Header.Set("User-Agent", userAgent)

	began = time.Now()
	resp, err := transport.RoundTrip(req) // no redirects: they lead elsewhere
	if err != nil {
		return result{}, err
	}
	defer resp.Body.Close()
	out.firstByte = first.Sub(began)
	var body []byte
	if h.total || h.match != "" { // else a slow body is none of our business
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
		out.total = time.Since(began)
	}
	switch ok := resp.StatusCode == h.expect || h.expect == 0 && resp.StatusCode < http.StatusBadRequest; {
	case !ok:
		return result{}, &unexpected{"it answers " + resp.Status}
	case err != nil:
		return result{}, err
	case !bytes.Contains(body, []byte(h.match)):
		return result{}, &unexpected{fmt.Sprintf("its answer does not contain %q", h.match)}
	}
	out.rtt = out.firstByte
	if h.total {
		out.rtt = out.total
	}
	return out, nil
}
