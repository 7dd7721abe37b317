package dnslb

import (
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
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
		aloneUp   = "@ 30 SOA par1.lb.gslb.example.org. hostmaster." + testZone + " 7 7200 1800 86400 30"
		aloneDown = "a.sub 30 SOA par1.lb.sub." + testZone + " hostmaster." + child + " 7 7200 1800 86400 30"
	)
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
					inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + child, servers: []string{"a"}, options: options{answers: 1}}}},
				}, nil)
				d.kept = newKept()
				if tc.next != nil {
					d.Next, d.sources.behind = tc.next, []transfer.Transferer{next}
				}
				d.table.Store(d.sources.table())
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
