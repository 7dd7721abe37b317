package widearea

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// wire notes the probes of a survey as they are sent, whatever the programs say of
// it. Its method see is the tap of a Router.
type wire struct {
	nodes    []netip.Addr // that may probe, and be probed
	subjects []netip.Addr // resolvers that may be probed

	mu     sync.Mutex
	probes []wireProbe
}

// wireProbe is one packet of a survey.
type wireProbe struct {
	at       time.Time
	from, to netip.Addr
	method   string
}

// see notes a packet if it is a probe: an echo request from a node, or between a
// node and a resolver also a query or the beginning of a connection to port 53. A query
// that routers are to answer has the method "router".
func (w *wire) see(now time.Time, packet []byte) {
	p := probeOf(packet)
	probed := slices.Contains(w.subjects, p.to) || p.method == "icmp" && slices.Contains(w.nodes, p.to)
	if p.method == "" || !probed || !slices.Contains(w.nodes, p.from) {
		return
	}
	p.at = now
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes = append(w.probes, p)
}

// since returns the probes from a time on that match.
func (w *wire) since(from time.Time, match func(wireProbe) bool) []wireProbe {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []wireProbe
	for _, p := range w.probes {
		if !p.at.Before(from) && match(p) {
			found = append(found, p)
		}
	}
	return found
}

// probesTo matches what goes to an address.
func probesTo(addr netip.Addr) func(wireProbe) bool {
	return func(p wireProbe) bool { return p.to == addr }
}

func anyProbe(wireProbe) bool { return true }

// burstBeyond returns by how many packets the probes are more than a rate, in
// packets a second, allows, in any time between two of them; the packets that may
// come at once are in it.
func burstBeyond(probes []wireProbe, rate float64) float64 {
	beyond := 0.0
	level := 0.0 // of a bucket that leaks by the rate
	for i, p := range probes {
		if i > 0 {
			level = max(0, level-rate*p.at.Sub(probes[i-1].at).Seconds())
		}
		level++
		beyond = max(beyond, level)
	}
	return beyond
}

// maxRouterTTL is the largest time to live of a packet for a router. All others have 64.
const maxRouterTTL = 30

// probeOf returns the addresses of a packet, and the method if it can be a probe.
func probeOf(packet []byte) (p wireProbe) {
	var protocol byte
	var rest []byte
	echo := byte(8)
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		p.from, p.to = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		protocol, rest = packet[9], packet[min(int(packet[0]&15)*4, len(packet)):]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		p.from, p.to = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		protocol, rest, echo = packet[6], packet[40:], 128
	}
	to53 := len(rest) >= 4 && binary.BigEndian.Uint16(rest[2:]) == 53
	const syn, ack = 2, 16
	switch {
	case (protocol == 1 || protocol == 58) && len(rest) > 0 && rest[0] == echo:
		p.method = "icmp"
	case protocol == 17 && to53 && ttl(packet) <= maxRouterTTL:
		p.method = "router"
	case protocol == 17 && to53:
		p.method = "dns"
	case protocol == 6 && to53 && len(rest) >= 14 && rest[13]&(syn|ack) == syn:
		p.method = "tcp"
	}
	return p
}

func TestWireCountsProbes(t *testing.T) {
	node, resolver, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.18.1.1"), netip.MustParseAddr("192.0.2.9")
	node6, resolver6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1")
	packet := func(from, to netip.Addr, protocol byte, rest ...byte) []byte {
		p := packetTo(to, 0)
		p = p[:len(p)-4]
		if to.Is6() {
			p[6], p[7] = protocol, 64
			copy(p[8:], from.AsSlice())
		} else {
			p[8], p[9] = 64, protocol
			copy(p[12:], from.AsSlice())
		}
		return append(p, rest...)
	}
	limited := func(p []byte, ttl byte) []byte {
		if p[0]>>4 == 6 {
			p[7] = ttl
		} else {
			p[8] = ttl
		}
		return p
	}
	tcp := func(port, flags byte) []byte { return append([]byte{9, 9, 0, port, 13: flags}, 0, 0, 0, 0, 0, 0) }
	for _, tc := range []struct {
		name   string
		packet []byte
		want   string
	}{
		{"echo request", packet(node, resolver, 1, 8, 0), "icmp"},
		{"echo request of IPv6", packet(node6, resolver6, 58, 128, 0), "icmp"},
		{"echo reply", packet(node, resolver, 1, 0, 0), ""},
		{"query", packet(node6, resolver6, 17, 9, 9, 0, 53, 0, 8, 0, 0), "dns"},
		{"query for a router", limited(packet(node, resolver, 17, 9, 9, 0, 53, 0, 8, 0, 0), 30), "router"},
		{"query for a router of IPv6", limited(packet(node6, resolver6, 17, 9, 9, 0, 53, 0, 8, 0, 0), 1), "router"},
		{"answer", packet(node, resolver, 17, 0, 53, 9, 9, 0, 8, 0, 0), ""},
		{"beginning of a connection", packet(node, resolver, 6, tcp(53, 2)...), "tcp"},
		{"reply to one", packet(node, resolver, 6, tcp(53, 18)...), ""},
		{"other port", packet(node, resolver, 6, tcp(80, 2)...), ""},
		{"echo request to a node", packet(node6, node6, 58, 128, 0), "icmp"},
		{"query to a node", packet(node, node, 17, 9, 9, 0, 53, 0, 8, 0, 0), ""},
		{"echo request of another host", packet(other, resolver, 1, 8, 0), ""},
		{"echo request to another host", packet(node, other, 1, 8, 0), ""},
		{"no packet", []byte{4 << 4}, ""},
	} {
		w := &wire{nodes: []netip.Addr{node, node6}, subjects: []netip.Addr{resolver, resolver6}}
		r := NewRouter(twoCities(t, 80), 1)
		r.Tap(w.see)
		r.Receive(time.Unix(1000, 0), r.Attach("Paris", func([]byte) {}, parAddr), tc.packet)
		got := ""
		for _, p := range w.since(time.Time{}, anyProbe) {
			got += p.method
		}
		if got != tc.want {
			t.Errorf("%s: Expected %q, got %q", tc.name, tc.want, got)
		}
	}
}

func TestBurstBeyond(t *testing.T) {
	for _, tc := range []struct {
		seconds []float64
		rate    float64
		want    float64
	}{
		{nil, 1, 0},
		{[]float64{0, 1, 2, 3}, 1, 1},
		{[]float64{0, 0.5, 1, 1.5, 2}, 1, 3},
		{[]float64{0, 10, 10, 10, 20}, 1, 3},
	} {
		var probes []wireProbe
		for _, s := range tc.seconds {
			probes = append(probes, wireProbe{at: time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second)))})
		}
		if got := burstBeyond(probes, tc.rate); got != tc.want {
			t.Errorf("%v: Expected %v, got %v", tc.seconds, tc.want, got)
		}
	}
}
