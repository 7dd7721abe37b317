// Package denial makes negative replies right behind CoreDNS's *dnssec*.
//
// That plugin signs on the fly and denies with NSEC records whose bitmaps are
// fixed lists: HTTPS, CAA or APL are in none of them, so a resolver that uses
// NSEC aggressively (RFC 8198) takes records that exist for denied. It leaves a
// negative reply alone, though, when the authority section holds more than one
// SOA, and signs whatever it is handed. So the denials are made here, with the
// types that a name really has, and are signed by the plugin: compact denial of
// existence (RFC 9824).
package denial

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// Signer makes denials of existence and has the *dnssec* of a server block sign
// them. A nil one does nothing.
type Signer struct {
	dnssec  handler
	sigSize int
}

// handler is what *dnssec* offers. Its package is not imported: whoever builds
// without that plugin need not have what it needs.
type handler interface {
	plugin.Handler
	Sign(state request.Request, now time.Time, server string) *dns.Msg
}

// New returns the Signer of the zones that h serves; h is the block's *dnssec*,
// nil if there is none. The error says what is wrong with that plugin, and the
// remedy: each zone must be signed, as a zone of its own, and none be inside
// another one.
func New(h plugin.Handler, zones []string) (*Signer, error) {
	if h == nil {
		return nil, nil
	}
	d, ok := h.(handler)
	if !ok {
		return nil, fmt.Errorf("dnssec in this server block is a %T, which cannot be asked to sign: remove it", h)
	}
	s := &Signer{dnssec: d}
	for _, zone := range zones {
		by, size := s.signedBy(zone)
		if by == "" {
			return nil, fmt.Errorf("dnssec in this server block does not sign %s: write 'dnssec' without zones, with a 'key file' line in it", zone)
		}
		if by != zone {
			return nil, fmt.Errorf("dnssec in this server block signs %s with the key of %s, which no resolver need accept: write 'dnssec' without zones, with a key for %s", zone, by, zone)
		}
		for _, parent := range zones {
			if parent != zone && dns.IsSubDomain(parent, zone) {
				// RFC 4035, section 3.1.4.1.
				return nil, fmt.Errorf("%s is inside %s, which has to answer for its DS records, but in one server block dnssec has the inner zone do it: give %s a server block of its own", zone, parent, zone)
			}
		}
		s.sigSize = max(s.sigSize, size)
	}
	return s, nil
}

// SignedBy returns the zone whose keys sign a name, "" if none do.
func (s *Signer) SignedBy(name string) string {
	zone, _ := s.signedBy(name)
	return zone
}

// signedBy has a record signed, and returns for which zone, and in how many
// bytes.
func (s *Signer) signedBy(name string) (zone string, size int) {
	for _, rr := range s.sign("", &dns.NSEC{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET}, NextDomain: name}) {
		if sig, ok := rr.(*dns.RRSIG); ok {
			zone = sig.SignerName
			size += dns.Len(sig)
		}
	}
	return zone, size
}

// Keys returns the DNSKEY records of one of the zones.
func (s *Signer) Keys(zone string) ([]*dns.DNSKEY, error) {
	w := nonwriter.New(nobody{})
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

// nobody asks from within.
type nobody struct{ dns.ResponseWriter }

func (nobody) LocalAddr() net.Addr  { return &net.UDPAddr{} }
func (nobody) RemoteAddr() net.Addr { return &net.UDPAddr{} }

// Size returns how many bytes the signatures of one RRset of a zone take, its
// own name included.
func (s *Signer) Size() int {
	if s == nil {
		return 0
	}
	return s.sigSize
}

// Types returns the types that a name has in the zone with this SOA record, NSEC and
// RRSIG left out, and whether that is known. The name is in lower case. At a
// delegation they are NS, and DS if it is secure; one that does not exist, as may be
// behind an alias, has NXNAME.
type Types func(name string, soa *dns.SOA) (types []uint16, known bool)

// Writer returns a writer for the reply to r, behind which a negative one gets
// its proof, if r asks for it. The reply and its authority section must be the
// caller's own.
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
	w.signer.complete(m, w.types, w.server)
	return w.ResponseWriter.WriteMsg(m)
}

// complete adds to a negative reply or a referral its proof.
func (s *Signer) complete(m *dns.Msg, types Types, server string) {
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

// deny proves that records do not exist. Their name is the one asked for or, in
// a reply with a chain of aliases, the end of that.
func (s *Signer) deny(m *dns.Msg, soa *dns.SOA, types Types, server string) {
	qtype := m.Question[0].Qtype
	if qtype == dns.TypeNXNAME { // is there to be denied only (RFC 9824)
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

	has := []uint16{dns.TypeNXNAME}
	if m.Rcode == dns.RcodeSuccess {
		has = present(name, soa, types)
	}
	nsec := &dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: min(soa.Hdr.Ttl, soa.Minttl)}, // RFC 9077
		NextDomain: after(name),
		TypeBitMap: bitmap(has, qtype),
	}
	m.Rcode = dns.RcodeSuccess
	switch {
	case len(m.Answer) > 0: // is signed as any positive reply is
		m.Ns = []dns.RR{soa, nsec}
	case qtype == dns.TypeNSEC:
		m.Answer, m.Ns = []dns.RR{nsec}, nil
	case qtype == dns.TypeRRSIG: // cannot be denied: this one is there, and one will do (RFC 8482, section 7)
		m.Answer, m.Ns = s.sign(server, nsec)[1:], nil
	default:
		m.Ns = s.sign(server, soa, nsec)
	}
}

// refer proves of a referral without DS records that there are none (RFC 4035,
// section 3.1.4.1). *dnssec* adds an NSEC record of its own, owned by the name asked
// for. At the delegation itself that one will do; two would be one RRset.
func (s *Signer) refer(m *dns.Msg, ns *dns.NS, server string) {
	for _, rr := range m.Ns {
		if rr.Header().Rrtype != dns.TypeNS {
			return
		}
	}
	cut := dns.CanonicalName(ns.Hdr.Name)
	if cut == dns.CanonicalName(m.Question[0].Name) {
		return
	}
	m.Ns = append(slices.Clip(m.Ns), s.sign(server, &dns.NSEC{
		Hdr:        dns.RR_Header{Name: cut, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: ns.Hdr.Ttl},
		NextDomain: after(cut),
		TypeBitMap: []uint16{dns.TypeNS, dns.TypeRRSIG, dns.TypeNSEC},
	})...)
}

// sign returns the records with their signatures.
func (s *Signer) sign(server string, rrs ...dns.RR) []dns.RR {
	m := &dns.Msg{Answer: rrs}
	return s.dnssec.Sign(request.Request{Req: m}, time.Now().UTC(), server).Answer
}

// present returns the types that a name has, or may have.
func present(name string, soa *dns.SOA, types Types) []uint16 {
	has, known := types(name, soa)
	switch {
	case known:
		return has
	case name == dns.CanonicalName(soa.Hdr.Name):
		return append(slices.Clone(possible), dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY)
	}
	return possible
}

// bitmap returns the bitmap of a name with these types, without the one that the
// reply denies.
func bitmap(has []uint16, qtype uint16) []uint16 {
	out := append(slices.Clone(has), dns.TypeRRSIG, dns.TypeNSEC)
	slices.Sort(out)
	out = slices.Compact(out)
	if qtype == dns.TypeNSEC || qtype == dns.TypeRRSIG {
		return out
	}
	return slices.DeleteFunc(out, func(t uint16) bool { return t == qtype })
}

// possible are the types that a name may have of which nothing is known: a claim
// that a type exists denies nothing. Left out are those that would make the name
// an alias, a delegation or an apex.
var possible = func() []uint16 {
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

// after returns a name behind which nothing is left out: the first one behind
// name in canonical order (RFC 4034, section 6.1) or, where that would be too
// long, one next to it (RFC 4470, section 4).
func after(name string) string {
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
			if label[i] == 'A' { // capitals sort as small letters
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
