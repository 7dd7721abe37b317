package tcplimit

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// maxTotal bounds memory: while a client sends a message, or does not read
	// one, CoreDNS keeps up to 64 kB for it. So this is 64 MB, and seven times
	// what BIND accepts by default.
	maxTotal = 1024
	// clients is how many clients it takes to have all connections.
	clients = 8
	// idleAfter is when a connection is idle. It is longer than answers take,
	// and shorter than the timeouts of CoreDNS.
	idleAfter = time.Second
)

// limits are numbers of connections, and of descriptors.
type limits struct {
	total, perClient int
	spare            int // descriptors that no burst of connections shall take
}

// limitsFor divides the descriptors that a process may have and does not use for
// anything else: half for connections, a quarter for those that come before the
// next scan, and a quarter for probes and files that have yet to be opened.
func limitsFor(descriptors, others int) limits {
	free := max(0, descriptors-others)
	total := min(maxTotal, free/2)
	return limits{
		total:     total,
		perClient: (total + clients - 1) / clients,
		spare:     free / 4,
	}
}

// socket is a TCP socket as it was when it was examined.
type socket struct {
	descriptor  int
	local, peer netip.AddrPort // peer: invalid of a listener
	state       uint8
	answered    bool          // something was sent to the client
	idle        time.Duration // since it was, or since the connection began
}

// client returns whose connection it is: one address, or one network of an IPv6
// host, which can have any address in it.
func (s *socket) client() netip.Prefix {
	bits := 32
	if s.peer.Addr().Is6() {
		bits = 64
	}
	p, _ := s.peer.Addr().Prefix(bits) // cannot fail: bits are in range
	return p
}

// choose returns the connections to close: those beyond the limit of their
// client, and of the remaining ones those beyond the limit in all. Idle ones go
// first, the longest idle one before the others. When all are busy, those of the
// client that has most of them go first, and those without an answer yet.
func choose(conns []socket, l limits) (ofClient, ofAll []socket) {
	conns = slices.Clone(conns)
	slices.SortStableFunc(conns, func(a, b socket) int { return cmp.Compare(a.idle, b.idle) })

	type ranked struct {
		socket
		rank int // among the connections of its client, the busiest one first
	}
	counts := make(map[netip.Prefix]int)
	remaining := make([]ranked, 0, len(conns))
	for _, c := range conns {
		client := c.client()
		rank := counts[client]
		counts[client]++
		if rank >= l.perClient {
			ofClient = append(ofClient, c)
			continue
		}
		remaining = append(remaining, ranked{c, rank})
	}

	excess := len(remaining) - l.total
	if excess <= 0 {
		return ofClient, nil
	}
	slices.SortStableFunc(remaining, func(a, b ranked) int {
		longer := cmp.Compare(b.idle, a.idle)
		switch {
		case max(a.idle, b.idle) >= idleAfter:
			return longer
		case a.rank != b.rank:
			return cmp.Compare(b.rank, a.rank)
		case a.answered != b.answered:
			if b.answered {
				return -1
			}
			return 1
		}
		return longer
	})
	for _, r := range remaining[:excess] {
		ofAll = append(ofAll, r.socket)
	}
	return ofClient, ofAll
}
