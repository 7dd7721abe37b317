package dnsb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// keysFor returns the DS records of a cut: those of the configuration or, where
// there are none, those of all nodes that serve it. Whether a node answers has no
// say in that: a key too many does no harm, and one too few makes answers bogus.
func (s *snapshot) keysFor(c *cut) []registration.DS {
	keys := s.conf.ds[c.name]
	if keys != nil {
		return keys
	}
	for _, id := range c.nodes {
		for _, ds := range s.nodes[id].DS {
			if ds.Cut == c.name && !slices.Contains(keys, ds) {
				keys = append(keys, ds)
			}
		}
	}
	return keys
}

// dsRecords returns the DS records of the cut.
func (c *cut) dsRecords(name string, ttl uint32) []dns.RR {
	rrs := make([]dns.RR, 0, len(c.ds))
	for _, ds := range c.ds {
		rrs = append(rrs, ds.RR(dnsmsg.Header(name, dns.TypeDS, ttl)))
	}
	return rrs
}

// differs names a node that serves a cut of r and states other keys for it: a
// resolver that has the keys of one node cannot validate what the other one
// signs.
func (s *snapshot) differs(r *registration.Registration) (cut, node string) {
	for _, name := range r.Cuts {
		c := s.cuts[name]
		if c == nil || len(c.ds) == 0 || s.conf.ds[name] != nil {
			continue
		}
		for _, id := range c.nodes {
			if n := s.nodes[id]; n.record != nil && !slices.Equal(keysOf(n.Registration, name), keysOf(r, name)) {
				return name, n.Node
			}
		}
	}
	return "", ""
}

// keysOf returns the DS records of one cut in one order.
func keysOf(r *registration.Registration, cut string) []registration.DS {
	var keys []registration.DS
	for _, ds := range r.DS {
		if ds.Cut == cut {
			keys = append(keys, ds)
		}
	}
	slices.SortFunc(keys, func(a, b registration.DS) int { return strings.Compare(a.Digest, b.Digest) })
	return keys
}

// types returns the types of a name that this server has authority over, or that
// is a cut, and whether it knows it.
func (s *snapshot) types(name string, _ *dns.SOA) ([]uint16, bool) {
	if c := s.cuts[name]; c != nil {
		if len(c.ds) > 0 {
			return []uint16{dns.TypeNS, dns.TypeDS}, true
		}
		return []uint16{dns.TypeNS}, true
	}
	o, ok := s.owners[name]
	if !ok {
		return nil, false
	}
	types := dnsmsg.AddressTypes(o.addresses)
	if o.apex {
		types = append(types, dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY)
	}
	if o.part != nil {
		types = append(types, dns.TypeAPL)
	}
	if o.text != "" {
		types = append(types, dns.TypeTXT)
	}
	if n := s.nodeOf(o); n != nil {
		types = append(types, dnsmsg.AddressTypes(n.Addresses)...)
		if len(n.Prefixes) > 0 && n.parts == nil {
			types = append(types, dns.TypeAPL)
		}
		if n.Location != "" {
			types = append(types, dns.TypeLOC)
		}
		if n.record != nil {
			types = append(types, dns.TypeTXT)
		}
	}
	return types, true
}

// checkSigned returns an error if a cut is a zone for the *dnssec* of the block:
// it would sign the DS records of the cut with the keys of the cut.
func checkSigned(signer *nsec.Signer, zone string, cuts []string) error {
	if signer == nil {
		return nil
	}
	for _, cut := range cuts {
		if by := signer.SignedBy(cut); by != zone {
			return fmt.Errorf("'dnssec' in the server block of %s signs %s as part of zone %s: remove %[3]s from the line", zone, cut, by)
		}
	}
	return nil
}

// knownCuts returns the cuts that the configuration names.
func (c *config) knownCuts() []string {
	var cuts []string
	for cut := range c.cuts {
		cuts = append(cuts, cut)
	}
	for cut := range c.ds {
		cuts = append(cuts, cut)
	}
	for _, a := range c.accepts {
		cuts = append(cuts, a.cuts...)
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}
