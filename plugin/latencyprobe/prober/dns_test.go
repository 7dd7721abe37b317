package prober

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestDNS(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Skip("No port is free for both transports")
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		_, overUDP := w.RemoteAddr().(*net.UDPAddr)
		if r.RecursionDesired != strings.HasPrefix(r.Question[0].Name, "recursive.") {
			m.Rcode = dns.RcodeRefused
		}
		switch first, _, _ := strings.Cut(r.Question[0].Name, "."); first {
		case "refused":
			m.Rcode = dns.RcodeRefused
		case "big":
			m.Truncated = overUDP
		case "aa":
			m.Authoritative = true
		case "silent":
			return
		}
		if !overUDP {
			time.Sleep(20 * time.Millisecond)
		}
		_ = w.WriteMsg(m)
	})
	udp, tcp := &dns.Server{PacketConn: pc, Handler: handler}, &dns.Server{Listener: l, Handler: handler}
	go func() { _ = udp.ActivateAndServe() }()
	go func() { _ = tcp.ActivateAndServe() }()
	defer pc.Close()
	defer l.Close()

	number, err := parsePort(port)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("over UDP, from a source", func(t *testing.T) {
		rtt, err := probeLoopback(t, "127.0.0.9", "dns", port, "www.example.org")
		expectRTT(t, rtt, err, 1)
	})
	t.Run("truncated, so over TCP", func(t *testing.T) {
		rtt, err := probeLoopback(t, "", "dns", port, "big.example.org", "TXT")
		expectRTT(t, rtt, err, 20*time.Millisecond)
	})
	t.Run("REFUSED", func(t *testing.T) {
		_, err := probeLoopback(t, "", "dns", port, "refused.example.org")
		expectReason(t, err, WrongAnswer)
	})
	t.Run("recursive, RD refused without it", func(t *testing.T) {
		rtt, err := probeLoopback(t, "", "dns", port, "recursive.example.org", "recursive")
		expectRTT(t, rtt, err, 1)
		_, err = probeLoopback(t, "", "dns", port, "recursive.example.org")
		expectReason(t, err, WrongAnswer)
	})
	t.Run("no answer", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := (DNS{Port: number, Name: "silent.example.org.", Type: dns.TypeA}).Probe(ctx, loopback, netip.Addr{})
		expectReason(t, err, Timeout)
	})

	t.Run("with AA", func(t *testing.T) {
		if _, err := (DNS{number, "aa.example.org.", dns.TypeSOA, true, false}).Probe(t.Context(), loopback, netip.Addr{}); err != nil {
			t.Errorf("Expected an authoritative answer to succeed, got %v", err)
		}
	})
	t.Run("without AA", func(t *testing.T) {
		_, err := (DNS{number, "www.example.org.", dns.TypeSOA, true, false}).Probe(t.Context(), loopback, netip.Addr{})
		expectReason(t, err, WrongAnswer)
	})
}

// TestSetClockIsNoLatency checks that the wall clock, by which the kernel notes
// arrivals, counts only if it agrees with the monotonic one.
func TestSetClockIsNoLatency(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name                               string
		elapsed, wallElapsed, sinceArrival time.Duration
		want                               time.Duration // 0: the arrival does not count
	}{
		{"clocks agree", 120 * ms, 120 * ms, 20 * ms, 100 * ms},
		{"slewed", 120 * ms, 120*ms + 100*time.Microsecond, 20 * ms, 100 * ms},
		{"set back", 120 * ms, 20 * ms, 19 * ms, 0},
		{"set back by little", 120 * ms, 119 * ms, 1 * ms, 0},
		{"set back by much", 120 * ms, -time.Hour, -time.Hour, 0},
		{"set forward", 120 * ms, 130 * ms, 10 * ms, 0},
		{"set forward by much", 120 * ms, 2 * time.Hour, 2 * time.Hour, 0},
		{"arrived before it was sent", 120 * ms, 120 * ms, 121 * ms, 0},
		{"arrived when it was sent", 120 * ms, 120 * ms, 120 * ms, 0},
		{"arrived after it was read", 120 * ms, 120 * ms, -1, 0},
	}
	for _, tc := range tests {
		if got, ok := arrivalRTT(tc.elapsed, tc.wallElapsed, tc.sinceArrival); got != tc.want || ok != (tc.want > 0) {
			t.Errorf("%s: Expected %s, got %s", tc.name, tc.want, got)
		}
	}
}
