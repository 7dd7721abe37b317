// Package nsec adds NSEC records to negative replies that pass through the
// plugin *dnssec*.
//
// The type bitmaps of *dnssec* are fixed lists without HTTPS, CAA or APL, so a
// resolver that uses NSEC aggressively (RFC 8198) takes existing records for
// denied. But *dnssec* does not deny when the authority section has more records
// than the SOA, and it signs any records on request. So this package makes the
// NSEC records, with the types that a name has, and *dnssec* signs them: compact
// denial of existence (RFC 9824).
package nsec

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Signer makes denials of existence and has the *dnssec* of a server block sign
// them. A nil Signer does nothing.
type Signer struct {
	dnssec  handler
	sigSize int // largest size in bytes of the signatures of one RRset
	// maxTTL is the original TTL in signatures, in seconds. *dnssec* writes the
	// same into all of them, and no signed record may have a higher TTL (RFC
	// 4034, section 3.1.4).
	maxTTL uint32
}

// handler is implemented by *dnssec*. Its package is not imported, so that a
// build without the plugin does not link its dependencies.
type handler interface {
	plugin.Handler
	Sign(state request.Request, now time.Time, server string) *dns.Msg
}

// New returns the Signer for the zones of a server block; h is the *dnssec* of
// the block. Without it (nil) there is no Signer. It fails, with the remedy,
// unless *dnssec* signs each zone with a key of that zone, and if one zone is
// inside another.
func New(h plugin.Handler, zones []string) (*Signer, error) {
	if h == nil {
		return nil, nil
	}
	d, ok := h.(handler)
	if !ok {
		return nil, fmt.Errorf("dnssec in this server block is a %T, which has no method to sign: remove it", h)
	}
	s := &Signer{dnssec: d, maxTTL: math.MaxUint32}
	for _, zone := range zones {
		by, size, ttl := s.signedBy(zone)
		if by == "" {
			return nil, fmt.Errorf("dnssec in this server block does not sign %s: write 'dnssec' without zones and add a 'key file' line to it", zone)
		}
		if by != zone {
			return nil, fmt.Errorf("dnssec in this server block signs %s with the key of %s, and resolvers reject such signatures: write 'dnssec' without zones and give it a key of %s", zone, by, zone)
		}
		for _, parent := range zones {
			if parent != zone && dns.IsSubDomain(parent, zone) {
				// RFC 4035, section 3.1.4.1.
				return nil, fmt.Errorf("%s is inside %s: in one server block dnssec would sign the DS records of the inner zone with the keys of the inner zone; give %s a server block of its own", zone, parent, zone)
			}
		}
		s.sigSize, s.maxTTL = max(s.sigSize, size), min(s.maxTTL, ttl)
	}
	return s, nil
}

// SignedBy returns the zone whose keys sign a name, "" if no zone's keys do.
func (s *Signer) SignedBy(name string) string {
	zone, _, _ := s.signedBy(name)
	return zone
}

// signedBy returns the zone whose keys sign a name, the size of the signatures of
// one RRset in bytes, and their original TTL in seconds.
func (s *Signer) signedBy(name string) (zone string, size int, ttl uint32) {
	for _, rr := range s.sign("", &dns.NSEC{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET}, NextDomain: name}) {
		if sig, ok := rr.(*dns.RRSIG); ok {
			zone, ttl = sig.SignerName, sig.OrigTtl
			size += dns.Len(sig)
		}
	}
	return zone, size, ttl
}

// Keys returns the DNSKEY records of one of the zones.
func (s *Signer) Keys(zone string) ([]*dns.DNSKEY, error) {
	w := nonwriter.New(noClient{})
	if _, err := s.dnssec.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion(zone, dns.TypeDNSKEY)); err != nil {
		return nil, err
	}
	var keys []*dns.DNSKEY
	if w.Msg != nil {
		for _, rr := range w.Msg.Answer {
			if key, ok := rr.(*dns.DNSKEY); ok {
				keys = append(keys, key)
			}
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("dnssec in this server block has no DNSKEY of %s", zone)
	}
	return keys, nil
}

// noClient stands for the client of a query that the server itself makes.
type noClient struct{ dns.ResponseWriter }

func (noClient) LocalAddr() net.Addr  { return &net.UDPAddr{} }
func (noClient) RemoteAddr() net.Addr { return &net.UDPAddr{} }

// SignatureSize returns how many bytes the signatures of one RRset at the apex
// take, owner names included.
func (s *Signer) SignatureSize() int {
	if s == nil {
		return 0
	}
	return s.sigSize
}

// Types returns the types that a name has in the zone with this SOA record,
// without NSEC and RRSIG; known is false if they are unknown. The name is in
// lower case. A delegation has NS, and DS if it is secure. A name that does not
// exist, such as the target of an alias, has NXNAME.
type Types func(name string, soa *dns.SOA) (types []uint16, known bool)

// Writer returns a writer that adds the proof to a negative reply to r, if r asks
// for DNSSEC, and limits TTLs to those that *dnssec* can sign. The writer modifies
// the reply.
func (s *Signer) Writer(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, types Types) dns.ResponseWriter {
	if o := r.IsEdns0(); s == nil || o == nil || !o.Do() {
		return w
	}
	return &writer{w, s, types, metrics.WithServer(ctx)}
}

type writer struct {
	dns.ResponseWriter
	signer *Signer
	types  Types
	server string // label of metrics
}

// WriteMsg implements the dns.ResponseWriter interface.
func (w *writer) WriteMsg(m *dns.Msg) error {
	for _, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		*section = limitTTLs(*section, w.signer.maxTTL)
	}
	w.signer.addProof(m, w.types, w.server)
	return w.ResponseWriter.WriteMsg(m)
}

// addProof adds the proof to a negative reply or a referral.
func (s *Signer) addProof(m *dns.Msg, types Types, server string) {
	if len(m.Question) == 0 || len(m.Ns) == 0 || m.Truncated {
		return
	}
	switch rr := m.Ns[0].(type) {
	case *dns.SOA:
		if len(m.Ns) == 1 && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) {
			s.deny(m, rr, types, server)
		}
	case *dns.NS:
		if len(m.Answer) == 0 && m.Rcode == dns.RcodeSuccess {
			s.refer(m, rr, server)
		}
	}
}

// deny proves that records do not exist at the name of the question or, in a
// reply with aliases, at the target of the last one.
func (s *Signer) deny(m *dns.Msg, soa *dns.SOA, types Types, server string) {
	qtype := m.Question[0].Qtype
	if qtype == dns.TypeNXNAME { // a query for it is invalid (RFC 9824, section 3.5)
		m.Rcode, m.Ns = dns.RcodeFormatError, nil
		return
	}
	name, zone := dns.CanonicalName(m.Question[0].Name), dns.CanonicalName(soa.Hdr.Name)
	if len(m.Answer) > 0 {
		alias, ok := m.Answer[len(m.Answer)-1].(*dns.CNAME)
		if name = ""; ok {
			name = dns.CanonicalName(alias.Target)
		}
		if !dns.IsSubDomain(zone, name) {
			return
		}
	}

	existing := []uint16{dns.TypeNXNAME}
	if m.Rcode == dns.RcodeSuccess {
		existing = existingTypes(name, soa, types)
	}
	nsec := &dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: min(soa.Hdr.Ttl, soa.Minttl)}, // RFC 9077
		NextDomain: successor(name),
		TypeBitMap: bitmap(existing, qtype),
	}
	m.Rcode = dns.RcodeSuccess
	switch {
	case len(m.Answer) > 0: // dnssec signs a positive reply by itself
		m.Ns = []dns.RR{soa, nsec}
	case qtype == dns.TypeNSEC:
		m.Answer, m.Ns = []dns.RR{nsec}, nil
	case qtype == dns.TypeRRSIG: // exists wherever a denial does; one is enough (RFC 8482, section 7)
		m.Answer, m.Ns = s.sign(server, nsec)[1:], nil
	default:
		m.Ns = s.sign(server, soa, nsec)
	}
}

// refer proves that a delegation without DS records is insecure (RFC 4035,
// section 3.1.4.1). *dnssec* itself adds an NSEC record at the name of the
// question. Where that name is the delegation, a second one would break the RRset.
//
// *dnssec* signs DS records with the TTL of the NS records, and both must have
// the TTL of their signature (RFC 4034, section 3): a referral gets the lowest one.
func (s *Signer) refer(m *dns.Msg, ns *dns.NS, server string) {
	secure, ttl := false, ns.Hdr.Ttl
	for _, rr := range m.Ns {
		switch rr.Header().Rrtype {
		case dns.TypeNS:
		case dns.TypeDS:
			secure, ttl = true, min(ttl, rr.Header().Ttl)
		default:
			return
		}
	}
	if secure {
		m.Ns = limitTTLs(m.Ns, ttl)
		return
	}
	cut := dns.CanonicalName(ns.Hdr.Name)
	if cut == dns.CanonicalName(m.Question[0].Name) {
		return
	}
	m.Ns = append(slices.Clip(m.Ns), s.sign(server, &dns.NSEC{
		Hdr:        dns.RR_Header{Name: cut, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: ns.Hdr.Ttl},
		NextDomain: successor(cut),
		TypeBitMap: []uint16{dns.TypeNS, dns.TypeRRSIG, dns.TypeNSEC},
	})...)
}

// limitTTLs returns records with TTLs of at most ttl seconds: rrs itself, or a
// copy of it.
func limitTTLs(rrs []dns.RR, ttl uint32) []dns.RR {
	copied := false
	for i, rr := range rrs {
		if rr.Header().Ttl <= ttl || rr.Header().Rrtype == dns.TypeOPT { // which has flags in place of a TTL
			continue
		}
		if !copied {
			rrs, copied = slices.Clone(rrs), true
		}
		rrs[i] = dnsmsg.LimitTTL(rr, ttl)
	}
	return rrs
}

// sign returns the records with their signatures.
func (s *Signer) sign(server string, rrs ...dns.RR) []dns.RR {
	m := &dns.Msg{Answer: rrs}
	return s.dnssec.Sign(request.Request{Req: m}, time.Now().UTC(), server).Answer
}

// existingTypes returns the types that a name has, all possible types if they are
// unknown.
func existingTypes(name string, soa *dns.SOA, types Types) []uint16 {
	existing, known := types(name, soa)
	switch {
	case known:
		return existing
	case name == dns.CanonicalName(soa.Hdr.Name):
		return append(slices.Clone(possibleTypes), dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY)
	}
	return possibleTypes
}

// bitmap returns the type bitmap of a name with these types, without the type
// that the reply denies.
func bitmap(existing []uint16, qtype uint16) []uint16 {
	out := append(slices.Clone(existing), dns.TypeRRSIG, dns.TypeNSEC)
	slices.Sort(out)
	out = slices.Compact(out)
	if qtype == dns.TypeNSEC || qtype == dns.TypeRRSIG {
		return out
	}
	return slices.DeleteFunc(out, func(t uint16) bool { return t == qtype })
}

// possibleTypes are the types in the bitmap of a name whose types are unknown: to
// claim too many denies nothing. Those that make a name an alias, a delegation or
// an apex are not among them.
var possibleTypes = func() []uint16 {
	var types []uint16
	for t := range dns.TypeToString {
		switch t {
		case dns.TypeNone, dns.TypeCNAME, dns.TypeDNAME, dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY,
			dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeReserved:
			continue
		}
		if t < 128 && t != dns.TypeOPT || t > 255 { // between are meta types (RFC 6895, section 3.1)
			types = append(types, t)
		}
	}
	slices.Sort(types)
	return types
}()

// maxName is how many bytes a name has at most (RFC 1035, section 3.1).
const maxName = 255

// successor returns the next name after name in canonical order (RFC 4034,
// section 6.1) or, where that is too long, a name close to it (RFC 4470, section
// 4).
func successor(name string) string {
	if name == "." {
		return `\000.`
	}
	var wire [maxName]byte
	n, err := dns.PackDomainName(name, wire[:], 0, nil, false)
	if err != nil {
		return name
	}
	if n+2 <= maxName {
		return `\000.` + name
	}
	for at := 0; wire[at] != 0; at += 1 + int(wire[at]) {
		label := wire[at+1 : at+1+int(wire[at])]
		for i := len(label) - 1; i >= 0; i-- {
			if label[i] == 255 {
				continue
			}
			label[i]++
			if label[i] == 'A' { // capitals sort as lower case
				label[i] = 'Z' + 1
			}
			next, _, err := dns.UnpackDomainName(wire[:n], at)
			if err != nil {
				return name
			}
			return next
		}
	}
	return name
}
