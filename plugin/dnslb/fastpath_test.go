package dnslb

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath/fastpathtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// fastInstances are without a zone and in front of one, for a node and without one,
// with resolvers of another node and with tied servers.
func fastInstances(t testing.TB) map[string]*DNSLB {
	t.Helper()
	tied := service4(options{answers: 2, within: 10_000_000_000}, make([]settings, 3), []float64{10, 10, 11})
	subnets := frontOfZone(t, "par1")
	tailored(subnets, nodemaptest.Table(t, map[string]string{"10.0.0.0/9": "registration=par1", "10.128.0.0/9": "operator=lon1", "2001:db8::/33": "operator=lon1"}), "lon1")
	surveyed := service4(options{answers: 2, within: 3_000_000}, []settings{{beside: "par1"}, {beside: "lon1"}, {}}, []float64{10, 20, 30})
	tailored(surveyed, nodemaptest.WithSites(t, map[string]string{"0.0.0.0/0": "default=par1", "::/0": "survey=lon1"}, map[string]string{
		"10.0.0.0/10": "par1=3 lon1=5", "10.64.0.0/10": "lon1=4 par1=30", "10.192.0.0/10": "par1=90 fra1=91", "2001:db8::/33": "lon1=1 par1=9",
	}), "lon1")
	front := surveyedFront(t)
	down := service4(options{answers: 1}, make([]settings, 2), []float64{-1, -1})
	aliases := frontOfZoneText(t, "par1", zoneText+"d IN DNAME example.net.\n")
	return map[string]*DNSLB{
		"node": example("par1", nil), "alone": example("", nil), "node in front of a zone": frontOfZone(t, "par1"), "in front of a zone": frontOfZone(t, ""),
		"tied servers": tied, "client subnets": subnets, "surveyed sites": surveyed, "surveyed sites in front of a zone": front, "all down": down, "zone with DNAME": aliases,
	}
}

var fastNames = func() (names []string) {
	for _, name := range []string{"www.", "www.", "both.", "both.", "six.", "six.", "x.wild.", "*.w.", "x.w.", "a.b.c.", "b.c.", "", "alias2.", "out.", "into.", "x.sub.", "a.sub.", "ns.sub.", "nowhere.",
		"moved.", "old.", "none.", "a.none.", "mail.", "ns1.", "_8443._https.www.", "_explain.www.", "par1._view.", "_map."} {
		names = append(names, name+testZone)
	}
	return append(names, "example.com.", ".", strings.Repeat("abcdefghi.", 20)+testZone)
}()

var fastTypes = []uint16{
	dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeHTTPS, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeDS,
	dns.TypeSVCB, dns.TypeSRV, dns.TypeANY, dns.TypeAXFR, dns.TypeCNAME, dns.TypeCAA,
}

func fastServer(t testing.TB, d *DNSLB) *fastpathtest.Server {
	t.Helper()
	backend := d.Next
	return fastpathtest.New(t, testZone, d, d.subnetGate, func(plugin.Handler) plugin.Handler { d.Next = backend; return d })
}

func TestFastPathRepliesAsTheChain(t *testing.T) {
	for name, d := range fastInstances(t) {
		t.Run(name, func(t *testing.T) {
			s := fastServer(t, d)
			traffic := &fastpathtest.Traffic{Rand: rand.New(rand.NewPCG(1, 2)), Names: fastNames, Types: fastTypes} // #nosec G404 -- a test
			const datagrams = 25_000
			families := [2]int{}
			for range datagrams {
				packet, from := traffic.Next(), traffic.Address()
				ok, err := s.Compare(packet, from)
				if err != nil {
					t.Fatal(err)
				}
				if ok && from.Is4() {
					families[0]++
				} else if ok {
					families[1]++
				}
			}
			t.Logf("of %d datagrams, %d of IPv4 and %d of IPv6 answered by the fast path", datagrams, families[0], families[1])
			if families[0] < 300 || families[1] < 300 {
				t.Error("Expected more to be answered by the fast path")
			}
		})
	}
}

func FuzzFastPathRepliesAsTheChain(f *testing.F) {
	var servers []*fastpathtest.Server
	for _, d := range fastInstances(f) {
		servers = append(servers, fastServer(f, d))
	}
	fastpathtest.Fuzz(f, fastNames, fastTypes, servers...)
}

func fastQuery(t testing.TB, name string, qtype uint16) *fastpath.Query {
	t.Helper()
	packet, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := new(fastpath.Query)
	if !q.Parse(packet) {
		t.Fatalf("Expected %s to be a simple query", name)
	}
	q.From, q.Server = netip.MustParseAddr("10.0.0.1"), "dns://:53"
	return q
}

func TestFastPathAnswersWhatItCan(t *testing.T) {
	alone, front := example("par1", nil), frontOfZone(t, "par1")
	for _, tc := range []struct {
		d     *DNSLB
		name  string
		qtype uint16
		want  bool
	}{
		{alone, "www.", dns.TypeA, true},
		{alone, "www.", dns.TypeAAAA, true},
		{alone, "www.", dns.TypeHTTPS, true}, // NODATA
		{alone, "www.", dns.TypeMX, true},
		{alone, "none.", dns.TypeA, true},
		{alone, "x.wild.", dns.TypeA, true},
		{alone, "", dns.TypeSOA, false},
		{alone, "", dns.TypeNS, false},
		{alone, "www.", dns.TypeTXT, false},
		{alone, "par1._view.", dns.TypeA, false},
		{front, "www.", dns.TypeA, true},
		{front, "www.", dns.TypeHTTPS, true},
		{front, "six.", dns.TypeHTTPS, true},
		{front, "old.", dns.TypeHTTPS, false},   // another target
		{front, "moved.", dns.TypeHTTPS, false}, // an alias
		{front, "www.", dns.TypeMX, false},
		{front, "alias.", dns.TypeHTTPS, false},
		{front, "none.", dns.TypeA, false},
		{frontOfZone(t, ""), "www.", dns.TypeHTTPS, false}, // name servers beside it
		{frontOfZoneText(t, "par1", zoneText+"d IN DNAME example.net.\n"), "www.", dns.TypeHTTPS, false},
	} {
		if _, ok := tc.d.Answer(fastQuery(t, tc.name+testZone, tc.qtype), make([]byte, fastpath.MaxReply)); ok != tc.want {
			t.Errorf("Expected %v for %s %s, got %v", tc.want, tc.name, dns.TypeToString[tc.qtype], ok)
		}
	}
}

// TestFastPathNoticesChangedZone gives the backend plugin another version of the zone,
// which the plugin answers from before the next poll.
func TestFastPathNoticesChangedZone(t *testing.T) {
	d := frontOfZone(t, "par1")
	z, err := file.Parse(strings.NewReader(strings.Replace(zoneText, "1 . alpn=h2", "1 . alpn=h3", 1)), testZone, "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	q, out := fastQuery(t, "www."+testZone, dns.TypeHTTPS), make([]byte, fastpath.MaxReply)
	if _, ok := d.Answer(q, out); !ok {
		t.Error("Expected an answer for the version that was transferred")
	}
	d.Next.(*file.File).Z[testZone] = z
	if _, ok := d.Answer(q, out); ok {
		t.Error("Expected the chain to answer from another version")
	}
	d.snapshot.Store(d.sources.snapshot())
}

// TestBasisChangesWithReplies makes each change that replies follow.
func TestBasisChangesWithReplies(t *testing.T) {
	d := frontOfZone(t, "par1")
	tailored(d, nodemaptest.Table(t, map[string]string{"10.0.0.0/9": "registration=lon1"}), "lon1")
	q := fastQuery(t, "www."+testZone, dns.TypeHTTPS)
	pool := d.snapshot.Load().names[string(q.Name)].service.a
	seen := []any{d.Basis(q)}
	if d.Basis(q) != seen[0] {
		t.Error("Expected the same basis without a change")
	}
	for _, change := range []struct {
		name string
		do   func()
	}{
		{"ranking", func() { next := *pool.answer.Load(); pool.answer.Store(&next) }},
		{"ranking for the resolvers of a principal", func() { next := slices.Clone(*pool.principalAnswers.Load()); pool.principalAnswers.Store(&next) }},
		{"ranking for sites", func() { pool.sites.Store(new(siteRanking)) }},
		{"views", func() { views := *d.state.views(); d.state.views = func() *peerview.Set { return &views } }},
		{"version of the zone", func() {
			z, err := file.Parse(strings.NewReader(zoneText), testZone, "test", 0)
			if err != nil {
				t.Fatal(err)
			}
			d.Next.(*file.File).Z[testZone] = z
		}},
		{"snapshot", func() { d.snapshot.Store(d.sources.snapshot()) }},
	} {
		change.do()
		b := d.Basis(q)
		if slices.Contains(seen, b) || b != d.Basis(q) {
			t.Errorf("%s: expected another basis", change.name)
		}
		seen = append(seen, b)
	}
}

func TestFastPathCountsAsTheChain(t *testing.T) {
	d, out := example("par1", nil), make([]byte, fastpath.MaxReply)
	for _, tc := range []struct {
		name   string
		result string
		ranked float64
	}{
		{"www.", resultRanked, 1}, {"none.", resultNXDomain, 0},
	} {
		q := fastQuery(t, tc.name+testZone, dns.TypeA)
		counted := func() [2]float64 {
			return [2]float64{testutil.ToFloat64(answers.WithLabelValues(q.Server, testZone, tc.result)), testutil.ToFloat64(ranks.WithLabelValues(testZone, "par1", "1"))}
		}
		before := counted()
		q.Trial = true
		if _, ok := d.Answer(q, out); !ok || counted() != before {
			t.Errorf("Expected a trial to be answered and not to be counted, got %v, %v after %v", ok, counted(), before)
		}
		q.Trial = false
		if _, ok := d.Answer(q, out); !ok || counted() != [2]float64{before[0] + 1, before[1] + tc.ranked} {
			t.Errorf("Expected an answer to be counted once, got %v, %v after %v", ok, counted(), before)
		}
	}
}

func BenchmarkFastPath(b *testing.B) {
	front := frontOfZone(b, "par1")
	subnets := fastInstances(b)["client subnets"]
	for _, tc := range []struct {
		name   string
		d      *DNSLB
		qtype  uint16
		subnet string
	}{
		{"www.", example("par1", nil), dns.TypeA, ""}, {"www.", front, dns.TypeA, ""}, {"www.", front, dns.TypeHTTPS, ""}, {"none.", example("par1", nil), dns.TypeA, ""},
		{"www.", subnets, dns.TypeA, ""}, {"www.", subnets, dns.TypeA, "10.200.0.0/24"}, {"www.", subnets, dns.TypeHTTPS, "10.200.0.0/24"},
	} {
		b.Run(strings.TrimSuffix(tc.name+dns.TypeToString[tc.qtype]+"/"+tc.subnet, "/"), func(b *testing.B) {
			q, out := fastQuery(b, tc.name+testZone, tc.qtype), make([]byte, fastpath.MaxReply)
			if tc.subnet != "" {
				q.Subnet = netip.MustParsePrefix(tc.subnet)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := tc.d.Answer(q, out); !ok {
					b.Fatal("Expected an answer")
				}
			}
		})
	}
}
