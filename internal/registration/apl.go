package registration

import "github.com/miekg/dns"

// PrefixesOf returns the items of an address prefix list (RFC 3123). It fails
// for families other than IPv4 and IPv6, and for bits set beyond a prefix.
func PrefixesOf(apl *dns.APL) ([]Prefix, error) {
	prefixes := make([]Prefix, len(apl.Prefixes))
	for i, item := range apl.Prefixes {
		p, err := prefixFrom(item)
		if err != nil {
			return nil, err
		}
		prefixes[i] = p
	}
	return prefixes, nil
}
