package dnslb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// tailored has a node answer for client subnets by the map and by views of other
// nodes, in which the first server is the slowest. m is nil if there is no map.
func tailored(d *DNSLB, m *nodemap.Table, views ...string) {
	d.clientSubnets = true
	snap, now := d.snapshot.Load(), time.Now()
	r := testRanker(d, snap, snap.observed)
	slots, all := map[string]int{d.Node: peerview.Own}, []*peerview.View{nil}
	for _, node := range views {
		v := &peerview.View{Node: node, Made: now, Targets: make(map[peerview.Target]peerview.Measurement), AllNodes: true}
		for i, target := range snap.targets {
			ms := float64(10 * (len(snap.targets) - i))
			v.Targets[peerview.Target{Addr: target.Addr}] = peerview.Measurement{Server: target.Name, Estimate: ranking.Estimate{Round: 1, RTT: ms, Value: ms}, At: now, State: latencyprobe.Up}
		}
		slots[node] = len(all)
		all = append(all, v)
		r.rankForPrincipal(slots[node], v, now)
	}
	set := peerview.NewSet(all, peerview.NewSlots(m, func(node string) int {
		if slot, ok := slots[node]; ok {
			return slot
		}
		return peerview.Outside
	}))
	d.state.views = func() *peerview.Set { return set }
	r.rankSites(set, now)
}

// optionOf returns the option for a client subnet.
func optionOf(subnet netip.Prefix) *dns.EDNS0_SUBNET {
	s := &dns.EDNS0_SUBNET{Family: 1, SourceNetmask: uint8(subnet.Bits()), Address: net.IP(subnet.Addr().AsSlice())} // #nosec G115 -- a length
	if subnet.Addr().Is6() {
		s.Family = 2
	}
	return s
}

// askFor returns the answer to a resolver for a client subnet; "": without one.
func askFor(t testing.TB, d *DNSLB, qname string, qtype uint16, from, subnet string) *dns.Msg {
	t.Helper()
	r := withSubnet(qname, qtype)
	if subnet != "" {
		r = withSubnet(qname, qtype, optionOf(netip.MustParsePrefix(subnet)))
	}
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: from})
	if _, err := d.ServeDNS(context.Background(), w, r); err != nil {
		t.Fatal(err)
	}
	return w.Msg
}

// TestAnswerForClientSubnet checks by whose view a client subnet is answered, with
// which scope and TTL. par1 has server 1 nearest, the views of others server 2.
func TestAnswerForClientSubnet(t *testing.T) {
	m := nodemaptest.Table(t, map[string]string{
		"0.0.0.0/0":        "default=par1",
		"10.0.0.0/8":       "operator=lon1",
		"100.64.0.0/10":    "operator=lon1",
		"127.0.0.0/8":      "operator=lon1",
		"198.18.0.0/15":    "", // DNS-B hashes
		"198.51.100.0/24":  "registration=lon1 default=par1",
		"198.51.100.64/26": "pin=par1",
		"203.0.113.0/24":   "registration=gone registration=nyc1 default=par1",
		"192.0.2.0/24":     "registration=gone",
		"2001:db8::/32":    "registration=lon1",
		"2001:db8:5::/48":  "pin=par1",
		"fd00::/8":         "operator=lon1",
		"64:ff9b::/96":     "operator=lon1",
	})
	const atPar, atLon = "203.0.114.1", "198.51.100.1"
	tests := []struct {
		name         string
		from, subnet string
		noMap        bool
		within       time.Duration
		want         byte // server
		scope        uint8
		ttl          uint32
	}{
		{name: "no subnet", from: atPar, want: 1, ttl: 60},
		{name: "no subnet, resolver of another node", from: atLon, want: 2, ttl: 60},
		{name: "near to another node", from: atPar, subnet: "198.51.100.0/26", want: 2, scope: 26, ttl: 60},
		{name: "a host near to another node", from: atPar, subnet: "198.51.100.200/32", want: 2, scope: 25, ttl: 60},
		{name: "near to this node", from: atLon, subnet: "198.51.100.64/26", want: 1, scope: 26, ttl: 60},
		{name: "near to this node by default", from: atLon, subnet: "20.0.0.0/8", want: 1, scope: 4, ttl: 60},
		{name: "shorter than the block", from: atPar, subnet: "198.51.100.0/24", want: 2, scope: 26, ttl: 20},
		{name: "one bit shorter", from: atPar, subnet: "198.51.100.0/25", want: 2, scope: 26, ttl: 20},
		{name: "the first node is not known", from: atPar, subnet: "203.0.113.0/24", want: 2, scope: 24, ttl: 60},
		{name: "no node is known", from: atPar, subnet: "192.0.2.0/24", want: 1, scope: 24, ttl: 20},
		{name: "no node is known, resolver of another node", from: atLon, subnet: "192.0.2.0/24", want: 2, scope: 24, ttl: 20},
		{name: "where DNS-B hashes", from: atLon, subnet: "198.18.0.0/24", want: 2, scope: 24, ttl: 20},
		{name: "where DNS-B hashes, shorter", from: atLon, subnet: "198.18.0.0/16", want: 2, scope: 24, ttl: 20},
		{name: "length 0", from: atLon, subnet: "0.0.0.0/0", want: 2, scope: 0, ttl: 60},
		{name: "length 0, IPv6", from: atLon, subnet: "::/0", want: 2, scope: 0, ttl: 60},
		{name: "private", from: atPar, subnet: "10.1.2.0/24", want: 1, scope: 8, ttl: 20},
		{name: "private, resolver of another node", from: atLon, subnet: "10.1.2.0/24", want: 2, scope: 8, ttl: 20},
		{name: "behind a carrier's NAT", from: atPar, subnet: "100.64.3.0/24", want: 1, scope: 10, ttl: 20},
		{name: "loopback", from: atPar, subnet: "127.0.0.0/24", want: 1, scope: 8, ttl: 20},
		{name: "private, like its neighbors", from: atLon, subnet: "192.168.1.0/24", want: 2, scope: 16, ttl: 20},
		{name: "not private, like its neighbors", from: atLon, subnet: "192.169.1.0/24", want: 1, scope: 16, ttl: 60},
		{name: "IPv6", from: atPar, subnet: "2001:db8:1::/56", want: 2, scope: 46, ttl: 60},
		{name: "IPv6 near to this node", from: atLon, subnet: "2001:db8:5::/56", want: 1, scope: 48, ttl: 60},
		{name: "IPv6, shorter than the block", from: atPar, subnet: "2001:db8::/32", want: 2, scope: 46, ttl: 20},
		{name: "IPv6, private", from: atPar, subnet: "fd00:1::/48", want: 1, scope: 8, ttl: 20},
		{name: "IPv6, NAT64", from: atPar, subnet: "64:ff9b::/96", want: 1, scope: 96, ttl: 20},
		{name: "IPv6, mapped", from: atPar, subnet: "::ffff:0:0/96", want: 1, scope: 48, ttl: 20},
		{name: "IPv6 without a prefix", from: atLon, subnet: "2a00::/32", want: 2, scope: 48, ttl: 20},
		{name: "no map", noMap: true, from: atLon, subnet: "198.51.100.0/24", want: 1, scope: 24, ttl: 20},
		{name: "no map, a host", noMap: true, from: atLon, subnet: "198.51.100.7/32", want: 1, scope: 24, ttl: 20},
		{name: "no map, IPv6", noMap: true, from: atLon, subnet: "2001:db8::/56", want: 1, scope: 48, ttl: 20},
		{name: "tied servers are shared by sites", within: time.Millisecond, from: atPar, subnet: "20.0.0.0/24", want: 1, scope: 24, ttl: 60},
		{name: "tied servers are shared by sites, IPv6", within: time.Millisecond, from: atPar, subnet: "2001:db8:1::/56", want: 2, scope: 48, ttl: 60},
		{name: "tied servers, longer block", within: time.Millisecond, from: atPar, subnet: "198.51.100.0/26", want: 2, scope: 26, ttl: 60},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			d := service4(options{answers: 1, within: tc.within}, make([]settings, 2), []float64{10, 20})
			if tc.noMap {
				tailored(d, nil, "lon1", "nyc1")
			} else {
				tailored(d, m, "lon1", "nyc1")
			}
			got := askFor(t, d, "www."+testZone, dns.TypeA, tc.from, tc.subnet)
			if len(got.Answer) != 1 || got.Answer[0].(*dns.A).A.To4()[3] != tc.want || got.Answer[0].Header().Ttl != tc.ttl {
				t.Errorf("Expected server %d with TTL %d, got %v", tc.want, tc.ttl, got)
			}
			s := dnsmsg.Subnet(got)
			if tc.subnet == "" {
				if s != nil {
					t.Errorf("Expected no option, got %v", s)
				}
				return
			}
			want := optionOf(netip.MustParsePrefix(tc.subnet))
			want.SourceScope = tc.scope
			if s == nil || s.Family != want.Family || s.String() != want.String() {
				t.Errorf("Expected %v, got %v", want, s)
			}
		})
	}
}

// TestScopeIsLikeTheAnswer checks of random maps that all subnets in the scope of an
// answer get the same answer with the same scope, whatever views come or go, with
// and without servers that are tied.
func TestScopeIsLikeTheAnswer(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		words := map[string]string{"0.0.0.0/0": "default=par1", "::/0": "default=lon1"}
		six := seed%4 == 3
		base, most := netip.MustParseAddr("198.48.0.0"), 32
		if six {
			base, most = netip.MustParseAddr("2001:db8::"), 56
		}
		for range rnd.IntN(60) {
			bits := 12 + rnd.IntN(16)
			if six {
				bits += 20
			}
			words[netip.PrefixFrom(randomIn(rnd, base, 12, most), bits).Masked().String()] = []string{"", "pin=par1", "operator=lon1", "registration=nyc1 default=lon1", "registration=gone", "survey=nyc1 default=lon1"}[rnd.IntN(6)]
		}
		sites := make(map[string]string)
		for range rnd.IntN(60) {
			addr := randomIn(rnd, base, 12, most)
			sites[resolver.SiteOf(addr).Prefix().String()] = []string{"par1=10 nyc1=20", "nyc1=10 par1=20", "gone=5 lon1=7", "lon1=1", "other=3"}[rnd.IntN(5)]
		}
		o := options{answers: 1}
		if seed%2 == 1 {
			o.within = 100 * time.Millisecond // all are tied
		}
		d := service4(o, []settings{{beside: "par1"}, {}, {beside: "nyc1"}}, []float64{10, 20, 30})
		m := nodemaptest.WithSites(t, words, sites)
		tailored(d, m, "lon1", "nyc1")
		scopes := make(map[netip.Prefix]uint8)
		for range 50 {
			addr := randomIn(rnd, base, 12, most)
			answer := askFor(t, d, "www."+testZone, dns.TypeA, "203.0.113.9", netip.PrefixFrom(addr, addr.BitLen()).String())
			scope := dnsmsg.Subnet(answer).SourceScope
			block := netip.PrefixFrom(addr, int(scope)).Masked()
			if scope == 0 {
				t.Fatalf("Seed %d: expected a scope, got %v", seed, answer)
			}
			for other := range scopes {
				if other != block && other.Overlaps(block) {
					t.Fatalf("Seed %d: scopes %s and %s overlap", seed, block, other)
				}
			}
			scopes[block] = scope
			for range 10 {
				other := randomIn(rnd, block.Addr(), block.Bits(), addr.BitLen())
				got := askFor(t, d, "www."+testZone, dns.TypeA, "203.0.113.9", netip.PrefixFrom(other, other.BitLen()).String())
				if dnsmsg.Subnet(got).SourceScope != scope || got.Answer[0].String() != answer.Answer[0].String() {
					t.Fatalf("Seed %d: expected for %s, in the scope %s of %s,\n%v\ngot\n%v", seed, other, block, addr, answer, got)
				}
			}
		}
		tailored(d, m, "nyc1") // lon1 has died
		for block, scope := range scopes {
			got := askFor(t, d, "www."+testZone, dns.TypeA, "203.0.113.9", netip.PrefixFrom(block.Addr(), block.Addr().BitLen()).String())
			if dnsmsg.Subnet(got).SourceScope != scope {
				t.Fatalf("Seed %d: expected scope %d after a death, got %v", seed, scope, got)
			}
		}
	}
}

// randomIn returns an address with the first bits of another one, and zeros after
// most bits.
func randomIn(rnd *rand.Rand, base netip.Addr, bits, most int) netip.Addr {
	b := base.AsSlice()
	for i := bits; i < most; i++ {
		if rnd.IntN(2) == 1 {
			b[i/8] |= 0x80 >> (i % 8)
		} else {
			b[i/8] &^= 0x80 >> (i % 8)
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// TestScopeOfMergedAnswers checks the scopes of answers of one zone made of services
// and of a backend zone: those with addresses or hints of services have the scope of
// these, all others have 0.
func TestScopeOfMergedAnswers(t *testing.T) {
	m := nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=lon1", "203.0.113.0/24": "registration=par1"})
	const nearLon, fra, iad = "198.51.100.0/24", "192.0.2.1", "192.0.2.2"
	for _, tc := range []struct {
		name, qtype string
		scope       uint8
		rcode       int
		contains    string // in the answer for the subnet; "": nothing of a service
		contains2   string // without a subnet
	}{
		{"www.", "A", 24, dns.RcodeSuccess, iad, fra},
		{"alias2.", "A", 24, dns.RcodeSuccess, iad, fra},
		{"www.", "HTTPS", 24, dns.RcodeSuccess, `ipv4hint="` + iad + `"`, `ipv4hint="` + fra + `"`},
		{"old.", "HTTPS", 24, dns.RcodeSuccess, `ipv4hint="` + iad + `"`, `ipv4hint="` + fra + `"`},
		{"_8443._https.www.", "SVCB", 24, dns.RcodeSuccess, `ipv4hint="` + iad + `"`, `ipv4hint="` + fra + `"`},
		{"", "MX", 24, dns.RcodeSuccess, "\tA\t" + iad, "\tA\t" + fra},
		{"_sip._tcp.", "SRV", 24, dns.RcodeSuccess, "\tA\t" + iad, "\tA\t" + fra},
		{"www.", "TXT", 0, dns.RcodeSuccess, "", ""},
		{"mail.", "A", 0, dns.RcodeSuccess, "", ""},
		{"moved.", "HTTPS", 24, dns.RcodeSuccess, "\tA\t" + iad, "\tA\t" + fra},
		{"a.b.c.", "AAAA", 0, dns.RcodeSuccess, "", ""},
		{"b.c.", "A", 0, dns.RcodeSuccess, "", ""},
		{"none.www.", "A", 0, dns.RcodeNameError, "", ""},
		{"", "SOA", 0, dns.RcodeSuccess, "", ""},
		{"", "NS", 0, dns.RcodeSuccess, "", ""},
		{"", "DS", 0, dns.RcodeSuccess, "", ""},
		{"", "DNSKEY", 0, dns.RcodeSuccess, "", ""},
		{"www.", "ANY", 0, dns.RcodeSuccess, "", ""},
		{"y.sub.", "A", 0, dns.RcodeSuccess, "", ""},
	} {
		t.Run(tc.name+" "+tc.qtype, func(t *testing.T) {
			d := frontOfZone(t, "par1")
			snap := d.snapshot.Load()
			for i := range snap.targets {
				ms := float64(10 * (i + 1))
				snap.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: 1, RTT: ms, Value: ms}}
			}
			tailored(d, m, "lon1")
			qname, qtype := tc.name+testZone, dns.StringToType[tc.qtype]
			got := askFor(t, d, qname, qtype, "203.0.113.1", nearLon)
			if s := dnsmsg.Subnet(got); s == nil || s.SourceScope != tc.scope || got.Rcode != tc.rcode {
				t.Errorf("Expected scope %d and RCODE %d, got %v", tc.scope, tc.rcode, got)
			}
			without := askFor(t, d, qname, qtype, "203.0.113.1", "")
			if !strings.Contains(got.String(), tc.contains) || !strings.Contains(without.String(), tc.contains2) || strings.Contains(without.String(), tc.contains) && tc.contains != "" {
				t.Errorf("Expected %s in\n%v\nand %s in\n%v", tc.contains, got, tc.contains2, without)
			}
			if tc.scope == 0 {
				records := func(m *dns.Msg) []string {
					return texts(slices.DeleteFunc(slices.Concat(m.Answer, m.Ns, m.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT }))
				}
				if a, b := records(got), records(without); !slices.Equal(a, b) {
					t.Errorf("Expected the same for all clients, got %v and %v", a, b)
				}
			}
		})
	}
}

// TestScopeWhenAllDown checks that a service without servers that are up is answered
// alike for all clients if the answer is negative.
func TestScopeWhenAllDown(t *testing.T) {
	m := nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=lon1"})
	for _, tc := range []struct {
		name    string
		allDown allDown
		qtype   uint16
		scope   uint8
		rcode   int
	}{
		{"last ranking", allDown{}, dns.TypeA, 24, dns.RcodeSuccess},
		{"an address", allDown{addrs: []netip.Addr{addr("192.0.2.99")}}, dns.TypeA, 24, dns.RcodeSuccess},
		{"an address of the other family", allDown{addrs: []netip.Addr{addr("2001:db8::99")}}, dns.TypeA, 0, dns.RcodeSuccess},
		{"refused", allDown{refuse: true}, dns.TypeA, 0, dns.RcodeRefused},
		{"no server of the family", allDown{}, dns.TypeAAAA, 0, dns.RcodeSuccess},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := service4(options{answers: 1}, make([]settings, 2), []float64{-1, -1})
			d.allDown = tc.allDown
			tailored(d, m, "lon1")
			got := askFor(t, d, "www."+testZone, tc.qtype, "203.0.113.1", "198.51.100.0/24")
			if s := dnsmsg.Subnet(got); s == nil || s.SourceScope != tc.scope || got.Rcode != tc.rcode {
				t.Errorf("Expected scope %d and RCODE %d, got %v", tc.scope, tc.rcode, got)
			}
		})
	}
}

// TestServiceWithoutView checks that a service that the node near to a subnet cannot
// rank is answered by the source address.
func TestServiceWithoutView(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	tailored(d, nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=lon1", "203.0.113.0/24": "registration=nyc1"}), "lon1", "nyc1")
	d.snapshot.Load().pools[0].setPrincipalAnswer(1, nil)
	got := askFor(t, d, "www."+testZone, dns.TypeA, "203.0.113.1", "198.51.100.0/24")
	if a := got.Answer[0].(*dns.A); a.A.To4()[3] != 2 || a.Hdr.Ttl != 20 || dnsmsg.Subnet(got).SourceScope != 24 {
		t.Errorf("Expected server 2 by the view of nyc1, with TTL 20 and scope 24, got %v", got)
	}
}

// TestSubnetsAreCounted checks that answers for a subnet are counted as such, and
// those by the source address by it.
func TestSubnetsAreCounted(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	tailored(d, nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=lon1", "203.0.113.0/24": "registration=par1"}), "lon1")
	for _, tc := range []struct{ subnet, place string }{
		{"198.51.100.0/24", "subnet"}, {"203.0.113.0/24", "subnet"}, {"10.0.0.0/24", "own"}, {"0.0.0.0/0", "own"}, {"", "own"},
	} {
		counter := queries.WithLabelValues(testZone, "par1", tc.place)
		before := testutil.ToFloat64(counter)
		askFor(t, d, "www."+testZone, dns.TypeA, "203.0.113.1", tc.subnet)
		if got := testutil.ToFloat64(counter) - before; got != 1 {
			t.Errorf("Expected one more query of %s for %q, got %v", tc.place, tc.subnet, got)
		}
	}
}

// TestExplainSubnet checks what an explanation tells of a client subnet.
func TestExplainSubnet(t *testing.T) {
	m := nodemaptest.Table(t, map[string]string{
		"198.51.100.0/24": "registration=lon1 default=par1", "198.18.0.0/15": "", "192.0.2.0/24": "operator=gone", "203.0.113.0/24": "pin=par1",
	})
	const question = "_explain.www." + testZone
	for _, tc := range []struct {
		subnet string
		noMap  bool
		want   []string
	}{
		{"198.51.100.0/25", false, []string{
			"www.svc.gslb.example.org. A for client subnet 198.51.100.0/25 at resolver 203.0.113.9: 192.0.2.2, TTL 60",
			"answered by the client subnet, with scope 24: its node is lon1, by layer registration",
			"measured by lon1, in its view of 0s ago, rule margin, answers 1", "map of DNS-B for 198.51.100.0/24: lon1 (registration), par1 (default)",
		}},
		{"203.0.113.0/24", false, []string{"A for client subnet 203.0.113.0/24 at resolver 203.0.113.9: 192.0.2.1, TTL 60", "answered by the client subnet, with scope 24: its node is par1, by layer pin", "measured by par1, rule "}},
		{"10.0.0.0/8", false, []string{": 192.0.2.1, TTL 20", "answered by the address of the resolver, with scope 24, and not by the client subnet: it is private"}},
		{"192.0.2.0/24", false, []string{"with scope 24, and not by the client subnet: of the nodes that the map names for it, none has a view with servers that are up"}},
		{"198.18.0.0/24", false, []string{"and not by the client subnet: the map names no node for it"}},
		{"198.51.100.0/25", true, []string{"and not by the client subnet: there is no map from a DNS-B yet"}},
		{"0.0.0.0/0", false, []string{"www.svc.gslb.example.org. A for 203.0.113.9: 192.0.2.1, TTL 60"}},
		{"", false, []string{"www.svc.gslb.example.org. A for 203.0.113.9: 192.0.2.1, TTL 60"}},
	} {
		t.Run(fmt.Sprintf("%s map %v", tc.subnet, !tc.noMap), func(t *testing.T) {
			d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
			d.explainTo, d.watch = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, new(latencyprobe.Watch)
			if tc.noMap {
				tailored(d, nil, "lon1")
			} else {
				tailored(d, m, "lon1")
			}
			got := told(askFor(t, d, question, dns.TypeTXT, "203.0.113.9", tc.subnet))
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("Expected %q in\n%s", want, got)
				}
			}
			// What is explained is the answer.
			answer := askFor(t, d, "www."+testZone, dns.TypeA, "203.0.113.9", tc.subnet)
			subnet, _ := netip.ParsePrefix(tc.subnet)
			e, err := d.ExplainSubnet("www."+testZone, dns.TypeA, addr("203.0.113.9"), subnet)
			if err != nil {
				t.Fatal(err)
			}
			scope := uint8(0)
			if s := dnsmsg.Subnet(answer); s != nil {
				scope = s.SourceScope
			}
			if a, _ := dnsmsg.Address(answer.Answer[0]); !slices.Equal(e.Answer.Addresses, []netip.Addr{a}) || e.Answer.TTL != answer.Answer[0].Header().Ttl || e.Scope != int(scope) {
				t.Errorf("Expected %v, got %+v", answer, e)
			}
		})
	}
}

// largeMap returns a map of n prefixes near to 40 nodes, n000 being this one.
func largeMap(tb testing.TB, n int) (m *nodemap.Table, nodes []string) {
	tb.Helper()
	for i := range 40 {
		nodes = append(nodes, fmt.Sprintf("n%03d", i))
	}
	lists := make(map[netip.Prefix]nodemap.List, n)
	for i := range n {
		addr := netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0})
		lists[netip.PrefixFrom(addr, 24)] = nodemaptest.List("registration="+nodes[i*7%39], "default="+nodes[39])
	}
	m, err := nodemaptest.Read(tb, testZone, nodemap.NewLists(nodemaptest.InOrder(lists)), nodes...)
	if err != nil {
		tb.Fatal(err)
	}
	return m, nodes
}

// resolverWriter is the writer of a query over UDP, whose answer is dropped.
type resolverWriter struct {
	discard
	addr *net.UDPAddr
}

// RemoteAddr implements the dns.ResponseWriter interface.
func (w *resolverWriter) RemoteAddr() net.Addr { return w.addr }

// BenchmarkSubnet shows the work for an answer to a query with a client subnet:
// without 'client-subnets', and with it, at 100,000 prefixes and 40 views.
func BenchmarkSubnet(b *testing.B) {
	m, nodes := largeMap(b, 100_000)
	for _, tailor := range []bool{false, true} {
		for _, within := range []time.Duration{0, time.Second} {
			d := service4(options{answers: 1, within: within}, make([]settings, 8), []float64{10, 20, 30, 40, 50, 60, 70, 80})
			d.Node = nodes[0]
			tailored(d, m, nodes[1:]...)
			d.clientSubnets = tailor
			var h plugin.Handler = d
			if tailor {
				h = &subnetGate{d, true}
			}
			b.Run(fmt.Sprintf("tailored=%v/tied=%v", tailor, within > 0), func(b *testing.B) {
				queries := make([]*dns.Msg, 1024)
				for i := range queries {
					queries[i] = withSubnet("www."+testZone, dns.TypeA, optionOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i * 7), byte(i * 11), 0}), 24)))
				}
				w := &resolverWriter{addr: &net.UDPAddr{IP: net.IP{203, 0, 113, 9}, Port: 53}}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := h.ServeDNS(context.Background(), w, queries[i%len(queries)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestSubnetAllocations checks that an answer for a client subnet takes one
// allocation more than one with an option that does not count: the writer of the gate.
func TestSubnetAllocations(t *testing.T) {
	m, nodes := largeMap(t, 1000)
	d := service4(options{answers: 1}, make([]settings, 3), []float64{10, 20, 30})
	d.Node = nodes[0]
	tailored(d, m, nodes[1:]...)
	r := withSubnet("www."+testZone, dns.TypeA, optionOf(netip.MustParsePrefix("20.0.7.0/24")))
	w := &resolverWriter{addr: &net.UDPAddr{IP: net.IP{203, 0, 113, 9}, Port: 53}}
	count := func(h plugin.Handler) float64 {
		return testing.AllocsPerRun(100, func() { _, _ = h.ServeDNS(context.Background(), w, r) })
	}
	got := count(&subnetGate{d, true})
	d.clientSubnets = false
	if want := count(d) + 1; got > want {
		t.Errorf("Expected %v allocations, got %v", want, got)
	}
}
