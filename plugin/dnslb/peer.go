package dnslb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// errNoNode is that DNS-B says that there is no such node.
var errNoNode = errors.New("DNS-B knows no such node: is its name right, and is it registered?")

// errTooSoon is that no DNS-B can be asked before this node is registered, which
// is told principalState.
var errTooSoon = errors.New("this node is not registered yet")

// peer is what DNS-B knows of a node.
type peer struct {
	addresses []netip.Addr
	prefixes  []registration.Prefix // of resolvers
}

// find asks the DNS-Bs about a node, one after the other.
func (r *registrar) find(ctx context.Context, node string) (peer, error) {
	var failed error
	for _, s := range r.all() {
		p, err := s.find(ctx, node)
		if err == nil {
			return p, nil
		}
		if failed == nil || errors.Is(failed, errNoNode) {
			failed = err
		}
	}
	return peer{}, cmp.Or(failed, errTooSoon)
}

// find asks DNS-B about a node.
func (s *session) find(ctx context.Context, node string) (peer, error) {
	s.mu.Lock()
	zone := s.zone
	s.mu.Unlock()
	if zone == "" {
		return peer{}, errTooSoon
	}
	var p peer
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeAPL} {
		r, err := s.ask(ctx, registration.NodeName(node, zone), qtype)
		switch {
		case err != nil:
			return peer{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		case r.Rcode == dns.RcodeNameError:
			return peer{}, errNoNode
		case r.Rcode != dns.RcodeSuccess:
			return peer{}, fmt.Errorf("DNS-B %s answers %s", s.dnsb, dns.RcodeToString[r.Rcode])
		}
		if err := p.add(r.Answer); err != nil {
			return peer{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		}
	}
	if len(p.addresses) == 0 {
		return peer{}, errNoNode
	}
	// A list that is too long for one message is in parts.
	for part, before := 0, -1; part < registration.MaxParts && before < len(p.prefixes) && (part > 0 || len(p.prefixes) == 0); part++ {
		before = len(p.prefixes)
		r, err := s.ask(ctx, registration.PartName(part, node, zone), dns.TypeAPL)
		if err == nil {
			err = p.add(r.Answer)
		}
		if err != nil {
			return peer{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		}
	}
	return p, nil
}

func (p *peer) add(records []dns.RR) error {
	for _, rr := range records {
		if addr, ok := dnsmsg.Address(rr); ok {
			p.addresses = append(p.addresses, addr)
		}
		if apl, ok := rr.(*dns.APL); ok {
			prefixes, err := registration.ParseAPL(apl)
			if err != nil {
				return err
			}
			p.prefixes = append(p.prefixes, prefixes...)
		}
	}
	return nil
}
