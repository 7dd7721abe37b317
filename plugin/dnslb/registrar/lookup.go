package registrar

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

var (
	// ErrUnknownNode is the error of a node that no DNS-B knows.
	ErrUnknownNode = errors.New("unknown node at DNS-B: check its name and its registration")

	// ErrNotRegistered is the error while no DNS-B can be asked, which is logged
	// and counted as a failure of the registration.
	ErrNotRegistered = errors.New("this node is not registered yet")
)

// Node is what a DNS-B knows of a node.
type Node struct {
	Addresses []netip.Addr
	Prefixes  []registration.Prefix // of resolvers near the node
}

// Lookup asks the DNS-Bs about a node, one after the other.
func (r *Registrar) Lookup(ctx context.Context, node string) (Node, error) {
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
	return Node{}, cmp.Or(failed, ErrNotRegistered)
}

// lookup asks DNS-B about a node.
func (s *session) lookup(ctx context.Context, node string) (Node, error) {
	s.mu.Lock()
	zone := s.zone
	s.mu.Unlock()
	if zone == "" {
		return Node{}, ErrNotRegistered
	}
	var found Node
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeAPL} {
		r, err := s.query(ctx, registration.NodeName(node, zone), qtype)
		switch {
		case err != nil:
			return Node{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		case r.Rcode == dns.RcodeNameError:
			return Node{}, ErrUnknownNode
		case r.Rcode != dns.RcodeSuccess:
			return Node{}, fmt.Errorf("DNS-B %s answered %s", s.dnsb, dns.RcodeToString[r.Rcode])
		}
		if err := found.add(r.Answer); err != nil {
			return Node{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		}
	}
	if len(found.Addresses) == 0 {
		return Node{}, ErrUnknownNode
	}
	if len(found.Prefixes) == 0 {
		if err := s.lookupParts(ctx, node, zone, &found); err != nil {
			return Node{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		}
	}
	return found, nil
}

// lookupParts asks for the prefixes of a registration in parts, up to the first
// part that has none.
func (s *session) lookupParts(ctx context.Context, node, zone string, found *Node) error {
	for part := range registration.MaxParts {
		known := len(found.Prefixes)
		r, err := s.query(ctx, registration.PartName(part, node, zone), dns.TypeAPL)
		if err != nil {
			return err
		}
		if err := found.add(r.Answer); err != nil {
			return err
		}
		if len(found.Prefixes) == known {
			return nil
		}
	}
	return nil
}

// add takes the addresses and prefixes from records.
func (n *Node) add(records []dns.RR) error {
	for _, rr := range records {
		if addr, ok := dnsmsg.Address(rr); ok {
			n.Addresses = append(n.Addresses, addr)
		}
		if apl, ok := rr.(*dns.APL); ok {
			prefixes, err := registration.ParseAPL(apl)
			if err != nil {
				return err
			}
			n.Prefixes = append(n.Prefixes, prefixes...)
		}
	}
	return nil
}
