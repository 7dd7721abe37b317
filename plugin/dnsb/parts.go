package dnsb

import (
	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// shownPart is the list of prefixes at the name of a part.
type shownPart struct {
	name     string
	prefixes []registration.Prefix
}

// shownParts returns what is shown of prefixes that do not fit one message, nil
// if they do.
func shownParts(r *registration.Registration) []shownPart {
	lists := registration.SplitPrefixes(r.Prefixes)
	if len(lists) == 1 {
		return nil
	}
	parts := make([]shownPart, len(lists))
	for i, prefixes := range lists {
		parts[i] = shownPart{registration.PartName(i, r.Node, r.Zone), prefixes}
	}
	return parts
}

// records returns the records of a part of the type in h.
func (p *shownPart) records(h dns.RR_Header) []dns.RR {
	if h.Rrtype != dns.TypeAPL {
		return nil
	}
	return prefixLists(h, p.prefixes)
}
