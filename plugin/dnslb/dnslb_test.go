package dnslb

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
)

const testZone = "svc.gslb.example.org."

// machine is a server without options.
func machine(addrs ...string) serverConfig {
	s := serverConfig{settings: plain}
	for _, a := range addrs {
		s.addrs = append(s.addrs, netip.MustParseAddr(a))
	}
	return s
}

// example returns a DNSLB for testZone. Without a node it stands in front of
// next.
func example(node string, next plugin.Handler) *DNSLB {
	d := newDNSLB(config{
		Zones: []string{testZone},
		inventory: inventory{map[string]serverConfig{"fra": machine("192.0.2.1", "2001:db8::1"), "iad": machine("192.0.2.2")},
			[]serviceConfig{
				{name: "www." + testZone, servers: labelsOf("fra", "iad"), options: options{answers: 1}},
				{name: "both." + testZone, servers: labelsOf("iad", "fra"), options: options{answers: 2}},
				{name: "a.b.c." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
				{name: "*.wild." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
			}},
		ttlLow: 20, ttlHigh: 60, loaded: 7, Node: node,
	}, nil)
	d.Next = next
	d.state = newBlockState()
	d.snapshot.Store(d.sources.snapshot())
	return d
}

const soaLine = testZone + " 30 IN SOA par1.lb.gslb.example.org. hostmaster." + testZone + " 7 14400 3600 1209600 300"

func TestServeDNS(t *testing.T) {
	soa := []dns.RR{test.SOA(soaLine)}
	d := example("par1", nil)
	tests := []test.Case{
		{Qname: "www." + testZone, Qtype: dns.TypeA, Answer: []dns.RR{test.A("www." + testZone + " 60 IN A 192.0.2.1")}},
		{Qname: "www." + testZone, Qtype: dns.TypeAAAA, Answer: []dns.RR{test.AAAA("www." + testZone + " 60 IN AAAA 2001:db8::1")}},
		{Qname: "WwW.sVc.gSlB.example.ORG.", Qtype: dns.TypeA, Answer: []dns.RR{test.A("WwW.sVc.gSlB.example.ORG. 60 IN A 192.0.2.1")}},
		{Qname: "both." + testZone, Qtype: dns.TypeA, Answer: []dns.RR{
			test.A("both." + testZone + " 60 IN A 192.0.2.1"), test.A("both." + testZone + " 60 IN A 192.0.2.2")}},
		// RFC 2308, section 2.2: no data of this type, with the SOA.
		{Qname: "www." + testZone, Qtype: dns.TypeMX, Ns: soa},
		{Qname: "www." + testZone, Qtype: dns.TypeHTTPS, Ns: soa},
		{Qname: "www." + testZone, Qtype: 65280, Ns: soa},
		{Qname: "www." + testZone, Qtype: dns.TypeNS, Ns: soa},
		{Qname: "a.b.c." + testZone, Qtype: dns.TypeAAAA, Ns: soa},
		// RFC 8020 and RFC 4592, section 2.2.2: empty non-terminals exist.
		{Qname: "b.c." + testZone, Qtype: dns.TypeA, Ns: soa},
		{Qname: "c." + testZone, Qtype: dns.TypeNS, Ns: soa},
		{Qname: "wild." + testZone, Qtype: dns.TypeA, Ns: soa},
		{Qname: "c." + testZone, Qtype: dns.TypeANY, Ns: soa},
		{Qname: "none." + testZone, Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa},
		{Qname: "x.www." + testZone, Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa},
		{Qname: "x.c." + testZone, Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa},
		// RFC 4592: wildcards.
		{Qname: "x.wild." + testZone, Qtype: dns.TypeA, Answer: []dns.RR{test.A("x.wild." + testZone + " 60 IN A 192.0.2.2")}},
		{Qname: "x.y.wild." + testZone, Qtype: dns.TypeA, Answer: []dns.RR{test.A("x.y.wild." + testZone + " 60 IN A 192.0.2.2")}},
		{Qname: "*.wild." + testZone, Qtype: dns.TypeA, Answer: []dns.RR{test.A("*.wild." + testZone + " 60 IN A 192.0.2.2")}},
		{Qname: "x.wild." + testZone, Qtype: dns.TypeTXT, Ns: soa},
		// The apex.
		{Qname: testZone, Qtype: dns.TypeSOA, Answer: soa},
		{Qname: testZone, Qtype: dns.TypeNS, Answer: []dns.RR{test.NS(testZone + " 30 IN NS par1.lb.gslb.example.org.")}},
		{Qname: testZone, Qtype: dns.TypeA, Ns: soa},
		{Qname: testZone, Qtype: dns.TypeDS, Ns: soa},
		{Qname: testZone, Qtype: dns.TypeANY, Answer: []dns.RR{hinfo(testZone)}},
		{Qname: "www." + testZone, Qtype: dns.TypeANY, Answer: []dns.RR{hinfo("www." + testZone)}}, // RFC 8482
	}
	for _, tc := range tests {
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		rcode, err := d.ServeDNS(context.Background(), w, tc.Msg())
		if err != nil || rcode != dns.RcodeSuccess {
			t.Errorf("%s %s: expected an answer, got %d, %v", tc.Qname, dns.TypeToString[tc.Qtype], rcode, err)
			continue
		}
		if !w.Msg.Authoritative {
			t.Errorf("%s %s: expected AA", tc.Qname, dns.TypeToString[tc.Qtype])
		}
		if err := test.CNAMEOrder(w.Msg); err != nil {
			t.Error(err)
		}
		if err := test.SortAndCheck(w.Msg, tc); err != nil {
			t.Errorf("%s %s: %v\n%v", tc.Qname, dns.TypeToString[tc.Qtype], err, w.Msg)
		}
		// Knot Resolver takes a volunteered NS set for the referral and never
		// returns to DNS-B.
		for _, rr := range w.Msg.Ns {
			if rr.Header().Rrtype == dns.TypeNS {
				t.Errorf("%s %s: expected no NS in the authority section", tc.Qname, dns.TypeToString[tc.Qtype])
			}
		}
	}
}

func hinfo(name string) dns.RR {
	rr, err := dns.NewRR(name + ` 30 IN HINFO "RFC8482" ""`)
	if err != nil {
		panic(err)
	}
	return rr
}

func TestOrderIsKept(t *testing.T) {
	d := example("par1", nil)
	r := new(dns.Msg).SetQuestion("both."+testZone, dns.TypeA)
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	if _, err := d.ServeDNS(context.Background(), w, r); err != nil {
		t.Fatal(err)
	}
	if got := w.Msg.Answer[0].(*dns.A).A.String(); got != "192.0.2.2" {
		t.Errorf("Expected the best server first, got %s", got)
	}
}

func TestOtherOpcodesAndZones(t *testing.T) {
	d := example("par1", nil)
	notify := new(dns.Msg).SetNotify(testZone)
	if rcode, _ := d.ServeDNS(context.Background(), dnstest.NewRecorder(&test.ResponseWriter{}), notify); rcode != dns.RcodeNotImplemented {
		t.Errorf("Expected NOTIMP for NOTIFY, got %d", rcode)
	}
	for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
		r := new(dns.Msg).SetQuestion(testZone, qtype)
		if rcode, _ := d.ServeDNS(context.Background(), dnstest.NewRecorder(&test.ResponseWriter{}), r); rcode != dns.RcodeRefused {
			t.Errorf("Expected no transfer, got %d", rcode)
		}
	}
	d.Next = test.NextHandler(dns.RcodeRefused, nil)
	other := new(dns.Msg).SetQuestion("evilsvc.gslb.example.org.", dns.TypeA)
	if rcode, _ := d.ServeDNS(context.Background(), dnstest.NewRecorder(&test.ResponseWriter{}), other); rcode != dns.RcodeRefused {
		t.Errorf("Expected a name outside the zone to go to the next plugin, got %d", rcode)
	}
}

// TestClientSubnet checks that ECS is answered with scope 0 (RFC 7871, 7.2.1).
func TestClientSubnet(t *testing.T) {
	d := example("par1", nil)
	r := new(dns.Msg).SetQuestion("www."+testZone, dns.TypeA)
	r.SetEdns0(1232, false)
	r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 0, Address: []byte{198, 51, 100, 0}}}
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	if _, err := d.ServeDNS(context.Background(), w, r); err != nil {
		t.Fatal(err)
	}
	o := w.Msg.IsEdns0()
	if o == nil || len(o.Option) != 1 {
		t.Fatalf("Expected one EDNS option, got %v", w.Msg)
	}
	if s, ok := o.Option[0].(*dns.EDNS0_SUBNET); !ok || s.SourceScope != 0 || s.SourceNetmask != 24 {
		t.Errorf("Expected the subnet with scope 0, got %v", o.Option[0])
	}
}

// TestInFrontOfZone checks the plugin without a node: the next plugin has the
// zone, dnslb only ranks names in it.
func TestInFrontOfZone(t *testing.T) {
	soa := test.SOA(testZone + " 300 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 300")
	next := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg)
		if strings.HasPrefix(r.Question[0].Name, "mail.") {
			m.SetReply(r)
			m.Answer = []dns.RR{test.MX("mail." + testZone + " 300 IN MX 10 mx.example.org.")}
		} else {
			m.SetRcode(r, dns.RcodeNameError)
			m.Ns = []dns.RR{soa}
		}
		return m.Rcode, w.WriteMsg(m)
	})
	d := example("", next)
	ours := test.SOA(testZone + " 30 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 300")
	tests := []test.Case{
		{Qname: "www." + testZone, Qtype: dns.TypeA, Answer: []dns.RR{test.A("www." + testZone + " 60 IN A 192.0.2.1")}},
		{Qname: "www." + testZone, Qtype: dns.TypeMX, Ns: []dns.RR{ours}},
		{Qname: "a.b.c." + testZone, Qtype: dns.TypeAAAA, Ns: []dns.RR{ours}},
		{Qname: "b.c." + testZone, Qtype: dns.TypeA, Ns: []dns.RR{soa}},
		{Qname: "mail." + testZone, Qtype: dns.TypeMX, Answer: []dns.RR{test.MX("mail." + testZone + " 300 IN MX 10 mx.example.org.")}},
		{Qname: "none." + testZone, Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: []dns.RR{soa}},
	}
	for _, tc := range tests {
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := d.ServeDNS(context.Background(), w, tc.Msg()); err != nil {
			t.Errorf("%s: %v", tc.Qname, err)
			continue
		}
		if err := test.SortAndCheck(w.Msg, tc); err != nil {
			t.Errorf("%s %s: %v\n%v", tc.Qname, dns.TypeToString[tc.Qtype], err, w.Msg)
		}
	}
}

// TestRootZone checks names where the zone is the root, as in a resolver.
func TestRootZone(t *testing.T) {
	d := newDNSLB(config{
		Zones: []string{"."}, inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1")},
			[]serviceConfig{{name: "www.example.org.", servers: labelsOf("a"), options: options{answers: 1}}}}, ttlLow: 20, ttlHigh: 60,
	}, nil)
	snap := d.sources.snapshot()
	for qname, want := range map[string]struct{ service, exists bool }{
		"www.example.org.": {true, true}, "example.org.": {false, true}, "org.": {false, true}, ".": {false, true},
		"net.": {}, "a.www.example.org.": {}, `x\.example.org.`: {},
	} {
		n, exists := snap.lookup(qname)
		if n.zone != "." || exists != want.exists || (n.service != nil) != want.service {
			t.Errorf("%s: expected %+v, got %+v, %v", qname, want, n, exists)
		}
	}
	d.sources.conf.inventory.services[0].name = "*."
	if n, _ := d.sources.snapshot().lookup("net."); n.service == nil {
		t.Errorf("Expected the wildcard of the root, got %+v", n)
	}
}
