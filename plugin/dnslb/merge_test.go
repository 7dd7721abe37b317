package dnslb

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// zoneText is a zone of which dnslb ranks some names.
const zoneText = `$ORIGIN svc.gslb.example.org.
$TTL 300
@        IN SOA   ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120
@        IN NS    ns1
@        IN NS    ns2.example.net.
@        IN MX    10 www
@        IN MX    20 mail
ns1      IN A     192.0.2.100
mail     IN A     192.0.2.101
mail     IN A     192.0.2.102
www      IN A     203.0.113.1
www      IN A     203.0.113.2
www      IN AAAA  2001:db8:ffff::1
www      IN TXT   "of the zone"
www      IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1
six      IN HTTPS 1 . mandatory=ipv4hint,alpn alpn=h2 ipv4hint=203.0.113.1
both     IN HTTPS 1 . mandatory=ipv6hint ipv6hint=2001:db8:ffff::1
_8443._https.www IN SVCB 1 www port=8443
_9443._https.www IN SVCB 1 mail port=9443 ipv4hint=192.0.2.101
moved    IN HTTPS 0 www
old      IN HTTPS 1 www alpn=h3
alias    IN CNAME www
alias2   IN CNAME alias
out      IN CNAME www.example.net.
nowhere  IN CNAME mail
*.w      IN TXT   "wildcard of the zone"
x.w      IN MX    10 mail
_sip._tcp IN SRV  0 0 5060 www
sub      IN NS    ns.sub
ns.sub   IN A     192.0.2.110
into     IN CNAME a.sub
*        IN TXT   "anything"
`

// frontOfZone returns a DNSLB in front of file, which has zoneText. Some services
// have names that the zone does not have.
func frontOfZone(t testing.TB, node string) *DNSLB {
	t.Helper()
	return frontOfZoneText(t, node, zoneText)
}

// frontOfZoneText returns a DNSLB in front of a zone with this text.
func frontOfZoneText(t testing.TB, node, text string) *DNSLB {
	t.Helper()
	z, err := file.Parse(strings.NewReader(text), testZone, "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	next := &file.File{Zones: file.Zones{Z: map[string]*file.Zone{testZone: z}, Names: []string{testZone}}}
	conf := config{
		Zones: []string{testZone},
		inventory: inventory{map[string]serverConfig{"fra": machine("192.0.2.1", "2001:db8::1"), "iad": machine("192.0.2.2"), "six": machine("2001:db8::6")},
			[]serviceConfig{
				{name: "www." + testZone, servers: labelsOf("fra", "iad"), options: options{answers: 1}},
				{name: "both." + testZone, servers: labelsOf("iad", "fra"), options: options{answers: 2}},
				{name: "six." + testZone, servers: labelsOf("six"), options: options{answers: 1}},
				{name: "a.b.c." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
				{name: "*.w." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
				{name: "out." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
				{name: "x.sub." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
			}},
		ttlLow: 20, ttlHigh: 60, loaded: 7, Node: node,
	}
	d := newDNSLB(conf, nil)
	d.Next = next
	d.state = newBlockState()
	d.sources.setBackends([]transfer.Transferer{next}, false)
	d.snapshot.Store(d.sources.snapshot())
	return d
}

const (
	soa30  = "@ 30 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"
	soa20  = "@ 20 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"
	soa120 = "@ 120 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"
)

// wire is a question and the answer expected. Names are relative to testZone,
// records "OWNER TTL TYPE DATA".
type wire struct {
	name, qtype       string
	answer, ns, extra []string
	rcode             int
	referral          bool // AA is clear
}

func (tc wire) check(t *testing.T, d *DNSLB) {
	t.Helper()
	qname := absolute(tc.name)
	r := new(dns.Msg).SetQuestion(qname, dns.StringToType[tc.qtype])
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	rcode, err := d.ServeDNS(context.Background(), w, r)
	if err != nil || w.Msg == nil {
		t.Errorf("%s %s: Expected an answer, got %d, %v", tc.name, tc.qtype, rcode, err)
		return
	}
	if w.Msg.Rcode != tc.rcode || w.Msg.Authoritative == tc.referral || w.Msg.Question[0] != r.Question[0] {
		t.Errorf("%s %s: Expected rcode %d and AA %v, got\n%v", tc.name, tc.qtype, tc.rcode, !tc.referral, w.Msg)
	}
	for _, section := range []struct {
		name string
		got  []dns.RR
		want []string
	}{{"answer", w.Msg.Answer, tc.answer}, {"authority", w.Msg.Ns, tc.ns}, {"additional", w.Msg.Extra, tc.extra}} {
		if got, want := texts(section.got), parsed(t, section.want); !slices.Equal(got, want) {
			t.Errorf("%s %s: Expected in the %s section\n  %s\ngot\n  %s", tc.name, tc.qtype, section.name, strings.Join(want, "\n  "), strings.Join(got, "\n  "))
		}
	}
}

func absolute(name string) string {
	switch {
	case name == "@":
		return testZone
	case strings.HasSuffix(name, "."):
		return name
	}
	return name + "." + testZone
}

func texts(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		out = append(out, rr.String())
	}
	return out
}

func parsed(t testing.TB, lines []string) []string {
	t.Helper()
	var out []string
	for _, line := range lines {
		zp := dns.NewZoneParser(strings.NewReader("$ORIGIN "+testZone+"\n"+line+"\n"), "", "")
		rr, ok := zp.Next()
		if !ok {
			t.Fatalf("%s: %v", line, zp.Err())
		}
		out = append(out, rr.String())
	}
	return out
}

// TestNodeMergesZone checks a node in front of a backend plugin: the answers are
// those of one zone.
func TestNodeMergesZone(t *testing.T) {
	d := frontOfZone(t, "par1")
	tests := []wire{
		// The apex: the zone's SOA record, our NS record.
		{name: "@", qtype: "SOA", answer: []string{"@ 300 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"}},
		{name: "@", qtype: "NS", answer: []string{"@ 30 NS par1.lb.gslb.example.org."}},
		{name: "@", qtype: "ANY", answer: []string{`@ 30 HINFO "RFC8482" ""`}},
		{name: "@", qtype: "DS", ns: []string{soa120}},
		{name: "@", qtype: "MX", answer: []string{"@ 300 MX 10 www", "@ 300 MX 20 mail"},
			extra: []string{"www 60 A 192.0.2.1", "www 60 AAAA 2001:db8::1", "mail 300 A 192.0.2.101", "mail 300 A 192.0.2.102"}},
		// A service: its addresses are ranked, the other types are those of the zone.
		{name: "www", qtype: "A", answer: []string{"www 60 A 192.0.2.1"}},
		{name: "WWW", qtype: "TXT", answer: []string{`www 300 TXT "of the zone"`}},
		{name: "www", qtype: "MX", ns: []string{soa30}},
		{name: "www", qtype: "ANY", answer: []string{`www 30 HINFO "RFC8482" ""`}},
		{name: "www", qtype: "TYPE65280", ns: []string{soa30}},
		{name: "both", qtype: "A", answer: []string{"both 60 A 192.0.2.2", "both 60 A 192.0.2.1"}},
		{name: "six", qtype: "A", ns: []string{soa30}},
		// A service that the zone does not know hides its wildcard.
		{name: "a.b.c", qtype: "TXT", ns: []string{soa30}},
		{name: "a.b.c", qtype: "AAAA", ns: []string{soa30}},
		{name: "b.c", qtype: "TXT", ns: []string{soa120}},
		{name: "b.c", qtype: "NS", ns: []string{soa120}},
		{name: "x.b.c", qtype: "TXT", ns: []string{soa120}, rcode: dns.RcodeNameError},
		{name: "x.www", qtype: "TXT", ns: []string{soa120}, rcode: dns.RcodeNameError},
		{name: "any", qtype: "TXT", answer: []string{`any 300 TXT "anything"`}},
		{name: "any", qtype: "A", ns: []string{soa120}},
		{name: "any", qtype: "ANY", answer: []string{`any 30 HINFO "RFC8482" ""`}},
		// A wildcard service, with other types of the zone, and a name that hides it.
		{name: "y.w", qtype: "A", answer: []string{"y.w 60 A 192.0.2.2"}},
		{name: "y.w", qtype: "TXT", answer: []string{`y.w 300 TXT "wildcard of the zone"`}},
		{name: "x.w", qtype: "A", ns: []string{soa120}},
		{name: "x.w", qtype: "MX", answer: []string{"x.w 300 MX 10 mail"}, extra: []string{"mail 300 A 192.0.2.101", "mail 300 A 192.0.2.102"}},
		{name: "*.w", qtype: "A", answer: []string{"*.w 60 A 192.0.2.2"}},
		{name: "y.*.w", qtype: "A", ns: []string{soa120}, rcode: dns.RcodeNameError},
		// Names of the zone alone.
		{name: "mail", qtype: "A", answer: []string{"mail 300 A 192.0.2.101", "mail 300 A 192.0.2.102"}},
		{name: "mail", qtype: "AAAA", ns: []string{soa120}},
		{name: "_tcp", qtype: "A", ns: []string{soa120}},
		{name: "_sip._tcp", qtype: "SRV", answer: []string{"_sip._tcp 300 SRV 0 0 5060 www"}, extra: []string{"www 60 A 192.0.2.1", "www 60 AAAA 2001:db8::1"}},
		// CNAME chains of the zone end at the ranked addresses.
		{name: "alias", qtype: "A", answer: []string{"alias 300 CNAME www", "www 60 A 192.0.2.1"}},
		{name: "alias2", qtype: "AAAA", answer: []string{"alias2 300 CNAME alias", "alias 300 CNAME www", "www 60 AAAA 2001:db8::1"}},
		{name: "alias", qtype: "TXT", answer: []string{"alias 300 CNAME www", `www 300 TXT "of the zone"`}},
		{name: "alias", qtype: "MX", answer: []string{"alias 300 CNAME www"}, ns: []string{soa30}},
		{name: "alias", qtype: "CNAME", answer: []string{"alias 300 CNAME www"}},
		{name: "alias", qtype: "ANY", answer: []string{"alias 300 CNAME www"}},
		{name: "nowhere", qtype: "AAAA", answer: []string{"nowhere 300 CNAME mail"}, ns: []string{soa120}},
		// What the zone has for a service's name instead of addresses is not asked for.
		{name: "out", qtype: "A", answer: []string{"out 60 A 192.0.2.2"}},
		{name: "out", qtype: "AAAA", ns: []string{soa30}},
		{name: "out", qtype: "CNAME", ns: []string{soa30}},
		{name: "out", qtype: "TXT", ns: []string{soa30}},
		// Delegations of the zone.
		{name: "sub", qtype: "NS", ns: []string{"sub 300 NS ns.sub"}, extra: []string{"ns.sub 300 A 192.0.2.110"}, referral: true},
		{name: "y.sub", qtype: "A", ns: []string{"sub 300 NS ns.sub"}, extra: []string{"ns.sub 300 A 192.0.2.110"}, referral: true},
		{name: "y.sub", qtype: "ANY", ns: []string{"sub 300 NS ns.sub"}, extra: []string{"ns.sub 300 A 192.0.2.110"}, referral: true},
		{name: "sub", qtype: "DS", ns: []string{soa120}},
		{name: "into", qtype: "A", answer: []string{"into 300 CNAME a.sub"}, ns: []string{"sub 300 NS ns.sub"}, extra: []string{"ns.sub 300 A 192.0.2.110"}},
		{name: "x.sub", qtype: "A", answer: []string{"x.sub 60 A 192.0.2.2"}},
		{name: "x.sub", qtype: "AAAA", ns: []string{soa30}},
		// RFC 9460.
		{name: "www", qtype: "HTTPS", answer: []string{"www 60 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"}},
		{name: "alias", qtype: "HTTPS", answer: []string{"alias 300 CNAME www", "www 60 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"}},
		{name: "six", qtype: "HTTPS", answer: []string{"six 60 HTTPS 1 . mandatory=alpn alpn=h2 ipv6hint=2001:db8::6"}},
		{name: "both", qtype: "HTTPS", answer: []string{"both 60 HTTPS 1 . mandatory=ipv6hint ipv4hint=192.0.2.2,192.0.2.1 ipv6hint=2001:db8::1"}},
		{name: "_8443._https.www", qtype: "SVCB", answer: []string{"_8443._https.www 60 SVCB 1 www port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"},
			extra: []string{"www 60 A 192.0.2.1", "www 60 AAAA 2001:db8::1"}},
		{name: "_9443._https.www", qtype: "SVCB", answer: []string{"_9443._https.www 300 SVCB 1 mail port=9443 ipv4hint=192.0.2.101"},
			extra: []string{"mail 300 A 192.0.2.101", "mail 300 A 192.0.2.102"}},
		{name: "moved", qtype: "HTTPS", answer: []string{"moved 300 HTTPS 0 www"}, extra: []string{"www 60 A 192.0.2.1", "www 60 AAAA 2001:db8::1"}},
		{name: "old", qtype: "HTTPS", answer: []string{"old 60 HTTPS 1 www alpn=h3 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"},
			extra: []string{"www 60 A 192.0.2.1", "www 60 AAAA 2001:db8::1"}},
	}
	for range 2 { // the records of the zone must not change
		for _, tc := range tests {
			tc.check(t, d)
		}
	}
}

// TestMergeWhenAllDown checks the records that depend on addresses when no server
// is up.
func TestMergeWhenAllDown(t *testing.T) {
	fixed := []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	tests := []struct {
		mode allDown
		wire
	}{
		{allDown{}, wire{name: "www", qtype: "HTTPS", answer: []string{"www 20 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"}}},
		{allDown{}, wire{name: "alias", qtype: "A", answer: []string{"alias 300 CNAME www", "www 20 A 192.0.2.1"}}},
		{allDown{addrs: fixed}, wire{name: "www", qtype: "HTTPS", answer: []string{"www 20 HTTPS 1 . alpn=h2 ipv4hint=198.51.100.1"}}},
		{allDown{addrs: fixed}, wire{name: "alias", qtype: "A", answer: []string{"alias 300 CNAME www", "www 20 A 198.51.100.1"}}},
		{allDown{addrs: fixed}, wire{name: "alias", qtype: "AAAA", answer: []string{"alias 300 CNAME www"}, ns: []string{soa20}}},
		{allDown{addrs: fixed}, wire{name: "www", qtype: "AAAA", ns: []string{soa20}}},
		{allDown{refuse: true}, wire{name: "www", qtype: "HTTPS", answer: []string{"www 20 HTTPS 1 . alpn=h2"}}},
		{allDown{refuse: true}, wire{name: "both", qtype: "HTTPS", answer: []string{"both 20 HTTPS 1 ."}}},
		{allDown{refuse: true}, wire{name: "alias", qtype: "A", rcode: dns.RcodeRefused, referral: true}},
		{allDown{refuse: true}, wire{name: "old", qtype: "HTTPS", answer: []string{"old 20 HTTPS 1 www alpn=h3"}}},
	}
	for _, tc := range tests {
		d := frontOfZone(t, "par1")
		d.allDown = tc.mode
		for _, p := range d.snapshot.Load().pools {
			p.answer.Store(p.newAnswer(p.state.order(), nil, always(d.ttlLow), true))
		}
		tc.check(t, d)
	}
}

// TestMergeWithoutNode checks dnslb in front of a backend plugin without a node:
// the NS records of the zone stay.
func TestMergeWithoutNode(t *testing.T) {
	d := frontOfZone(t, "")
	zoneNS := []string{"@ 300 NS ns1", "@ 300 NS ns2.example.net."}
	tests := []wire{
		{name: "@", qtype: "NS", answer: zoneNS, extra: []string{"ns1 300 A 192.0.2.100"}},
		{name: "@", qtype: "ANY", answer: []string{`@ 30 HINFO "RFC8482" ""`}},
		{name: "www", qtype: "A", answer: []string{"www 60 A 192.0.2.1"}},
		{name: "www", qtype: "TXT", answer: []string{`www 300 TXT "of the zone"`}, ns: zoneNS},
		{name: "alias", qtype: "A", answer: []string{"alias 300 CNAME www", "www 60 A 192.0.2.1"}, ns: zoneNS},
		{name: "alias", qtype: "MX", answer: []string{"alias 300 CNAME www"}, ns: []string{soa30}},
		{name: "a.b.c", qtype: "TXT", ns: []string{soa30}},
		{name: "www", qtype: "HTTPS", answer: []string{"www 60 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"}, ns: zoneNS},
	}
	for _, tc := range tests {
		tc.check(t, d)
	}

	d.observe = true
	for _, tc := range []wire{
		{name: "www", qtype: "HTTPS", answer: []string{"www 300 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1"}, ns: zoneNS},
		{name: "a.b.c", qtype: "TXT", answer: []string{`a.b.c 300 TXT "anything"`}, ns: zoneNS},
	} {
		tc.check(t, d)
	}
}

// TestBackendWithOtherZone checks a node whose backend plugin has other zones: the
// node is authoritative for its zone.
func TestBackendWithOtherZone(t *testing.T) {
	d := example("par1", nil)
	other := &file.File{Zones: file.Zones{Z: map[string]*file.Zone{}, Names: []string{"example.net."}}}
	d.Next = other
	d.sources.setBackends([]transfer.Transferer{other}, false)
	d.snapshot.Store(d.sources.snapshot())
	soa := "@ 30 SOA par1.lb.gslb.example.org. hostmaster 7 14400 3600 1209600 300"
	for _, tc := range []wire{
		{name: "www", qtype: "A", answer: []string{"www 60 A 192.0.2.1"}},
		{name: "www", qtype: "MX", ns: []string{soa}},
		{name: "none", qtype: "A", ns: []string{soa}, rcode: dns.RcodeNameError},
		{name: "@", qtype: "SOA", answer: []string{soa}},
	} {
		tc.check(t, d)
	}
}

// TestBackendWithoutRecords checks a node whose backend plugin has no records yet,
// such as secondary before its first transfer: services are answered, and nothing
// is denied.
func TestBackendWithoutRecords(t *testing.T) {
	d := example("par1", nil)
	empty := &file.File{Zones: file.Zones{Z: map[string]*file.Zone{testZone: file.NewZone(testZone, "")}, Names: []string{testZone}}}
	d.Next = empty
	d.sources.setBackends([]transfer.Transferer{empty}, false)
	d.snapshot.Store(d.sources.snapshot())
	wire{name: "www", qtype: "A", answer: []string{"www 60 A 192.0.2.1"}}.check(t, d)
	for _, name := range []string{"www", "none", "@"} {
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		rcode, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion(absolute(name), dns.TypeMX))
		if rcode != dns.RcodeServerFailure || err != nil || w.Msg != nil {
			t.Errorf("%s: Expected SERVFAIL, got %d, %v, %v", name, rcode, err, w.Msg)
		}
	}
}

// TestAnswersCounted checks the label result of the counter of answers.
func TestAnswersCounted(t *testing.T) {
	d := frontOfZone(t, "par1")
	for _, tc := range []struct {
		name, result string
		qtype        uint16
	}{
		{"www", resultRanked, dns.TypeA},
		{"alias", resultRanked, dns.TypeA},
		{"www", resultZone, dns.TypeTXT},
		{"y.sub", resultZone, dns.TypeA},
		{"www", resultNoData, dns.TypeMX},
		{"a.b.c", resultNoData, dns.TypeTXT},
		{"x.www", resultNXDomain, dns.TypeA},
		{"@", resultAuthority, dns.TypeNS},
	} {
		counter := answers.WithLabelValues("", testZone, tc.result)
		before := testutil.ToFloat64(counter)
		if _, err := d.ServeDNS(context.Background(), dnstest.NewRecorder(&test.ResponseWriter{}), new(dns.Msg).SetQuestion(absolute(tc.name), tc.qtype)); err != nil {
			t.Fatal(err)
		}
		if got := testutil.ToFloat64(counter) - before; got != 1 {
			t.Errorf("%s %s: Expected it to be counted as %s", tc.name, dns.Type(tc.qtype), tc.result)
		}
	}
}

// TestServiceHidesAliasAndDelegation checks that a service hides an alias or a
// delegation of the zone without a trace: no DS record, no additional records of
// omitted ones, and no alias twice where the zone has a loop.
func TestServiceHidesAliasAndDelegation(t *testing.T) {
	d := frontOfZoneText(t, "par1", zoneText+`
cut   IN NS    ns1
cut   IN DS    1 13 2 1111111111111111111111111111111111111111111111111111111111111111
hop   IN CNAME over
over  IN CNAME mx
mx    IN MX    10 mail
loop1 IN CNAME loop2
loop2 IN CNAME loop1
`)
	for _, name := range []string{"cut.", "over.", "loop1."} {
		d.inventory.services = append(d.inventory.services, serviceConfig{name: name + testZone, servers: labelsOf("iad"), options: options{answers: 1}})
	}
	d.snapshot.Store(d.sources.snapshot())
	for _, tc := range []wire{
		{name: "cut", qtype: "A", answer: []string{"cut 60 A 192.0.2.2"}},
		{name: "cut", qtype: "NS", ns: []string{soa30}},
		{name: "cut", qtype: "DS", ns: []string{soa30}},
		{name: "over", qtype: "MX", ns: []string{soa30}},
		{name: "hop", qtype: "MX", answer: []string{"hop 300 CNAME over"}, ns: []string{soa30}},
		{name: "loop2", qtype: "A", answer: []string{"loop2 300 CNAME loop1", "loop1 60 A 192.0.2.2"}},
		{name: "loop1", qtype: "A", answer: []string{"loop1 60 A 192.0.2.2"}},
	} {
		tc.check(t, d)
	}
	types, known := d.typesOf("cut."+testZone, d.snapshot.Load().soas[testZone])
	if !known || !slices.Equal(types, []uint16{dns.TypeA}) {
		t.Errorf("Expected a denial to leave A alone at a delegation that is hidden, got %v", types)
	}
}
