package dnsclient

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/miekg/dns"
)

// Serial asks for the serial of a zone, signed with key. check explains a reply
// that is not a signed NOERROR, as CheckSigned does; its error ends it.
func (e Endpoint) Serial(ctx context.Context, ca *x509.CertPool, zone string, key Key, check func(*dns.Msg) error) (uint32, error) {
	m := new(dns.Msg).SetQuestion(zone, dns.TypeSOA)
	m.RecursionDesired = false
	r, err := e.Exchange(ctx, ca, m, key)
	if err != nil {
		return 0, err
	}
	if err := check(r); err != nil {
		return 0, err
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok && dns.CanonicalName(soa.Hdr.Name) == zone {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("the server has no zone %s: its version is older than that of this node", zone)
}
