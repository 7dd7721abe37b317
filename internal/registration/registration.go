// Package registration is the wire form in which a node registers at DNS-B: a
// DNS UPDATE (RFC 2136) of NODE.lb.ZONE with an Update Lease option (RFC 9664).
// One message holds everything that DNS-B knows of the node, or one part of a
// registration that is too long for one message. docs/registration.md has the
// specification.
package registration

import (
	"net/netip"
	"strconv"
	"time"
)

// Label is the label below the zone of DNS-B under which all nodes are named.
const Label = "lb"

// Registration is what a node states about itself.
type Registration struct {
	Zone       string        // zone of DNS-B, absolute, lower case
	Node       string        // one label, lower case
	Addresses  []netip.Addr  // none in a withdrawal
	Prefixes   []Prefix      // prefixes of resolvers near the node (APL)
	Cuts       []string      // names that the node serves, absolute, lower case
	FormerCuts []string      // cuts that the node no longer serves
	DS         []DS          // keys that the node signs its cuts with
	Deputies   []string      // labels of nodes, best first
	Location   string        // presentation form of RFC 1876, or empty
	Serial     uint64        // milliseconds since 1970; 0: time of receipt
	Lease      time.Duration // requested lifetime; 0: default of the receiver

	// ClientSubnets says that the node answers by client subnets (RFC 7871).
	ClientSubnets bool

	// Beside names, for each set of servers, the nodes that stand where these do: at
	// most MaxBeside sets of MaxBesideNodes. They are sorted.
	Beside [][]string

	// Part and Parts are 0 in a whole registration. Part 0 has all records
	// but the prefixes of the other parts, which have nothing else.
	Part  int // from 0
	Parts int // 2 to MaxParts
}

// NodeName returns the name that holds the records of a node.
func NodeName(node, zone string) string { return node + "." + Label + "." + zone }

// PartName returns the name that holds the prefixes of one part.
func PartName(part int, node, zone string) string {
	return strconv.Itoa(part) + "." + NodeName(node, zone)
}

// IsLabel reports whether s can name a node: one label of lower-case letters,
// digits and inner hyphens.
func IsLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// IsNodeAddress reports whether addr can be the address of a node.
func IsNodeAddress(addr netip.Addr) bool {
	return (addr.IsGlobalUnicast() || addr.IsLoopback()) && !addr.Is4In6()
}
