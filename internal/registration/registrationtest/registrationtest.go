// Package registrationtest makes registrations for tests.
package registrationtest

import (
	"net/netip"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Zone is the zone of DNS-B in tests.
const Zone = "gslb.example.org."

// Node returns a registration of a node at one address with the cut svc and
// prefixes, of which a leading "!" negates one.
func Node(name, addr string, prefixes ...string) *registration.Registration {
	r := &registration.Registration{Zone: Zone, Node: name, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Cuts: []string{"svc." + Zone}}
	for _, s := range prefixes {
		bare, negated := strings.CutPrefix(s, "!")
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: netip.MustParsePrefix(bare), Negated: negated})
	}
	return r
}
