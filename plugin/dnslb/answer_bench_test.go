package dnslb

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar/dnsbtest"

	"github.com/miekg/dns"
)

// BenchmarkAnswer shows the plugin's work for an answer beside that of a plugin
// that answers a constant, and with a backend plugin beside that of file.
func BenchmarkAnswer(b *testing.B) {
	merging := frontOfZone(b, "par1")
	tests := []struct {
		name    string
		handler plugin.Handler
		qname   string
		qtype   uint16
	}{
		{"constant", plugin.HandlerFunc(constant), "www." + testZone, dns.TypeA},
		{"A", example("par1", nil), "www." + testZone, dns.TypeA},
		{"A_mixed_case", example("par1", nil), "WwW." + testZone, dns.TypeA},
		{"AAAA", example("par1", nil), "www." + testZone, dns.TypeAAAA},
		{"A_wildcard", example("par1", nil), "x.wild." + testZone, dns.TypeA},
		{"NODATA", example("par1", nil), "www." + testZone, dns.TypeMX},
		{"NXDOMAIN", example("par1", nil), "none." + testZone, dns.TypeA},
		{"A_behind_zone", merging, "www." + testZone, dns.TypeA},
		{"file_TXT", merging.Next, "www." + testZone, dns.TypeTXT},
		{"file_HTTPS", merging.Next, "www." + testZone, dns.TypeHTTPS},
		{"zone_TXT", merging, "www." + testZone, dns.TypeTXT},
		{"zone_CNAME_A", merging, "alias." + testZone, dns.TypeA},
		{"zone_HTTPS", merging, "www." + testZone, dns.TypeHTTPS},
	}
	// As a server has it: metrics are counted by its address.
	ctx := context.WithValue(context.Background(), dnsserver.Key{}, &dnsserver.Server{Addr: "dns://:53"})
	for _, tc := range tests {
		b.Run(tc.name, func(b *testing.B) {
			r := new(dns.Msg).SetQuestion(tc.qname, tc.qtype)
			w := &discard{}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tc.handler.ServeDNS(ctx, w, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAnswerAllocations checks that the plugin allocates no more than a constant
// answer does.
func TestAnswerAllocations(t *testing.T) {
	d := example("par1", nil)
	d.state.registrar.Configure(registrarSettings(nodeConfig(t, dnsbtest.Start(t, dnsbtest.Secret).Addr)))
	defer d.state.registrar.Close()
	for d.state.registrar.NodeName() == "" {
		time.Sleep(10 * time.Millisecond)
	}
	count := func(h plugin.Handler, qname string, qtype uint16) float64 {
		r := new(dns.Msg).SetQuestion(qname, qtype)
		return testing.AllocsPerRun(100, func() { _, _ = h.ServeDNS(context.Background(), &discard{}, r) })
	}
	least := count(plugin.HandlerFunc(constant), testZone, dns.TypeA)
	for _, tc := range []struct {
		qname string
		qtype uint16
	}{
		{"www." + testZone, dns.TypeA}, {"www." + testZone, dns.TypeMX}, {"x.wild." + testZone, dns.TypeA}, {"none.a.b.c." + testZone, dns.TypeA}, {testZone, dns.TypeSOA},
	} {
		if ours := count(d, tc.qname, tc.qtype); ours > least {
			t.Errorf("%s %s: expected %v allocations, got %v", tc.qname, dns.Type(tc.qtype), least, ours)
		}
	}
}

// constant is the least that a plugin does to answer.
func constant(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	m.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
		A:   net.IP{192, 0, 2, 1},
	}}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

type discard struct{ test.ResponseWriter }

func (*discard) WriteMsg(*dns.Msg) error { return nil }
