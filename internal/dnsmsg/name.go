// Package dnsmsg holds the helpers for names, records and messages that the
// plugins share.
package dnsmsg

import (
	"strings"

	"github.com/miekg/dns"
)

// Parent returns the name without its first label; the parent of the root is
// the root.
func Parent(name string) string {
	off, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[off:]
}

// IsName reports whether s is a domain name, with or without a dot at its end.
func IsName(s string) bool {
	_, ok := dns.IsDomainName(s)
	return ok
}

// Mailbox returns the mailbox for the SOA record of a zone (RFC 2142, section
// 7), or the zone itself where the name of a mailbox would be too long.
func Mailbox(zone string) string {
	box := dns.Fqdn("hostmaster." + strings.TrimSuffix(zone, "."))
	if !IsName(box) {
		return zone
	}
	return box
}
