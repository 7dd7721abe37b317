package prober

import (
	"net/netip"
	"time"
)

// Hop is what answered a packet on the way to an address.
type Hop struct {
	Addr netip.Addr // of a router, or what the packet was for
	RTT  time.Duration
	// Last tells that no packet comes further: the router rejected it, or it arrived.
	Last bool
}
