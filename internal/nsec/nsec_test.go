package nsec

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnssec"
	"github.com/coredns/coredns/plugin/pkg/cache"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec/nsectest"
)

const zone = "gslb.example.org."

// newDNSSEC returns the dnssec plugin in front of a handler.
func newDNSSEC(t testing.TB, next plugin.Handler, zones []string, keys ...*dnssec.DNSKEY) dnssec.Dnssec {
	t.Helper()
	return dnssec.New(zones, keys, len(keys) > 1, next, cache.New[[]dns.RR](1000))
}

func TestNew(t *testing.T) {
	const sub = "svc." + zone
	k := nsectest.Key(t, zone, 257)
	tests := []struct {
		name  string
		h     plugin.Handler
		zones []string
		want  string // of the error
	}{
		{"no dnssec", nil, []string{zone}, ""},
		{"one zone", newDNSSEC(t, nil, []string{zone}, k), []string{zone}, ""},
		{"two zones", newDNSSEC(t, nil, []string{zone, "example.net."}, k), []string{"example.net.", zone}, ""},
		{"one zone inside another", newDNSSEC(t, nil, []string{zone, sub}, k), []string{sub, zone}, "svc.gslb.example.org. is inside gslb.example.org."},
		{"two keys", newDNSSEC(t, nil, []string{zone}, k, nsectest.Key(t, zone, 256)), []string{zone}, ""},
		{"key of the parent", newDNSSEC(t, nil, []string{zone}, k), []string{sub}, "with the key of gslb.example.org."},
		{"one of two zones", newDNSSEC(t, nil, []string{sub}, k), []string{sub, "other." + zone}, "does not sign other.gslb.example.org."},
		{"another zone", newDNSSEC(t, nil, []string{"example.net."}, k), []string{zone}, "does not sign gslb.example.org."},
		{"no key", newDNSSEC(t, nil, []string{zone}), []string{zone}, "does not sign gslb.example.org."},
		{"another plugin", test.ErrorHandler(), []string{zone}, "remove it"},
	}
	for _, tc := range tests {
		s, err := New(tc.h, tc.zones)
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: Expected an error with %q, got: %v", tc.name, tc.want, err)
			}
			continue
		}
		if err != nil || (s == nil) != (tc.h == nil) || (s.SignatureSize() == 0) != (s == nil) {
			t.Errorf("%s: Expected a signer, got %+v, %v", tc.name, s, err)
		}
	}

	s, err := New(newDNSSEC(t, nil, []string{zone, sub}, k), []string{zone})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{zone: zone, "www." + zone: zone, "www." + sub: sub, "example.net.": ""} {
		if got := s.SignedBy(name); got != want {
			t.Errorf("Expected %s to be signed by %q, got %q", name, want, got)
		}
	}
	keys, err := s.Keys(sub)
	if err != nil || len(keys) != 1 || keys[0].Hdr.Name != sub || keys[0].PublicKey != k.K.PublicKey {
		t.Errorf("Expected the key as that of %s, got %v, %v", sub, keys, err)
	}
}

// denier is a plugin that denies every name and uses a Signer.
type denier struct {
	signer *Signer
	reply  func(*dns.Msg)
	types  map[string][]uint16
}

func (z *denier) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg).SetReply(r)
	m.Ns = []dns.RR{test.SOA(zone + " 30 IN SOA b1." + zone + " hostmaster." + zone + " 1 7200 1800 86400 600")}
	z.reply(m)
	w = z.signer.Writer(ctx, w, r, func(name string, _ *dns.SOA) ([]uint16, bool) { types, ok := z.types[name]; return types, ok })
	return dns.RcodeSuccess, w.WriteMsg(m)
}

func (z *denier) Name() string { return "zone" }

// summary returns the records of a section as a text, with a "+" for each valid
// signature.
func summary(t *testing.T, k *dns.DNSKEY, rrs []dns.RR) string {
	t.Helper()
	signed := make(map[string]bool)
	for _, rr := range rrs {
		sig, ok := rr.(*dns.RRSIG)
		if !ok {
			continue
		}
		var set []dns.RR
		for _, rr := range rrs {
			if rr.Header().Rrtype == sig.TypeCovered && rr.Header().Name == sig.Hdr.Name {
				set = append(set, rr)
			}
		}
		if err := sig.Verify(k, set); err != nil || sig.SignerName != zone {
			t.Errorf("Expected the signature to verify, got: %v for %v", err, set)
		}
		signed[sig.Hdr.Name+dns.TypeToString[sig.TypeCovered]] = true
	}
	var out []string
	for _, rr := range rrs {
		h := rr.Header()
		if h.Rrtype == dns.TypeRRSIG {
			continue
		}
		text := strings.TrimSuffix(h.Name, zone) + " " + dns.TypeToString[h.Rrtype]
		if nsec, ok := rr.(*dns.NSEC); ok {
			if want := `\000.` + h.Name; nsec.NextDomain != want {
				text += " next " + nsec.NextDomain
			}
			text += fmt.Sprintf(" %d", h.Ttl)
			for _, rrtype := range nsec.TypeBitMap {
				text += " " + dns.TypeToString[rrtype]
			}
		}
		if signed[h.Name+dns.TypeToString[h.Rrtype]] {
			text += " +"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestNegativeReplyIsProved(t *testing.T) {
	nxdomain := func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }
	nodata := func(*dns.Msg) {}
	alias := func(rcode int) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.Rcode = rcode
			m.Answer = []dns.RR{test.CNAME("alias." + zone + " 60 IN CNAME WWW." + zone)}
		}
	}
	referral := func(rrs ...string) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.Ns = nil
			for _, text := range rrs {
				rr, err := dns.NewRR(text)
				if err != nil {
					t.Fatal(err)
				}
				m.Ns = append(m.Ns, rr)
			}
		}
	}
	const (
		soa = " SOA +, "
		cut = "svc.gslb.example.org. 300 IN "
	)
	tests := []struct {
		name, qname string
		qtype       uint16
		reply       func(*dns.Msg)
		answer, ns  string
	}{
		{"no such name", "nope", dns.TypeA, nxdomain, "", soa + "nope. NSEC 30 RRSIG NSEC NXNAME +"},
		{"no such type", "www", dns.TypeAAAA, nodata, "", soa + "www. NSEC 30 A RRSIG NSEC HTTPS CAA +"},
		{"type of the bitmap removed meanwhile", "www", dns.TypeHTTPS, nodata, "", soa + "www. NSEC 30 A RRSIG NSEC CAA +"},
		{"empty non-terminal", "ent", dns.TypeA, nodata, "", soa + "ent. NSEC 30 RRSIG NSEC +"},
		{"name in mixed case", "wWw", dns.TypeAAAA, nodata, "", soa + "www. NSEC 30 A RRSIG NSEC HTTPS CAA +"},
		{"NSEC", "www", dns.TypeNSEC, nodata, "www. NSEC 30 A RRSIG NSEC HTTPS CAA +", ""},
		{"NSEC of no such name", "nope", dns.TypeNSEC, nxdomain, "nope. NSEC 30 RRSIG NSEC NXNAME +", ""},
		{"NODATA at the target of an alias", "alias", dns.TypeAAAA, alias(dns.RcodeSuccess), "alias. CNAME +", soa + "www. NSEC 30 A RRSIG NSEC HTTPS CAA +"},
		{"NXDOMAIN at the target of an alias", "alias", dns.TypeAAAA, alias(dns.RcodeNameError), "alias. CNAME +", soa + "www. NSEC 30 RRSIG NSEC NXNAME +"},
		{"secure referral", "a.svc", dns.TypeA, referral(cut+"NS par1.lb."+zone, cut+"DS 1 13 2 "+strings.Repeat("c0de", 16)), "", "svc. NS, svc. DS +"},
	}
	k := nsectest.Key(t, zone, 257)
	for _, tc := range tests {
		z := &denier{reply: tc.reply, types: map[string][]uint16{
			"www." + zone: {dns.TypeHTTPS, dns.TypeA, dns.TypeCAA}, "ent." + zone: nil,
		}}
		d := newDNSSEC(t, z, []string{zone}, k)
		var err error
		if z.signer, err = New(d, []string{zone}); err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion(tc.qname+"."+zone, tc.qtype)
		m.SetEdns0(1232, true)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Msg.Pack(); err != nil {
			t.Errorf("%s: Expected the reply to pack, got: %v", tc.name, err)
		}
		if got := summary(t, k.K, w.Msg.Answer); w.Msg.Rcode != dns.RcodeSuccess || got != tc.answer {
			t.Errorf("%s: Expected NOERROR and %q, got %s and %q", tc.name, tc.answer, dns.RcodeToString[w.Msg.Rcode], got)
		}
		if got := summary(t, k.K, w.Msg.Ns); got != tc.ns {
			t.Errorf("%s: Expected authority %q, got %q", tc.name, tc.ns, got)
		}

		m.Extra = nil // no EDNS, no DO
		w = dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		plain := new(dns.Msg).SetReply(m)
		plain.Ns = []dns.RR{w.Msg.Ns[0]}
		tc.reply(plain)
		if len(w.Msg.Ns) != len(plain.Ns) || w.Msg.Rcode != plain.Rcode {
			t.Errorf("%s: Expected no proof without DO, got %v", tc.name, w.Msg)
		}
	}
}

func TestQuestionForSignaturesGetsOne(t *testing.T) {
	k := nsectest.Key(t, zone, 257)
	for _, qname := range []string{"www." + zone, "nope." + zone} {
		z := &denier{reply: func(*dns.Msg) {}, types: map[string][]uint16{"www." + zone: {dns.TypeA}, "nope." + zone: {dns.TypeNXNAME}}}
		d := newDNSSEC(t, z, []string{zone}, k)
		var err error
		if z.signer, err = New(d, []string{zone}); err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion(qname, dns.TypeRRSIG)
		m.SetEdns0(1232, true)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		if len(w.Msg.Ns) > 0 || len(w.Msg.Answer) != 1 {
			t.Fatalf("Expected one record and no denial, got %v", w.Msg)
		}
		if sig, ok := w.Msg.Answer[0].(*dns.RRSIG); !ok || sig.TypeCovered != dns.TypeNSEC || sig.Hdr.Name != qname {
			t.Errorf("Expected a signature, got %v", w.Msg.Answer)
		}
	}
}

func TestUnknownTypesAreNotDenied(t *testing.T) {
	k := nsectest.Key(t, zone, 257)
	z := &denier{reply: func(*dns.Msg) {}}
	d := newDNSSEC(t, z, []string{zone}, k)
	var err error
	if z.signer, err = New(d, []string{zone}); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetQuestion("www."+zone, dns.TypeAAAA)
	m.SetEdns0(1232, true)
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(w.Msg.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNSEC })
	if i < 0 {
		t.Fatalf("Expected an NSEC record, got %v", w.Msg)
	}
	bits := w.Msg.Ns[i].(*dns.NSEC).TypeBitMap
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeMX, dns.TypeTXT, dns.TypeAPL, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCAA, dns.TypeRRSIG, dns.TypeNSEC} {
		if !slices.Contains(bits, rrtype) {
			t.Errorf("Expected %s in %v", dns.TypeToString[rrtype], bits)
		}
	}
	for _, rrtype := range []uint16{dns.TypeAAAA, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeNXNAME, dns.TypeOPT, dns.TypeANY, dns.TypeTSIG} {
		if slices.Contains(bits, rrtype) {
			t.Errorf("Expected no %s in %v", dns.TypeToString[rrtype], bits)
		}
	}
	if _, err := w.Msg.Pack(); err != nil {
		t.Errorf("Expected the reply to pack, got: %v", err)
	}
	soa := test.SOA(zone + " 30 IN SOA . . 1 1 1 1 1")
	unknown := func(string, *dns.SOA) ([]uint16, bool) { return nil, false }
	for _, rrtype := range []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY, dns.TypeMX} {
		if bits := bitmap(existingTypes(zone, soa, unknown), dns.TypeAAAA); !slices.Contains(bits, rrtype) || !slices.IsSorted(bits) {
			t.Errorf("Expected %s at the apex in %v", dns.TypeToString[rrtype], bits)
		}
	}
}

// dnssec may add an NSEC record at the delegation, too: the two must not be one
// RRset.
func TestInsecureReferralIsProvedOnce(t *testing.T) {
	k := nsectest.Key(t, zone, 257)
	for _, qname := range []string{"svc." + zone, "www.svc." + zone} {
		z := &denier{reply: func(m *dns.Msg) { m.Ns = []dns.RR{test.NS("svc." + zone + " 300 IN NS par1.lb." + zone)} }}
		d := newDNSSEC(t, z, []string{zone}, k)
		var err error
		if z.signer, err = New(d, []string{zone}); err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion(qname, dns.TypeA)
		m.SetEdns0(1232, true)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		summary(t, k.K, w.Msg.Ns) // verifies the signatures
		count := 0
		for _, rr := range w.Msg.Ns {
			if nsec, ok := rr.(*dns.NSEC); ok && nsec.Hdr.Name == "svc."+zone {
				count++
				if !slices.Contains(nsec.TypeBitMap, dns.TypeNS) || slices.Contains(nsec.TypeBitMap, dns.TypeDS) || slices.Contains(nsec.TypeBitMap, dns.TypeSOA) {
					t.Errorf("Expected NS without DS in the bitmap, got %v", nsec)
				}
			}
		}
		if count != 1 {
			t.Errorf("Expected one NSEC record at the delegation for %s, got %v", qname, w.Msg.Ns)
		}
	}
}

// dnssec gives the signature of DS records the TTL of the NS records.
func TestSecureReferralHasOneTTL(t *testing.T) {
	k := nsectest.Key(t, zone, 257)
	for _, ttls := range [][2]uint32{{30, 300}, {300, 30}, {300, 300}} {
		ns := test.NS(fmt.Sprintf("svc.%s %d IN NS par1.lb.%s", zone, ttls[0], zone))
		ds := test.DS(fmt.Sprintf("svc.%s %d IN DS 4711 13 2 %s", zone, ttls[1], strings.Repeat("c0de", 16)))
		z := &denier{reply: func(m *dns.Msg) { m.Ns = []dns.RR{ns, ds} }}
		d := newDNSSEC(t, z, []string{zone}, k)
		var err error
		if z.signer, err = New(d, []string{zone}); err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion("www.svc."+zone, dns.TypeA)
		m.SetEdns0(1232, true)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		if got, want := summary(t, k.K, w.Msg.Ns), "svc. NS, svc. DS +"; got != want {
			t.Errorf("Expected %q, got %q", want, got)
		}
		for _, rr := range w.Msg.Ns {
			if want := min(ttls[0], ttls[1]); rr.Header().Ttl != want {
				t.Errorf("Expected TTL %d, got %v", want, rr)
			}
		}
		if ns.Hdr.Ttl != ttls[0] || ds.Hdr.Ttl != ttls[1] {
			t.Errorf("Expected the records of the zone to stay as they were, got %v, %v", ns, ds)
		}
	}
}

// The original TTL in the signatures of dnssec is an hour.
func TestSignedTTLIsAtMostOriginalTTL(t *testing.T) {
	k := nsectest.Key(t, zone, 257)
	const day = 86400
	for _, tc := range []struct {
		do   bool
		ttl  uint32
		want uint32
	}{{true, day, 3600}, {true, 3600, 3600}, {true, 60, 60}, {false, day, day}} {
		answer := test.A(fmt.Sprintf("www.%s %d IN A 192.0.2.1", zone, tc.ttl))
		answers := []dns.RR{answer}
		z := &denier{reply: func(m *dns.Msg) {
			m.Answer, m.Ns = answers, nil
			m.Extra = []dns.RR{test.AAAA(fmt.Sprintf("www.%s %d IN AAAA 2001:db8::1", zone, tc.ttl))}
			m.SetEdns0(4096, tc.do)
		}}
		d := newDNSSEC(t, z, []string{zone}, k)
		var err error
		if z.signer, err = New(d, []string{zone}); err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion("www."+zone, dns.TypeA)
		m.SetEdns0(1232, tc.do)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		if tc.do {
			summary(t, k.K, w.Msg.Answer) // verifies the signatures
		}
		for _, rr := range append(slices.Clone(w.Msg.Answer), w.Msg.Extra...) {
			if rr.Header().Rrtype != dns.TypeOPT && rr.Header().Ttl != tc.want {
				t.Errorf("Expected TTL %d, got %v", tc.want, rr)
			}
		}
		if opt := w.Msg.IsEdns0(); opt == nil || opt.Do() != tc.do {
			t.Errorf("Expected flag DO %t, got %v", tc.do, opt)
		}
		if answers[0] != answer || answer.Hdr.Ttl != tc.ttl {
			t.Errorf("Expected the records of the zone to stay as they were, got %v", answers)
		}
	}
}

func TestQuestionForNXNAMEIsMalformed(t *testing.T) {
	m := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("nope."+zone, dns.TypeNXNAME))
	m.Rcode = dns.RcodeNameError
	m.Ns = []dns.RR{test.SOA(zone + " 30 IN SOA b1." + zone + " hostmaster." + zone + " 1 7200 1800 86400 600")}
	new(Signer).addProof(m, nil, "")
	if m.Rcode != dns.RcodeFormatError || len(m.Answer)+len(m.Ns) != 0 {
		t.Errorf("Expected FORMERR without records, got %v", m)
	}
}

func TestSuccessor(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 61)+".", 4) // 249 bytes on the wire, with the root
	tests := []struct{ name, want string }{
		{".", `\000.`},
		{"www.example.org.", `\000.www.example.org.`},
		{"abcd." + long, "abce." + long}, // 254
		{"abc@." + long, `abc\[.` + long},
		{`abc\255.` + long, `abd\255.` + long},
	}
	for _, tc := range tests {
		if got := successor(tc.name); strings.ReplaceAll(got, `\[`, "[") != strings.ReplaceAll(tc.want, `\[`, "[") {
			t.Errorf("Expected %s after %s, got %s", tc.want, tc.name, got)
		}
	}
}

func BenchmarkDenial(b *testing.B) {
	z := &denier{reply: func(*dns.Msg) {}, types: map[string][]uint16{"www." + zone: {dns.TypeA}}}
	d := newDNSSEC(b, z, []string{zone}, nsectest.Key(b, zone, 257))
	var err error
	if z.signer, err = New(d, []string{zone}); err != nil {
		b.Fatal(err)
	}
	m := new(dns.Msg).SetQuestion("www."+zone, dns.TypeAAAA)
	m.SetEdns0(1232, true)
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	for b.Loop() {
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			b.Fatal(err)
		}
	}
}
