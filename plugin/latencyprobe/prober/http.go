package prober

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
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

const (
	// userAgent explains the requests to readers of a server's log.
	userAgent = "coredns-latencyprobe (+https://github.com/coredns-dnslb/coredns-dnslb)"
	// maxBody and maxHeader bound how much of an answer is read, in bytes.
	maxBody   = 1 << 20
	maxHeader = 64 << 10
)

// HTTP measures a GET request over a new connection, from its first packet to
// the first byte of the answer or, with Total, to the end of the answer.
type HTTP struct {
	URL      string // its host is the SNI and the Host header
	Port     string // of the server, from the URL
	Total    bool
	Insecure bool   // the certificate is not verified
	Expect   int    // status code; 0: any below 400
	Match    string // text that the first MiB of the body must contain
}

var (
	_ Prober = HTTP{}
	_ Sharer = HTTP{}
)

func parseHTTP(address string, args []string) (Prober, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("invalid URL '%s': expected one with a host name, such as https://www.example.org/health", address)
	}
	if _, err := corefile.Name(u.Hostname()); err != nil {
		return nil, err
	}
	h := HTTP{URL: address, Port: u.Port()}
	if h.Port == "" {
		h.Port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if _, err := parsePort(h.Port); err != nil {
		return nil, err
	}
	for len(args) > 0 {
		option := args[0]
		args = args[1:]
		switch option {
		case "ttfb", "total":
			h.Total = option == "total"
			continue
		case "insecure":
			h.Insecure = true
			continue
		case "expect", "match":
		default:
			return nil, fmt.Errorf("unknown option '%s', expected one of: ttfb, total, insecure, expect CODE, match TEXT", option)
		}
		if len(args) == 0 || args[0] == "" {
			return nil, fmt.Errorf("'%s' needs a value", option)
		}
		value := args[0]
		args = args[1:]
		if option == "match" {
			h.Match = value
			continue
		}
		if h.Expect, err = strconv.Atoi(value); err != nil || h.Expect < 200 || h.Expect > 599 {
			return nil, fmt.Errorf("invalid status code '%s' for 'expect': expected 200 to 599", value)
		}
	}
	return h, nil
}

// Method implements the Prober interface.
func (HTTP) Method() string { return "http" }

// ID implements the Prober interface.
func (h HTTP) ID() string {
	return fmt.Sprintf("httpGet{%s %s %t %t %d %s}", h.URL, h.Port, h.Total, h.Insecure, h.Expect, h.Match)
}

// Hold implements the Sharer interface.
func (h HTTP) Hold(netip.Addr, netip.Addr) (release func()) {
	if !h.Insecure && strings.HasPrefix(h.URL, "https:") {
		readTrustedCertificates()
	}
	return func() {}
}

// Probe implements the Prober interface.
func (h HTTP) Probe(ctx context.Context, addr, source netip.Addr) (Result, error) {
	var (
		result          Result
		start, tlsStart time.Time
		connected       atomic.Bool
	)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			result.Connect = time.Since(start)
			connected.Store(err == nil)
		},
		TLSHandshakeStart:    func() { tlsStart = time.Now() },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { result.TLS = time.Since(tlsStart) },
		GotFirstResponseByte: func() { result.FirstByte = time.Since(start) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
	if err != nil {
		return Result{}, err
	}
	req.Header.Set("User-Agent", userAgent)
	transport := h.transport(addr, source)
	defer transport.CloseIdleConnections()

	start = time.Now()
	resp, err := transport.RoundTrip(req) // unlike http.Client it follows no redirects, which may lead to another server
	if err != nil {
		if connected.Load() {
			err = reachedError{err}
		}
		return Result{}, err
	}
	defer resp.Body.Close()
	if err := h.checkStatus(resp); err != nil {
		return Result{}, err
	}
	result.RTT = result.FirstByte
	if !h.Total && h.Match == "" {
		return result, nil // without waiting for the body
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	result.Total = time.Since(start)
	switch {
	case err != nil:
		return Result{}, reachedError{err}
	case !bytes.Contains(body, []byte(h.Match)):
		return Result{}, AnswerError(fmt.Sprintf("HTTP body does not contain %q", h.Match))
	case h.Total:
		result.RTT = result.Total
	}
	return result, nil
}

const errRetried = AnswerError("HTTP connection ended without an answer")

// transport returns a transport for one request, which connects to addr
// whatever the host of the URL is.
func (h HTTP) transport(addr, source netip.Addr) *http.Transport {
	var dialed atomic.Bool
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if dialed.Swap(true) { // HTTP/2 tries again and again if the server refuses streams
				return nil, errRetried
			}
			return dialer("tcp", source).DialContext(ctx, network, net.JoinHostPort(addr.String(), h.Port))
		},
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: h.Insecure, MinVersion: tls.VersionTLS12}, // #nosec G402 -- as configured
		ForceAttemptHTTP2:      true,                                                                      // which a DialContext or a TLSClientConfig prevents else
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
}

func (h HTTP) checkStatus(resp *http.Response) error {
	// 101 is no answer to a request without Upgrade.
	if code := resp.StatusCode; code == h.Expect || h.Expect == 0 && code >= http.StatusOK && code < http.StatusBadRequest {
		return nil
	}
	return AnswerError("HTTP status " + resp.Status)
}
