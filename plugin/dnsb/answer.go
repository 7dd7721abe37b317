package dnsb

import (
	"fmt"
	"slices"
	"time"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	// serverTTL is that of what only a change of the configuration changes.
	serverTTL = 3600
	// soloTTL is that of an NS record which is alone: nothing covers for the
	// node until resolvers ask again.
	soloTTL = 30
	// negativeTTL is that of names which a node may register at any time.
	negativeTTL = 30
)

// aplItems is how many prefixes go into one APL record: NSD reads no more than 64
// from a zone file. Several records are one list.
const aplItems = 60

// addressTTL is that of the addresses of nodes: resolvers must not lose them
// before the NS records that need them.
func (c *config) addressTTL() uint32 { return 2 * c.ttl }

// answer answers from what this server has authority over.
func (s *snapshot) answer(state request.Request) (int, error) {
	m := new(dns.Msg)
	m.SetReply(state.Req)
	m.Authoritative = true

	o, ok := s.owners[state.Name()]
	ttl := uint32(negativeTTL)
	switch c := s.cuts[state.Name()]; {
	case c != nil: // and it is a question for DS
		m.Answer = c.dsRecords(state.QName(), s.conf.ttl)
	case ok && s.exceeds(o, state):
		m.Truncated = true
	case ok:
		m.Answer, m.Extra = s.records(o, state.QName(), state.QType())
		if o.isNode || o.part != nil || len(o.addresses) > 0 {
			ttl = s.conf.addressTTL() // resolvers ask for both A and AAAA of each server
		}
	case time.Now().Before(s.coldUntil) && state.QType() != dns.TypeSOA:
		return s.notReady(state)
	case time.Now().Before(s.coldUntil): // whoever wants to register looks for the zone so
	default:
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 && !m.Truncated {
		m.Ns = []dns.RR{s.soa(s.conf.zone, ttl)}
	}
	return dns.RcodeSuccess, state.W.WriteMsg(m)
}

// minAPLItem is the size in bytes of the smallest item of an APL record (RFC 3123,
// section 4).
const minAPLItem = 4

// exceeds reports whether an answer over UDP has no room for the prefixes of a
// node. That is known without making records of them: a node may have many, and
// source addresses of UDP can be forged.
func (s *snapshot) exceeds(o *owner, state request.Request) bool {
	if state.QType() != dns.TypeAPL || state.Proto() == "tcp" {
		return false
	}
	prefixes := 0
	switch {
	case o.part != nil:
		prefixes = len(o.part.prefixes)
	case o.isNode && s.nodes[o.node].parts == nil:
		prefixes = len(s.nodes[o.node].Prefixes)
	}
	return prefixes*minAPLItem > state.Size()
}

// notReady answers that the name may exist, but that nobody registered it since
// the start.
func (s *snapshot) notReady(state request.Request) (int, error) {
	m := new(dns.Msg)
	m.SetRcode(state.Req, dns.RcodeServerFailure)
	text := "waiting for nodes to register"
	if s.storeUnread {
		text = "the store of registrations cannot be reached since the start"
	}
	dnsmsg.SetError(m, state.Req, dns.ExtendedErrorCodeNotReady, text)
	return dns.RcodeSuccess, state.W.WriteMsg(m)
}

// records returns the records of one type, owned by name, and what goes with
// them.
func (s *snapshot) records(o *owner, name string, qtype uint16) (answer, extra []dns.RR) {
	hdr := func(ttl uint32) dns.RR_Header { return dnsmsg.Header(name, qtype, ttl) }
	if qtype == dns.TypeANY {
		h := hdr(s.conf.addressTTL())
		h.Rrtype = dns.TypeHINFO
		if o.text == "" && !o.apex && !o.isNode && o.part == nil && len(o.addresses) == 0 {
			return nil, nil
		}
		return []dns.RR{&dns.HINFO{Hdr: h, Cpu: "RFC8482"}}, nil
	}
	switch {
	case o.apex && qtype == dns.TypeSOA:
		return []dns.RR{s.soa(name, negativeTTL)}, nil
	case o.apex && qtype == dns.TypeNS:
		for _, ns := range s.conf.servers {
			answer = append(answer, &dns.NS{Hdr: hdr(serverTTL), Ns: ns.name})
			for _, addr := range ns.addresses {
				extra = append(extra, dnsmsg.AddressRecord(ns.name, addr, serverTTL))
			}
		}
		return answer, extra
	case o.text != "" && qtype == dns.TypeTXT:
		return []dns.RR{dnsmsg.NewTXT(hdr(serverTTL), o.text)}, nil
	case o.part != nil:
		return o.part.records(hdr(s.conf.addressTTL())), nil
	case o.isNode:
		return s.nodes[o.node].records(hdr(s.conf.addressTTL())), nil
	}
	return dnsmsg.AddressRecords(hdr(serverTTL), o.addresses), nil
}

// records returns the records of a node of the type in h.
func (n *node) records(h dns.RR_Header) []dns.RR {
	switch h.Rrtype {
	case dns.TypeAPL:
		if n.parts != nil {
			return nil // at the names of these
		}
		return prefixLists(h, n.Prefixes)
	case dns.TypeLOC:
		if n.Location == "" {
			return nil
		}
		loc, err := dns.NewRR(fmt.Sprintf("%s %d IN LOC %s", h.Name, h.Ttl, n.Location))
		if err != nil {
			return nil
		}
		return []dns.RR{loc}
	case dns.TypeTXT:
		if n.record == nil {
			return nil
		}
		r := *n.Registration
		r.Serial, r.Parts = n.record.Serial, len(n.parts)
		return []dns.RR{r.TXT(h)}
	}
	return dnsmsg.AddressRecords(h, n.Addresses)
}

// prefixLists returns prefixes as records.
func prefixLists(h dns.RR_Header, prefixes []registration.Prefix) []dns.RR {
	var rrs []dns.RR
	for items := range slices.Chunk(prefixes, aplItems) {
		apl := &dns.APL{Hdr: h, Prefixes: make([]dns.APLPrefix, len(items))}
		for i, p := range items {
			apl.Prefixes[i] = p.APL()
		}
		rrs = append(rrs, apl)
	}
	return rrs
}

// soa returns the SOA of the zone. Its TTL is that of negative answers (RFC
// 2308, section 5); its MINIMUM field is the largest negative TTL.
func (s *snapshot) soa(name string, ttl uint32) *dns.SOA {
	soa := dnsmsg.NewSOA(name, s.conf.servers[0].name, s.conf.mailbox, s.serial, ttl)
	soa.Minttl = max(soa.Minttl, s.conf.addressTTL())
	return soa
}
