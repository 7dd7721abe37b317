package dnsb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath/fastpathtest"
)

// fastZone returns an instance with all kinds of nodes: with a deputy, denied,
// drained, dead, of one family, with more addresses than fit, and a signed cut.
func fastZone(t testing.TB) *DNSB {
	t.Helper()
	p := newFakeProber()
	many := ""
	for i := range 20 {
		many += fmt.Sprintf(" 2001:db8:3::%d", i+1)
	}
	d := started(t, strings.Join([]string{
		"accept k1 par1 any", "accept k1 lon1 any", "accept k1 fra1 any",
		"node nyc1 192.0.2.9 2001:db8::9 deputy big1", "node six1 2001:db8::6", "node big1" + many, "node dead1 192.0.2.8",
		"cut svc nyc1 six1 big1", "cut signed nyc1 six1", "cut down dead1", "cut deep.er.svc2." + testZone + " six1 big1",
		"ds signed 12345 13 2 " + strings.Repeat("ab", 32),
		"default nyc1", "prefix 2001:db8:1::/48 six1", "prefix 2001:db8:2::/48 big1 six1", "prefix 10.9.0.0/16 !nyc1",
		"explain 0.0.0.0/0", "ttl 120s",
	}, "\n"), func() prober { return p })
	par := nodeAt("par1", "192.0.2.1", "10.0.0.0/8", "2001:db8::/33")
	par.Deputies = []string{"lon1", "fra1"}
	registers(t, d, par)
	registers(t, d, nodeAt("lon1", "192.0.2.2", "!10.2.0.0/16", "10.2.2.0/24"))
	registers(t, d, nodeAt("fra1", "192.0.2.3"))
	p.say("192.0.2.8", silent)
	d.refresh()
	return d
}

var fastNames = []string{
	"svc." + testZone, "www.svc." + testZone, "a.b.svc." + testZone, "_443._tcp.www.svc." + testZone, "c.signed." + testZone, "d.signed." + testZone,
	testZone, "svc." + testZone, "www.svc." + testZone, "signed." + testZone, "a.signed." + testZone, "down." + testZone,
	"x.deep.er.svc2." + testZone, "er.svc2." + testZone, "par1.lb." + testZone, "none." + testZone, "example.com.", ".",
	strings.Repeat("abcdefghi.", 20) + "svc." + testZone,
}

var fastTypes = []uint16{
	dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeDS, dns.TypeHTTPS,
	dns.TypeSRV, dns.TypeANY, dns.TypeAXFR, dns.TypeCAA, 65280, dns.TypeRRSIG,
}

func fastServer(t testing.TB, d *DNSB) *fastpathtest.Server {
	t.Helper()
	return fastpathtest.New(t, testZone, d,
		func(next plugin.Handler) plugin.Handler { return &gate{next, d} },
		func(next plugin.Handler) plugin.Handler { d.Next = next; return d })
}

func TestFastPathRepliesAsTheChain(t *testing.T) {
	s := fastServer(t, fastZone(t))
	traffic := &fastpathtest.Traffic{Rand: rand.New(rand.NewPCG(1, 2)), Names: fastNames, Types: fastTypes} // #nosec G404 -- a test
	const datagrams = 150_000
	answered, families := 0, [2]int{}
	for range datagrams {
		packet, from := traffic.Next(), traffic.Address()
		ok, err := s.Compare(packet, from)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			answered++
			if from.Is4() {
				families[0]++
			} else {
				families[1]++
			}
		}
	}
	t.Logf("%d of %d datagrams answered by the fast path, %d of IPv4, %d of IPv6", answered, datagrams, families[0], families[1])
	if families[0] < 5_000 || families[1] < 5_000 {
		t.Error("Expected more to be answered by the fast path")
	}
}

func FuzzFastPathRepliesAsTheChain(f *testing.F) {
	fastpathtest.Fuzz(f, fastNames, fastTypes, fastServer(f, fastZone(f)))
}

// query returns a datagram and what the fast path makes of it.
func simpleQuery(t testing.TB, name string, qtype uint16, edit func(*dns.Msg)) *fastpath.Query {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	if edit != nil {
		edit(m)
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := new(fastpath.Query)
	if !q.Parse(packet) {
		t.Fatalf("Expected %s to be a simple query", m)
	}
	q.From = netip.MustParseAddr("10.0.0.1")
	return q
}

func TestFastPathLeavesOthersToTheChain(t *testing.T) {
	d, out := fastZone(t), make([]byte, fastpath.MaxReply)
	edns := func(do bool) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(1232, do) } }
	for _, tc := range []struct {
		name  string
		qtype uint16
		edit  func(*dns.Msg)
		want  bool
	}{
		{"www.svc." + testZone, dns.TypeA, nil, true},
		{"www.svc." + testZone, dns.TypeA, edns(true), true},
		{"www.svc." + testZone, dns.TypeTXT, nil, false},
		{"a.signed." + testZone, dns.TypeA, edns(false), true},
		{"a.signed." + testZone, dns.TypeA, edns(true), false},
		{"a.down." + testZone, dns.TypeA, nil, false}, // an Extended DNS Error
		{"none." + testZone, dns.TypeA, nil, false},
		{testZone, dns.TypeNS, nil, false},
		{"_map.svc." + testZone, dns.TypeA, nil, false},
		{"x._map.svc." + testZone, dns.TypeA, nil, false},
	} {
		if _, ok := d.Answer(simpleQuery(t, tc.name, tc.qtype, tc.edit), out); ok != tc.want {
			t.Errorf("Expected %v for %s %s, got %v", tc.want, tc.name, dns.TypeToString[tc.qtype], ok)
		}
	}
}

func TestFastPathCountsAsTheChain(t *testing.T) {
	d, out := fastZone(t), make([]byte, fastpath.MaxReply)
	q := simpleQuery(t, "www.svc."+testZone, dns.TypeA, nil)
	q.From = netip.MustParseAddr("203.0.113.1") // unmapped
	counted := func() [3]float64 {
		s := d.snapshot.Load()
		n := s.named("nyc1.lb." + testZone)
		return [3]float64{testutil.ToFloat64(n.counts[layerDefault]), testutil.ToFloat64(s.unmappedCount), float64(d.Unmapped().Counted)}
	}
	before := counted()
	q.Trial = true
	if _, ok := d.Answer(q, out); !ok || counted() != before {
		t.Errorf("Expected a trial to be answered and not to be counted, got %v, %v after %v", ok, counted(), before)
	}
	q.Trial = false
	if _, ok := d.Answer(q, out); !ok || counted() != [3]float64{before[0] + 1, before[1] + 1, before[2] + 1} {
		t.Errorf("Expected an answer to be counted once, got %v, %v after %v", ok, counted(), before)
	}
}

func TestFastPathAllocatesNothing(t *testing.T) {
	d, out := fastZone(t), make([]byte, fastpath.MaxReply)
	for _, from := range []string{"10.0.0.1", "203.0.113.1", "2001:db8:1::1"} {
		q := simpleQuery(t, "www.svc."+testZone, dns.TypeA, nil)
		q.From = netip.MustParseAddr(from)
		if n := testing.AllocsPerRun(100, func() { d.Answer(q, out) }); n > 0 {
			t.Errorf("Expected no allocation for %s, got %v", from, n)
		}
	}
}

func BenchmarkFastPath(b *testing.B) {
	from := resolvers()
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d, out := benchServer(b, n), make([]byte, fastpath.MaxReply)
			q := simpleQuery(b, "www.svc."+testZone, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q.From = from[i&0xffff]
				if _, ok := d.Answer(q, out); !ok {
					b.Fatal("Expected an answer")
				}
			}
		})
	}
}
