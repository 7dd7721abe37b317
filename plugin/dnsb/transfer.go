package dnsb

import (
	"slices"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

var _ transfer.Transferer = (*DNSB)(nil)

// transferBatch is how many records go into the channel at once. A message
// holds fewer of the long ones (APL), so it is small.
const transferBatch = 16

// Transfer implements the transfer.Transferer interface. What is transferred is
// all that is registered: the cuts have the NS records of all their nodes.
func (d *DNSB) Transfer(zone string, serial uint32) (<-chan []dns.RR, error) {
	if zone != d.conf.zone {
		return nil, transfer.ErrNotAuthoritative
	}
	s := d.snapshot.Load()
	ch := make(chan []dns.RR)
	go func() {
		defer close(ch)
		soa := []dns.RR{s.soa(zone, negativeTTL)}
		ch <- soa
		if serial != 0 && int32(s.serial-serial) <= 0 { // #nosec G115 -- RFC 1982
			return
		}
		for batch := range slices.Chunk(s.all(), transferBatch) {
			ch <- batch
		}
		ch <- soa
	}()
	return ch, nil
}

// all returns the records of the zone but its SOA.
func (s *snapshot) all() []dns.RR {
	var rrs []dns.RR
	add := func(name string, rrtype uint16, o *owner) {
		set, _ := s.records(o, name, rrtype)
		rrs = append(rrs, set...)
	}
	add(s.conf.zone, dns.TypeNS, &owner{apex: true})
	for _, ns := range s.conf.servers {
		for _, rrtype := range dnsmsg.AddressTypes(ns.addresses) {
			add(ns.name, rrtype, &owner{addresses: ns.addresses})
		}
	}
	if name := surveymsg.ZoneName(s.conf.zone); s.owners[name] != nil {
		add(name, dns.TypeTXT, s.owners[name])
	}
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		for _, rrtype := range append(dnsmsg.AddressTypes(n.Addresses), dns.TypeAPL, dns.TypeLOC, dns.TypeTXT) {
			add(n.fqdn, rrtype, &owner{isNode: true, node: n.id})
		}
		for i := range n.parts {
			add(n.parts[i].name, dns.TypeAPL, &owner{part: &n.parts[i]})
		}
	}
	for name, c := range s.cuts {
		rrs = append(rrs, c.dsRecords(name, s.conf.ttl)...)
		for _, rr := range s.rrset(name, dns.TypeNS) {
			rr.Header().Ttl = s.conf.ttl
			rrs = append(rrs, rr)
		}
	}
	return rrs
}
