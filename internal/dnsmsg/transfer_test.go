package dnsmsg

import (
	"testing"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
)

func TestServeZone(t *testing.T) {
	soa := NewSOA("_map.example.org.", "ns.example.org.", "hostmaster.example.org.", 7, 0)
	tests := []struct {
		qtype       uint16
		tcp         bool
		rcode       int
		transferred bool
	}{
		{dns.TypeSOA, false, dns.RcodeSuccess, false},
		{dns.TypeSOA, true, dns.RcodeSuccess, false},
		{dns.TypeAXFR, false, dns.RcodeRefused, false},
		{dns.TypeAXFR, true, dns.RcodeSuccess, true},
		{dns.TypeIXFR, false, dns.RcodeRefused, false},
		{dns.TypeIXFR, true, dns.RcodeSuccess, true},
		{dns.TypeTXT, true, dns.RcodeRefused, false},
	}
	for _, tc := range tests {
		w := dnstest.NewRecorder(&test.ResponseWriter{TCP: tc.tcp})
		r := new(dns.Msg).SetQuestion("_map.example.org.", tc.qtype)
		transferred := false
		if err := ServeZone(w, r, soa, func() error { transferred = true; return w.WriteMsg(new(dns.Msg).SetReply(r)) }); err != nil {
			t.Fatal(err)
		}
		if w.Msg == nil || w.Msg.Rcode != tc.rcode || transferred != tc.transferred {
			t.Errorf("Expected %s and transfer %t for %s over TCP %t, got %v, %t",
				RcodeText(tc.rcode), tc.transferred, dns.TypeToString[tc.qtype], tc.tcp, w.Msg, transferred)
		}
		isSOA := w.Msg != nil && len(w.Msg.Answer) == 1 && w.Msg.Answer[0] == dns.RR(soa) && w.Msg.Authoritative
		if want := tc.qtype == dns.TypeSOA; isSOA != want {
			t.Errorf("Expected the SOA record %t for %s, got %v", want, dns.TypeToString[tc.qtype], w.Msg)
		}
	}
}
