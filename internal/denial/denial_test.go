package denial

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnssec"
	"github.com/coredns/coredns/plugin/pkg/cache"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
)

const zone = "gslb.example.org."

// key makes a key that signs for a zone.
func key(t testing.TB, zone string, flags uint16) *dnssec.DNSKEY {
	t.Helper()
	k := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: flags, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), "K")
	for name, text := range map[string]string{".key": k.String(), ".private": k.PrivateKeyString(private.(*ecdsa.PrivateKey))} {
		if err := os.WriteFile(base+name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := dnssec.ParseKeyFile(base+".key", base+".private")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// behind returns the dnssec plugin in front of a handler.
func behind(t testing.TB, next plugin.Handler, zones []string, keys ...*dnssec.DNSKEY) dnssec.Dnssec {
	t.Helper()
	return dnssec.New(zones, keys, len(keys) > 1, next, cache.New[[]dns.RR](1000))
}

func TestNew(t *testing.T) {
	const sub = "svc." + zone
	k := key(t, zone, 257)
	tests := []struct {
		name  string
		h     plugin.Handler
		zones []string
		want  string // of the error
	}{
		{"none", nil, []string{zone}, ""},
		{"right", behind(t, nil, []string{zone}, k), []string{zone}, ""},
		{"two", behind(t, nil, []string{zone, "example.net."}, k), []string{"example.net.", zone}, ""},
		{"inside another", behind(t, nil, []string{zone, sub}, k), []string{sub, zone}, "svc.gslb.example.org. is inside gslb.example.org."},
		{"two keys", behind(t, nil, []string{zone}, k, key(t, zone, 256)), []string{zone}, ""},
		{"parent", behind(t, nil, []string{zone}, k), []string{sub}, "with the key of gslb.example.org."},
		{"one of two", behind(t, nil, []string{sub}, k), []string{sub, "other." + zone}, "does not sign other.gslb.example.org."},
		{"elsewhere", behind(t, nil, []string{"example.net."}, k), []string{zone}, "does not sign gslb.example.org."},
		{"no key", behind(t, nil, []string{zone}), []string{zone}, "does not sign gslb.example.org."},
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
		if err != nil || (s == nil) != (tc.h == nil) || (s.Size() == 0) != (s == nil) {
			t.Errorf("%s: Expected a signer, got %+v, %v", tc.name, s, err)
		}
	}

	s, err := New(behind(t, nil, []string{zone, sub}, k), []string{zone})
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

// zoneOf is a server that denies all, behind a Signer, behind dnssec.
type zoneOf struct {
	signer *Signer
	reply  func(*dns.Msg)
	types  map[string][]uint16
}

func (z *zoneOf) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg).SetReply(r)
	m.Ns = []dns.RR{test.SOA(zone + " 30 IN SOA b1." + zone + " hostmaster." + zone + " 1 7200 1800 86400 600")}
	z.reply(m)
	w = z.signer.Writer(ctx, w, r, func(name string, _ *dns.SOA) ([]uint16, bool) { types, ok := z.types[name]; return types, ok })
	return dns.RcodeSuccess, w.WriteMsg(m)
}

func (z *zoneOf) Name() string { return "zone" }

// summary returns what is in a section, signatures that verify as a "+".
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

func TestDenial(t *testing.T) {
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
		{"no such type any more", "www", dns.TypeHTTPS, nodata, "", soa + "www. NSEC 30 A RRSIG NSEC CAA +"},
		{"empty non-terminal", "ent", dns.TypeA, nodata, "", soa + "ent. NSEC 30 RRSIG NSEC +"},
		{"case", "wWw", dns.TypeAAAA, nodata, "", soa + "www. NSEC 30 A RRSIG NSEC HTTPS CAA +"},
		{"NSEC", "www", dns.TypeNSEC, nodata, "www. NSEC 30 A RRSIG NSEC HTTPS CAA +", ""},
		{"NSEC of none", "nope", dns.TypeNSEC, nxdomain, "nope. NSEC 30 RRSIG NSEC NXNAME +", ""},
		{"NODATA behind an alias", "alias", dns.TypeAAAA, alias(dns.RcodeSuccess), "alias. CNAME +", soa + "www. NSEC 30 A RRSIG NSEC HTTPS CAA +"},
		{"NXDOMAIN behind an alias", "alias", dns.TypeAAAA, alias(dns.RcodeNameError), "alias. CNAME +", soa + "www. NSEC 30 RRSIG NSEC NXNAME +"},
		{"secure referral", "a.svc", dns.TypeA, referral(cut+"NS par1.lb."+zone, cut+"DS 1 13 2 "+strings.Repeat("c0de", 16)), "", "svc. NS, svc. DS +"},
	}
	k := key(t, zone, 257)
	for _, tc := range tests {
		z := &zoneOf{reply: tc.reply, types: map[string][]uint16{
			"www." + zone: {dns.TypeHTTPS, dns.TypeA, dns.TypeCAA}, "ent." + zone: nil,
		}}
		d := behind(t, z, []string{zone}, k)
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

		m.Extra = nil // no DNSSEC: nothing is added
		w = dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		plain := new(dns.Msg).SetReply(m)
		plain.Ns = []dns.RR{w.Msg.Ns[0]}
		tc.reply(plain)
		if len(w.Msg.Ns) != len(plain.Ns) || w.Msg.Rcode != plain.Rcode {
			t.Errorf("%s: Expected nothing to be added for who does not ask for DNSSEC, got %v", tc.name, w.Msg)
		}
	}
}

// A question for signatures is answered with one: a denial would be signed.
func TestSignatures(t *testing.T) {
	k := key(t, zone, 257)
	for _, qname := range []string{"www." + zone, "nope." + zone} {
		z := &zoneOf{reply: func(*dns.Msg) {}, types: map[string][]uint16{"www." + zone: {dns.TypeA}, "nope." + zone: {dns.TypeNXNAME}}}
		d := behind(t, z, []string{zone}, k)
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

// A name of which nothing is known is not denied any other type.
func TestUnknown(t *testing.T) {
	k := key(t, zone, 257)
	z := &zoneOf{reply: func(*dns.Msg) {}}
	d := behind(t, z, []string{zone}, k)
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
	has := w.Msg.Ns[i].(*dns.NSEC).TypeBitMap
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeMX, dns.TypeTXT, dns.TypeAPL, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCAA, dns.TypeRRSIG, dns.TypeNSEC} {
		if !slices.Contains(has, rrtype) {
			t.Errorf("Expected %s in %v", dns.TypeToString[rrtype], has)
		}
	}
	for _, rrtype := range []uint16{dns.TypeAAAA, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeNXNAME, dns.TypeOPT, dns.TypeANY, dns.TypeTSIG} {
		if slices.Contains(has, rrtype) {
			t.Errorf("Expected no %s in %v", dns.TypeToString[rrtype], has)
		}
	}
	if _, err := w.Msg.Pack(); err != nil {
		t.Errorf("Expected the reply to pack, got: %v", err)
	}
	soa := test.SOA(zone + " 30 IN SOA . . 1 1 1 1 1")
	unknown := func(string, *dns.SOA) ([]uint16, bool) { return nil, false }
	for _, rrtype := range []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY, dns.TypeMX} {
		if has := bitmap(present(zone, soa, unknown), dns.TypeAAAA); !slices.Contains(has, rrtype) || !slices.IsSorted(has) {
			t.Errorf("Expected %s at the apex in %v", dns.TypeToString[rrtype], has)
		}
	}
}

// A referral without DS records has the proof of that at the delegation, whatever
// dnssec adds, and one RRset has one record.
func TestInsecureReferral(t *testing.T) {
	k := key(t, zone, 257)
	for _, qname := range []string{"svc." + zone, "www.svc." + zone} {
		z := &zoneOf{reply: func(m *dns.Msg) { m.Ns = []dns.RR{test.NS("svc." + zone + " 300 IN NS par1.lb." + zone)} }}
		d := behind(t, z, []string{zone}, k)
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
		summary(t, k.K, w.Msg.Ns) // all signatures verify
		at := 0
		for _, rr := range w.Msg.Ns {
			if nsec, ok := rr.(*dns.NSEC); ok && nsec.Hdr.Name == "svc."+zone {
				at++
				if !slices.Contains(nsec.TypeBitMap, dns.TypeNS) || slices.Contains(nsec.TypeBitMap, dns.TypeDS) || slices.Contains(nsec.TypeBitMap, dns.TypeSOA) {
					t.Errorf("Expected a proof of no DS at a delegation, got %v", nsec)
				}
			}
		}
		if at != 1 {
			t.Errorf("Expected one NSEC record at the delegation for %s, got %v", qname, w.Msg.Ns)
		}
	}
}

// The type that says that a name does not exist cannot be asked for.
func TestNXNAME(t *testing.T) {
	m := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("nope."+zone, dns.TypeNXNAME))
	m.Rcode = dns.RcodeNameError
	m.Ns = []dns.RR{test.SOA(zone + " 30 IN SOA b1." + zone + " hostmaster." + zone + " 1 7200 1800 86400 600")}
	new(Signer).complete(m, nil, "")
	if m.Rcode != dns.RcodeFormatError || len(m.Answer)+len(m.Ns) != 0 {
		t.Errorf("Expected FORMERR and nothing else, got %v", m)
	}
}

func TestAfter(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 61)+".", 4) // 249 bytes on the wire, with the root
	tests := []struct{ name, want string }{
		{".", `\000.`},
		{"www.example.org.", `\000.www.example.org.`},
		{"abcd." + long, "abce." + long}, // 254
		{"abc@." + long, `abc\[.` + long},
		{`abc\255.` + long, `abd\255.` + long},
	}
	for _, tc := range tests {
		if got := after(tc.name); strings.ReplaceAll(got, `\[`, "[") != strings.ReplaceAll(tc.want, `\[`, "[") {
			t.Errorf("Expected %s after %s, got %s", tc.want, tc.name, got)
		}
	}
}

func BenchmarkDenial(b *testing.B) {
	z := &zoneOf{reply: func(*dns.Msg) {}, types: map[string][]uint16{"www." + zone: {dns.TypeA}}}
	d := behind(b, z, []string{zone}, key(b, zone, 257))
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
