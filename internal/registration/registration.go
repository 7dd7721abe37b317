// Package registration is the wire form in which a node states itself to
// DNS-B: a DNS UPDATE (RFC 2136) of NODE.lb.ZONE with an Update Lease option
// (RFC 9664). One message is the whole state of the node, or one part of it if it
// does not fit one.
package registration

import (
	"net/netip"
	"time"
)

// Label is the label below DNS-B's zone that holds the names of all nodes.
const Label = "lb"

// Registration is what a node states about itself.
type Registration struct {
	Zone      string        // DNS-B's zone, absolute, lower case
	Node      string        // one label, lower case
	Addresses []netip.Addr  // at least one, else it is a withdrawal
	Prefixes  []Prefix      // resolver prefixes that are near (APL)
	Cuts      []string      // names that the node serves, absolute, lower case
	GivenUp   []string      // cuts that it no longer serves
	DS        []DS          // keys that it signs its cuts with
	Deputies  []string      // node labels, best first
	Location  string        // RFC 1876 presentation form, or empty
	Serial    uint64        // milliseconds since 1970; 0: the receiver's clock counts
	Lease     time.Duration // wanted lifetime; 0: the receiver's default

	// Of a part of a registration, and 0 of a whole one. Part 0 has all that the
	// others do not; those have prefixes only.
	Part  int // from 0
	Parts int // 2 to MaxParts
}

// Prefix is one item of an address prefix list (RFC 3123). Negated means "not
// this node" for the addresses that match it best.
type Prefix struct {
	netip.Prefix
	Negated bool
}
