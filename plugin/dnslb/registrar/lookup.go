package registrar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

var (
	// ErrUnknownNode is the error of a node that no DNS-B knows.
	ErrUnknownNode = errors.New("unknown node at DNS-B: check its name and its registration")
	// ErrNotRegistered is the error while no DNS-B can be asked, which is logged
	// and counted as a failure of the registration.
	ErrNotRegistered = errors.New("this node is not registered yet")
)

// Lookup asks the DNS-Bs for the addresses of a node, one after the other.
func (r *Registrar) Lookup(ctx context.Context, node string) ([]netip.Addr, error) {
	var failed error
	for _, s := range r.sorted() {
		found, err := s.lookup(ctx, node)
		if err == nil {
			return found, nil
		}
		if failed == nil || errors.Is(failed, ErrUnknownNode) {
			failed = err
		}
	}
	return nil, cmp.Or(failed, ErrNotRegistered)
}

// lookup asks DNS-B for the addresses of a node.
func (s *session) lookup(ctx context.Context, node string) ([]netip.Addr, error) {
	s.mu.Lock()
	zone := s.zone
	s.mu.Unlock()
	if zone == "" {
		return nil, ErrNotRegistered
	}
	var found []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		r, err := s.query(ctx, registration.NodeName(node, zone), qtype)
		switch {
		case err != nil:
			return nil, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		case r.Rcode == dns.RcodeNameError:
			return nil, ErrUnknownNode
		case r.Rcode != dns.RcodeSuccess:
			return nil, fmt.Errorf("DNS-B %s answered %s", s.dnsb, dnsmsg.RcodeText(r.Rcode))
		}
		found = appendAddresses(found, r.Answer)
	}
	if len(found) == 0 {
		return nil, ErrUnknownNode
	}
	return found, nil
}

// appendAddresses appends the addresses in records to those that are found. The
// reply is not signed, so only what a DNS-B would have accepted counts.
func appendAddresses(found []netip.Addr, records []dns.RR) []netip.Addr {
	for _, rr := range records {
		addr, ok := dnsmsg.Address(rr)
		if ok && registration.IsNodeAddress(addr) && !slices.Contains(found, addr) && len(found) < registration.MaxAddresses {
			found = append(found, addr)
		}
	}
	return found
}
