// Package hostmaster names who is responsible for a zone.
package hostmaster

import (
	"strings"

	"github.com/miekg/dns"
)

// Of returns the mailbox for the SOA record of a zone (RFC 2142, section 7), or
// the zone itself where such a name would be too long.
func Of(zone string) string {
	box := dns.Fqdn("hostmaster." + strings.TrimSuffix(zone, "."))
	if _, ok := dns.IsDomainName(box); !ok {
		return zone
	}
	return box
}
