package prober

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestDNS(t *testing.T) {
	pc, l := listenBoth(t)
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
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
		if _, err := (DNS{Port: number, Name: "aa.example.org.", Type: dns.TypeSOA, Authoritative: true}).Probe(t.Context(), loopback, netip.Addr{}); err != nil {
			t.Errorf("Expected an authoritative answer to succeed, got %v", err)
		}
	})
	t.Run("without AA", func(t *testing.T) {
		_, err := (DNS{Port: number, Name: "www.example.org.", Type: dns.TypeSOA, Authoritative: true}).Probe(t.Context(), loopback, netip.Addr{})
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

// FuzzDNSReply checks that any packet can be received, and that what is taken
// for a reply has the ID and the question of the query, or tells an error.
func FuzzDNSReply(f *testing.F) {
	query := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	query.Id = 4711
	good, err := new(dns.Msg).SetReply(query).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:12])
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, ok, err := parseReply(packet, query)
		switch {
		case !ok && (m != nil || err != nil):
			t.Errorf("Expected nothing of another packet, got %v, %v", m, err)
		case ok && (binary.BigEndian.Uint16(packet) != query.Id || packet[2]&0x80 == 0):
			t.Errorf("Expected a packet that is no reply to be ignored, got %v", m)
		case ok && err != nil && ReasonOf(err) != WrongAnswer:
			t.Errorf("Expected a wrong answer, got %v", err)
		case ok && err == nil && len(m.Question) > 0 && (len(m.Question) > 1 || !strings.EqualFold(m.Question[0].Name, query.Question[0].Name)):
			t.Errorf("Expected the question of the query, got %v", m)
		}
	})
}
