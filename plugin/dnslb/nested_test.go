package dnslb

import (
	"context"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

// TestNestedZones checks that a name belongs to the longest of the zones of a
// block, whatever the zone above has at and below the apex of the one below.
func TestNestedZones(t *testing.T) {
	const child = "a.sub." + testZone
	parse := func(zone, text string) *file.Zone {
		z, err := file.Parse(strings.NewReader(text), zone, "test", 0)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	next := &file.File{Zones: file.Zones{Names: []string{testZone, child}, Z: map[string]*file.Zone{
		testZone: parse(testZone, `$ORIGIN svc.gslb.example.org.
@        120 IN SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120
@        300 IN NS  ns1.example.net.
a.sub    300 IN NS  ns2.example.net.
a.sub    300 IN NS  ns9.example.net.
`),
		child: parse(child, `$ORIGIN a.sub.svc.gslb.example.org.
@        60 IN SOA ns.example.org. hostmaster.example.org. 7 7200 1800 86400 60
@        300 IN NS  ns2.example.net.
@        300 IN TXT "apex"
`),
	}}}
	const (
		above     = "@ 120 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"
		below     = "a.sub 60 SOA ns.example.org. hostmaster.example.org. 7 7200 1800 86400 60"
		below30   = "a.sub 30 SOA ns.example.org. hostmaster.example.org. 7 7200 1800 86400 60"
		aloneUp   = "@ 30 SOA par1.lb.gslb.example.org. hostmaster." + testZone + " 7 14400 3600 1209600 300"
		aloneDown = "a.sub 30 SOA par1.lb.sub." + testZone + " hostmaster." + child + " 7 14400 3600 1209600 300"
	)
	const parentZone = "gslb.example.org."
	parent := &file.File{Zones: file.Zones{Names: []string{parentZone}, Z: map[string]*file.Zone{parentZone: parse(parentZone, `$ORIGIN gslb.example.org.
@        60 IN SOA ns.example.org. hostmaster.example.org. 9 7200 1800 86400 60
@        60 IN NS ns.example.org.
`)}}}
	tests := []struct {
		name, node string
		next       plugin.Handler
		answers    []wire
	}{
		{"in front of a zone", "", next, []wire{
			{name: "a.sub", qtype: "SOA", answer: []string{below}, ns: []string{"a.sub 300 NS ns2.example.net."}},
			{name: "a.sub", qtype: "NS", answer: []string{"a.sub 300 NS ns2.example.net."}},
			{name: "a.sub", qtype: "TXT", answer: []string{`a.sub 300 TXT "apex"`}, ns: []string{"a.sub 300 NS ns2.example.net."}},
			{name: "a.sub", qtype: "A", ns: []string{below}},
			{name: "www.a.sub", qtype: "A", answer: []string{"www.a.sub 60 A 192.0.2.1"}},
			{name: "www.a.sub", qtype: "MX", ns: []string{below30}},
			{name: "none.a.sub", qtype: "A", rcode: dns.RcodeNameError, ns: []string{below}},
			{name: "sub", qtype: "A", ns: []string{above}},
			{name: "none.sub", qtype: "A", rcode: dns.RcodeNameError, ns: []string{above}},
		}},
		{"a node", "par1", next, []wire{
			{name: "a.sub", qtype: "NS", answer: []string{"a.sub 30 NS par1.lb.sub." + testZone}},
			{name: "a.sub", qtype: "TXT", answer: []string{`a.sub 300 TXT "apex"`}},
			{name: "a.sub", qtype: "A", ns: []string{below}},
			{name: "none.a.sub", qtype: "A", rcode: dns.RcodeNameError, ns: []string{below}},
		}},
		{"a node in front of the parent", "par1", parent, []wire{
			{name: "@", qtype: "SOA", answer: []string{aloneUp}},
			{name: "a.sub", qtype: "SOA", answer: []string{aloneDown}},
			{name: "none", qtype: "A", rcode: dns.RcodeNameError, ns: []string{aloneUp}},
			{name: "www.a.sub", qtype: "MX", ns: []string{aloneDown}},
		}},
		{"a node, alone", "par1", nil, []wire{
			{name: "a.sub", qtype: "SOA", answer: []string{aloneDown}},
			{name: "a.sub", qtype: "NS", answer: []string{"a.sub 30 NS par1.lb.sub." + testZone}},
			{name: "none.a.sub", qtype: "A", rcode: dns.RcodeNameError, ns: []string{aloneDown}},
			{name: "www.a.sub", qtype: "MX", ns: []string{aloneDown}},
			{name: "sub", qtype: "A", ns: []string{aloneUp}},
			{name: "none.sub", qtype: "A", rcode: dns.RcodeNameError, ns: []string{aloneUp}},
		}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			// The zones come in any order.
			for range 20 {
				d := newDNSLB(config{
					Zones: []string{testZone, child}, Node: tc.node, ttlLow: 20, ttlHigh: 60, loaded: 7,
					inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + child, servers: labelsOf("a"), options: options{answers: 1}}}},
				}, nil)
				d.state = newBlockState()
				if tc.next != nil {
					d.Next = tc.next
					d.sources.setBackends([]transfer.Transferer{tc.next.(transfer.Transferer)}, false)
				}
				d.snapshot.Store(d.sources.snapshot())
				for _, q := range tc.answers {
					q.check(t, d)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestUnservedZone checks that dnslb is authoritative for a zone of the block that
// the backend plugin does not have.
func TestUnservedZone(t *testing.T) {
	const unserved = "example.net."
	d := frontOfZone(t, "")
	d.Next.(*file.File).Next = test.NextHandler(dns.RcodeRefused, nil)
	d.Zones = append(d.Zones, unserved)
	d.inventory.services = append(d.inventory.services, serviceConfig{name: "www." + unserved, servers: labelsOf("iad"), options: options{answers: 1}})
	d.sources.setBackends([]transfer.Transferer{d.Next.(*file.File)}, false)
	d.snapshot.Store(d.sources.snapshot())
	tests := []struct {
		qname        string
		qtype        uint16
		rcode        int
		answers, soa int
	}{
		{"www." + unserved, dns.TypeA, dns.RcodeSuccess, 1, 0},
		{"www." + unserved, dns.TypeAAAA, dns.RcodeSuccess, 0, 1},
		{unserved, dns.TypeSOA, dns.RcodeSuccess, 1, 0},
		{unserved, dns.TypeNS, dns.RcodeSuccess, 0, 1}, // the zone that delegates has them
		{unserved, dns.TypeTXT, dns.RcodeSuccess, 0, 1},
		{"none." + unserved, dns.TypeA, dns.RcodeNameError, 0, 1},
	}
	for _, tc := range tests {
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if rcode, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion(tc.qname, tc.qtype)); err != nil || w.Msg == nil {
			t.Errorf("%s %s: Expected an answer, got %d, %v", tc.qname, dns.Type(tc.qtype), rcode, err)
			continue
		}
		if m := w.Msg; m.Rcode != tc.rcode || !m.Authoritative || len(m.Answer) != tc.answers || len(m.Ns) != tc.soa {
			t.Errorf("%s %s: Expected %s, %d answers and %d SOA, got %v", tc.qname, dns.Type(tc.qtype), dns.RcodeToString[tc.rcode], tc.answers, tc.soa, m)
		}
	}
}

// TestParentOnlyZone checks that the records of a parent zone are no answer for a
// zone of the block that the backend plugin does not have: dnslb is authoritative
// for that zone, or refuses if the plugin may get it.
func TestParentOnlyZone(t *testing.T) {
	const child = "sub." + testZone
	const soa = "sub 30 SOA sub." + testZone + " hostmaster.sub." + testZone + " 7 14400 3600 1209600 300"
	front := func(zonesOnly bool, backend func(*file.File) transfer.Transferer) *DNSLB {
		d := frontOfZone(t, "")
		next := d.Next.(*file.File)
		d.Zones = append(d.Zones, child, "other."+testZone)
		d.sources = newSources(&d.config)
		d.sources.setBackends([]transfer.Transferer{backend(next)}, zonesOnly)
		return d
	}
	known := func(f *file.File) transfer.Transferer { return f }
	for name, d := range map[string]*DNSLB{"only backend plugins": front(true, known), "other plugins": front(false, known)} {
		d.snapshot.Store(d.sources.snapshot())
		t.Run(name, func(t *testing.T) {
			for _, tc := range []wire{
				{name: "x.sub", qtype: "A", answer: []string{"x.sub 60 A 192.0.2.2"}},
				{name: "x.sub", qtype: "AAAA", ns: []string{soa}},
				{name: "x.sub", qtype: "TXT", ns: []string{soa}},
				{name: "sub", qtype: "SOA", answer: []string{soa}},
				{name: "sub", qtype: "NS", ns: []string{soa}},
				{name: "y.sub", qtype: "A", rcode: dns.RcodeNameError, ns: []string{soa}},
				// The parent zone has a wildcard.
				{name: "x.other", qtype: "TXT", rcode: dns.RcodeNameError, ns: []string{"other 30 SOA other." + testZone + " hostmaster.other." + testZone + " 7 14400 3600 1209600 300"}},
				{name: "none.mail", qtype: "A", rcode: dns.RcodeNameError, ns: []string{soa120}},
			} {
				tc.check(t, d)
			}
		})
	}
	// An unknown plugin may get the zones.
	missing := front(false, func(f *file.File) transfer.Transferer { return struct{ transfer.Transferer }{f} })
	missing.snapshot.Store(missing.sources.snapshot())
	wire{name: "x.sub", qtype: "A", answer: []string{"x.sub 60 A 192.0.2.2"}}.check(t, missing)
	wire{name: "x.sub", qtype: "AAAA", ns: []string{soa}}.check(t, missing)
	for _, name := range []string{"sub", "y.sub", "x.other"} {
		fails(t, missing, name, dns.RcodeRefused)
	}
}

// TestEnclosingZone checks that a backend plugin whose zone encloses the zone of
// the block answers for it, and that a negative answer with the SOA record of a
// zone far above gets that of the zone of the block.
func TestEnclosingZone(t *testing.T) {
	const inner = "w." + testZone
	d := frontOfZone(t, "")
	d.Zones = []string{inner}
	d.inventory.services = []serviceConfig{
		{name: "a.b." + inner, servers: labelsOf("iad"), options: options{answers: 1}},
		{name: "x." + inner, servers: labelsOf("iad"), options: options{answers: 1}},
	}
	d.sources = newSources(&d.config)
	d.sources.setBackends([]transfer.Transferer{d.Next.(*file.File)}, true)
	d.snapshot.Store(d.sources.snapshot())
	const soa = "w 30 SOA w." + testZone + " hostmaster.w." + testZone + " 7 14400 3600 1209600 300"
	for _, tc := range []wire{
		{name: "x.w", qtype: "A", answer: []string{"x.w 60 A 192.0.2.2"}},
		{name: "x.w", qtype: "MX", answer: []string{"x.w 300 MX 10 mail." + testZone}, ns: []string{"@ 300 NS ns1", "@ 300 NS ns2.example.net."}, extra: []string{"mail 300 A 192.0.2.101", "mail 300 A 192.0.2.102"}},
		{name: "y.w", qtype: "TXT", answer: []string{`y.w 300 TXT "wildcard of the zone"`}, ns: []string{"@ 300 NS ns1", "@ 300 NS ns2.example.net."}},
	} {
		tc.check(t, d)
	}
	if !d.sources.loaded() || len(d.snapshot.Load().missing) > 0 {
		t.Error("Expected nothing to wait for")
	}

	d.Next = plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
		m.Ns = []dns.RR{newRR("org. 900 IN SOA a0.example.net. hostmaster.example.net. 1 1 1 1 900")}
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
	wire{name: "a.b.w", qtype: "HTTPS", ns: []string{soa}}.check(t, d)
}
