package dnsb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

// started returns a running instance with the lines in its block.
func started(t testing.TB, lines string, probe func() prober) *DNSB {
	t.Helper()
	return startedWith(t, newZone(testZone), lines, probe)
}

func startedWith(t testing.TB, z *zone, lines string, probe func() prober) *DNSB {
	t.Helper()
	d, err := parse(controller("dnsb {\nns b1 192.0.2.1 2001:db8::1\n" + lines + "\n}"))
	if err != nil {
		t.Fatal(err)
	}
	d.probe = probe
	if err := d.resolvers.check(&z.sizes, d.conf); err != nil {
		t.Fatal(err)
	}
	d.start(z)
	t.Cleanup(func() { d.close(); z.registry.Close() })
	return d
}

// alone returns d without its goroutines: the test itself reads files that have
// changed, and nobody else does.
func alone(d *DNSB) *DNSB {
	d.stop()
	d.done.Wait()
	return d
}

// node returns a registration of name at addr with the cut svc and prefixes, of
// which "!" negates one.
func nodeAt(name, addr string, prefixes ...string) *registration.Registration {
	return registrationtest.Node(name, addr, prefixes...)
}

// registers puts r into d as an UPDATE signed by k1 would.
func registers(t testing.TB, d *DNSB, r *registration.Registration) {
	t.Helper()
	if err := d.conf.permits("", r, nil); err != nil {
		t.Fatalf("Expected %s to be permitted, got: %v", r.Node, err)
	}
	if _, _, err := d.registry.Apply(r, d.conf.grant(r.Lease)); err != nil {
		t.Fatalf("Expected %s to register, got: %v", r.Node, err)
	}
	d.catchUp()
}

// ask asks as a resolver at an address.
func ask(t testing.TB, d *DNSB, from, name string, qtype uint16, edit ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	for _, f := range edit {
		f(m)
	}
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: from})
	rcode, err := d.ServeDNS(context.Background(), w, m)
	if err != nil {
		t.Fatalf("Expected no error for %s, got: %v", name, err)
	}
	if w.Msg == nil {
		t.Fatalf("Expected a reply for %s %s, got code %s", name, dns.TypeToString[qtype], dns.RcodeToString[rcode])
	}
	if _, err := w.Msg.Pack(); err != nil {
		t.Fatalf("Expected the reply for %s to pack, got: %v", name, err)
	}
	return w.Msg
}

// referredTo returns the node that a resolver is referred to.
func referredTo(t testing.TB, d *DNSB, from string) string {
	t.Helper()
	m := ask(t, d, from, "www.svc."+testZone, dns.TypeA)
	if len(m.Ns) != 1 {
		return dns.RcodeToString[m.Rcode]
	}
	ns, ok := m.Ns[0].(*dns.NS)
	if !ok {
		return dns.RcodeToString[m.Rcode]
	}
	return strings.TrimSuffix(ns.Ns, ".lb."+testZone)
}

func TestAnswers(t *testing.T) {
	d := started(t, `
		ns ns.deep.gslb.example.org 192.0.2.2
		accept k1 par1 any
		accept k1 six any
		node nyc1 192.0.2.54
		cut a.b.gslb.example.org nyc1`, nil)
	r := nodeAt("par1", "192.0.2.53", "198.51.100.0/24", "!198.51.100.128/25", "2001:db8:1::/48")
	r.Addresses = append(r.Addresses, netip.MustParseAddr("2001:db8::53"))
	r.Location, r.Serial, r.Deputies = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m", 1234, []string{"nyc1"}
	registers(t, d, r)
	six := nodeAt("six", "2001:db8::6")
	six.Cuts = []string{"x.gslb.example.org."}
	registers(t, d, six)

	soa := func(ttl int) []dns.RR {
		return []dns.RR{test.SOA(fmt.Sprintf("gslb.example.org. %d IN SOA b1.gslb.example.org. hostmaster.gslb.example.org. %d 14400 3600 1209600 600", ttl, d.snapshot.Load().serial))}
	}
	const node = "par1.lb.gslb.example.org."
	tests := []struct {
		test.Case
		referral bool
	}{
		// The apex.
		{Case: test.Case{Qname: testZone, Qtype: dns.TypeSOA, Answer: soa(30)}},
		{Case: test.Case{Qname: testZone, Qtype: dns.TypeNS,
			Answer: []dns.RR{test.NS("gslb.example.org. 3600 IN NS b1.gslb.example.org."), test.NS("gslb.example.org. 3600 IN NS ns.deep.gslb.example.org.")},
			Extra:  []dns.RR{test.A("b1.gslb.example.org. 3600 IN A 192.0.2.1"), test.AAAA("b1.gslb.example.org. 3600 IN AAAA 2001:db8::1"), test.A("ns.deep.gslb.example.org. 3600 IN A 192.0.2.2")},
		}},
		{Case: test.Case{Qname: testZone, Qtype: dns.TypeA, Ns: soa(30)}},
		{Case: test.Case{Qname: testZone, Qtype: dns.TypeANY, Answer: []dns.RR{&dns.HINFO{Hdr: dns.RR_Header{Name: testZone, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: 600}, Cpu: "RFC8482"}}}},
		// Name servers.
		{Case: test.Case{Qname: "b1.gslb.example.org.", Qtype: dns.TypeA, Answer: []dns.RR{test.A("b1.gslb.example.org. 3600 IN A 192.0.2.1")}}},
		{Case: test.Case{Qname: "B1.gslb.example.ORG.", Qtype: dns.TypeAAAA, Answer: []dns.RR{test.AAAA("B1.gslb.example.ORG. 3600 IN AAAA 2001:db8::1")}}},
		{Case: test.Case{Qname: "b1.gslb.example.org.", Qtype: dns.TypeTXT, Ns: soa(600)}},
		{Case: test.Case{Qname: "x.b1.gslb.example.org.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa(30)}},
		// Names of nodes.
		{Case: test.Case{Qname: node, Qtype: dns.TypeA, Answer: []dns.RR{test.A(node + " 600 IN A 192.0.2.53")}}},
		{Case: test.Case{Qname: node, Qtype: dns.TypeAAAA, Answer: []dns.RR{test.AAAA(node + " 600 IN AAAA 2001:db8::53")}}},
		{Case: test.Case{Qname: "six.lb.gslb.example.org.", Qtype: dns.TypeA, Ns: soa(600)}},
		{Case: test.Case{Qname: "nyc1.lb.gslb.example.org.", Qtype: dns.TypeA, Answer: []dns.RR{test.A("nyc1.lb.gslb.example.org. 600 IN A 192.0.2.54")}}},
		{Case: test.Case{Qname: "nyc1.lb.gslb.example.org.", Qtype: dns.TypeTXT, Ns: soa(600)}},
		{Case: test.Case{Qname: "nyc1.lb.gslb.example.org.", Qtype: dns.TypeAPL, Ns: soa(600)}},
		{Case: test.Case{Qname: "nobody.lb.gslb.example.org.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa(30)}},
		{Case: test.Case{Qname: "x.par1.lb.gslb.example.org.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa(30)}},
		// Empty non-terminals.
		{Case: test.Case{Qname: "lb.gslb.example.org.", Qtype: dns.TypeA, Ns: soa(30)}},
		{Case: test.Case{Qname: "b.gslb.example.org.", Qtype: dns.TypeNS, Ns: soa(30)}},
		{Case: test.Case{Qname: "b.gslb.example.org.", Qtype: dns.TypeANY, Ns: soa(30)}},
		{Case: test.Case{Qname: "deep.gslb.example.org.", Qtype: dns.TypeA, Ns: soa(30)}},
		// No such name.
		{Case: test.Case{Qname: "www.gslb.example.org.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa(30)}},
		{Case: test.Case{Qname: "www.b.gslb.example.org.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa(30)}},
		{Case: test.Case{Qname: "xsvc.gslb.example.org.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: soa(30)}},
		// DS belongs to the parent, below the cut to the child.
		{Case: test.Case{Qname: "svc.gslb.example.org.", Qtype: dns.TypeDS, Ns: soa(30)}},
		{Case: test.Case{Qname: "x.gslb.example.org.", Qtype: dns.TypeDS, Ns: soa(30)}},
	}
	for _, name := range []string{"svc.gslb.example.org.", "www.svc.gslb.example.org.", "a.b.c.svc.gslb.example.org."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeANY, dns.TypeHTTPS, dns.TypeDS} {
			if name == "svc.gslb.example.org." && qtype == dns.TypeDS {
				continue
			}
			tests = append(tests, struct {
				test.Case
				referral bool
			}{test.Case{
				Qname: name, Qtype: qtype,
				Ns:    []dns.RR{test.NS("svc.gslb.example.org. 30 IN NS " + node)},
				Extra: []dns.RR{test.A(node + " 60 IN A 192.0.2.53"), test.AAAA(node + " 60 IN AAAA 2001:db8::53")},
			}, true})
		}
	}
	for _, tc := range tests {
		name := tc.Qname + " " + dns.TypeToString[tc.Qtype]
		m := ask(t, d, "198.51.100.1", tc.Qname, tc.Qtype)
		if m.Authoritative == tc.referral {
			t.Errorf("%s: Expected AA to be %v, got %v", name, !tc.referral, m.Authoritative)
		}
		if tc.Answer != nil && tc.Answer[0].Header().Rrtype == dns.TypeHINFO {
			if len(m.Answer) != 1 || m.Answer[0].String() != tc.Answer[0].String() {
				t.Errorf("%s: Expected %v, got %v", name, tc.Answer, m.Answer)
			}
			continue
		}
		if err := test.SortAndCheck(m, tc.Case); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	for qtype, want := range map[uint16]string{
		dns.TypeAPL: "1:198.51.100.0/24 !1:198.51.100.128/25 2:2001:db8:1::/48",
		dns.TypeLOC: r.Location,
		dns.TypeTXT: `"v=1 serial=1234 parts=1 deputy=nyc1"`,
	} {
		m := ask(t, d, "198.51.100.1", node, qtype)
		if len(m.Answer) != 1 || !m.Authoritative || strings.TrimPrefix(m.Answer[0].String(), m.Answer[0].Header().String()) != want {
			t.Errorf("Expected %s, got %v", want, m.Answer)
		}
	}
}

func TestReferralCase(t *testing.T) {
	d := started(t, "accept k1 par1 any", nil)
	registers(t, d, nodeAt("par1", "192.0.2.53"))
	m := ask(t, d, "198.51.100.1", "WWW.sVc.GSLB.example.Org.", dns.TypeA)
	if len(m.Ns) != 1 || m.Ns[0].Header().Name != "sVc.GSLB.example.Org." {
		t.Errorf("Expected the cut in the case of the question, got %v", m.Ns)
	}
}

func TestReferralOptions(t *testing.T) {
	d := started(t, "accept k1 par1 any", nil)
	registers(t, d, nodeAt("par1", "192.0.2.53"))
	for _, name := range []string{"www.svc." + testZone, testZone} {
		m := ask(t, d, "198.51.100.1", name, dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{203, 0, 113, 0}}}
		})
		// Unbound does not cache a referral that has the option, whatever its scope.
		if opt := m.IsEdns0(); opt != nil && len(opt.Option) > 0 {
			t.Errorf("%s: Expected no client subnet, got %v", name, opt)
		}
	}
	if m := ask(t, d, "198.51.100.1", "www.svc."+testZone, dns.TypeA); m.IsEdns0() != nil {
		t.Errorf("Expected no OPT for a query without, got %v", m.IsEdns0())
	}
}

// A referral has all addresses of its node, or none and the TC bit.
func TestReferralSize(t *testing.T) {
	d := started(t, "accept k1 par1 any", nil)
	for n := 1; n <= 12; n++ {
		r := nodeAt("par1", "192.0.2.53")
		for i := 1; i < n; i++ {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)))
		}
		registers(t, d, r)
		for _, labels := range []int{0, 1, 3} {
			name := strings.Repeat(strings.Repeat("x", 60)+".", labels) + "svc." + testZone
			m := ask(t, d, "198.51.100.1", name, dns.TypeA)
			m.Truncate(512)
			if len(m.Extra) != n && (!m.Truncated || len(m.Extra) > 0) {
				t.Errorf("%d addresses, %d labels: Expected all addresses or TC, got %d, TC %v", n, labels, len(m.Extra), m.Truncated)
			}
			if n < 3 && m.Truncated {
				t.Errorf("%d addresses, %d labels: Expected them to fit", n, labels)
			}
		}
	}
	if m := ask(t, d, "198.51.100.1", "www.svc."+testZone, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) }); m.Truncated || len(m.Extra) != 12 {
		t.Errorf("Expected 12 addresses with EDNS, got %d, TC %v", len(m.Extra), m.Truncated)
	}
}

func TestOthers(t *testing.T) {
	d := started(t, "", nil)
	d.Next = test.NextHandler(dns.RcodeRefused, errors.New("next"))
	for _, tc := range []struct {
		name string
		edit func(*dns.Msg)
		want int
		next bool
	}{
		{"other zone", func(m *dns.Msg) { m.Question[0].Name = "example.net." }, dns.RcodeRefused, true},
		{"other class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused, true},
		{"notify", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented, false},
		{"transfer", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, dns.RcodeRefused, false},
	} {
		m := new(dns.Msg)
		m.SetQuestion(testZone, dns.TypeA)
		tc.edit(m)
		rcode, err := d.ServeDNS(context.Background(), &test.ResponseWriter{}, m)
		if rcode != tc.want || (err != nil) != tc.next {
			t.Errorf("%s: Expected %d, got %d, %v", tc.name, tc.want, rcode, err)
		}
	}
	if zones := d.CacheBypassZones(); len(zones) != 1 || zones[0] != testZone {
		t.Errorf("Expected the zone to bypass caches, got %v", zones)
	}
}

func TestColdStart(t *testing.T) {
	d := started(t, "accept k1 par1 any\naccept k2 nyc1 any", nil)
	get := func(name string, qtype uint16) int { return ask(t, d, "198.51.100.1", name, qtype).Rcode }
	for name, want := range map[string]int{
		testZone: dns.RcodeSuccess, "lb." + testZone: dns.RcodeSuccess, "b1." + testZone: dns.RcodeSuccess,
		"www.svc." + testZone: dns.RcodeServerFailure, "par1.lb." + testZone: dns.RcodeServerFailure,
	} {
		if got := get(name, dns.TypeA); got != want {
			t.Errorf("%s: Expected %s at the start, got %s", name, dns.RcodeToString[want], dns.RcodeToString[got])
		}
	}
	if got := get("b."+testZone, dns.TypeSOA); got != dns.RcodeSuccess {
		t.Errorf("Expected those who look for the zone to find it, got %s", dns.RcodeToString[got])
	}
	m := ask(t, d, "198.51.100.1", "x."+testZone, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	if opt := m.IsEdns0(); opt == nil || len(opt.Option) != 1 || opt.Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeNotReady {
		t.Errorf("Expected the extended error Not Ready, got %v", opt)
	}

	registers(t, d, nodeAt("par1", "192.0.2.53"))
	if got := get("x."+testZone, dns.TypeA); got != dns.RcodeServerFailure {
		t.Errorf("Expected SERVFAIL until all nodes are there, got %s", dns.RcodeToString[got])
	}
	registers(t, d, nodeAt("nyc1", "192.0.2.54"))
	if got := get("x."+testZone, dns.TypeA); got != dns.RcodeNameError {
		t.Errorf("Expected NXDOMAIN when all nodes are there, got %s", dns.RcodeToString[got])
	}

	synctest.Test(t, func(t *testing.T) {
		d = started(t, "accept k1 par1 any", nil)
		time.Sleep(2*time.Hour + time.Second)
		if got := get("x."+testZone, dns.TypeA); got != dns.RcodeNameError {
			t.Errorf("Expected NXDOMAIN after the longest lease, got %s", dns.RcodeToString[got])
		}
	})
}

func TestDeputies(t *testing.T) {
	p := newFakeProber()
	d := started(t, "accept k1 par1 any\naccept k1 lon1 any\naccept k1 fra1 any\nnode nyc1 192.0.2.9\ncut svc nyc1\ndefault nyc1\nttl 120s", func() prober { return p })
	par := nodeAt("par1", "192.0.2.1", "10.0.0.0/8")
	par.Deputies = []string{"nobody", "par1", "lon1", "fra1"}
	registers(t, d, par)
	registers(t, d, nodeAt("lon1", "192.0.2.2", "!10.2.0.0/16", "10.2.2.0/24"))
	fra := nodeAt("fra1", "192.0.2.3")
	registers(t, d, fra)
	expect := func(step, from string, ttl uint32, nodes ...string) {
		t.Helper()
		m := ask(t, d, from, "www.svc."+testZone, dns.TypeA)
		var got []string
		for _, rr := range m.Ns {
			got = append(got, strings.TrimSuffix(rr.(*dns.NS).Ns, ".lb."+testZone))
			if rr.Header().Ttl != ttl {
				t.Errorf("%s: Expected a TTL of %d, got %v", step, ttl, rr)
			}
		}
		for _, rr := range m.Extra {
			if rr.Header().Ttl != 2*ttl {
				t.Errorf("%s: Expected a TTL of %d, got %v", step, 2*ttl, rr)
			}
		}
		if strings.Join(got, " ") != strings.Join(nodes, " ") || m.Authoritative {
			t.Errorf("%s: Expected a referral to %v, got %v", step, nodes, got)
		}
	}
	expect("all live", "10.0.0.1", 120, "par1", "lon1")
	expect("negated by the deputy", "10.2.0.1", 120, "par1", "fra1")
	expect("negated by the deputy, but not there", "10.2.2.1", 30, "lon1")
	p.say("192.0.2.2", silent)
	d.refresh()
	expect("first deputy dead", "10.0.0.1", 120, "par1", "fra1")
	p.say("192.0.2.1", silent)
	d.refresh()
	expect("node and first deputy dead", "10.0.0.1", 30, "fra1")
	p.say("192.0.2.2", answering)
	d.refresh()
	expect("node dead", "10.0.0.1", 120, "lon1", "fra1")
	expect("node dead, negated by the first deputy", "10.2.0.1", 30, "fra1")
	expect("node dead, the deputy's own", "10.2.2.1", 30, "lon1")
	p.say("192.0.2.1", answering)
	p.say("192.0.2.2", silent)
	d.refresh()
	expect("node live again", "10.0.0.1", 120, "par1", "fra1")
	fra.Cuts = []string{"other." + testZone}
	registers(t, d, fra)
	expect("second deputy without the cut", "10.0.0.1", 30, "par1")
	p.say("192.0.2.1", silent)
	p.say("192.0.2.9", silent)
	d.refresh()
	expect("all dead", "10.0.0.1", 30, "par1", "nyc1")

	// A deputy that does not fit is left out.
	p.say("192.0.2.1", answering)
	p.say("192.0.2.2", answering)
	lon := nodeAt("lon1", "192.0.2.2")
	for i := range 7 {
		par.Addresses = append(par.Addresses, netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", i)))
		lon.Addresses = append(lon.Addresses, netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%d", i)))
	}
	registers(t, d, par)
	registers(t, d, lon)
	name := strings.Repeat("x", 60) + ".svc." + testZone
	m := ask(t, d, "10.0.0.1", name, dns.TypeA)
	if len(m.Ns) != 1 || len(m.Extra) != 8 || m.Truncated || m.Ns[0].Header().Ttl != 30 {
		t.Errorf("Expected the first node alone and in whole, got %v", m)
	}
	m = ask(t, d, "10.0.0.1", name, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	if len(m.Ns) != 2 || len(m.Extra) != 16 || m.Truncated {
		t.Errorf("Expected both nodes with EDNS, got %v", m)
	}
}
