package dnslb

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// withSubnet returns a query with a client subnet.
func withSubnet(qname string, qtype uint16, subnets ...*dns.EDNS0_SUBNET) *dns.Msg {
	r := new(dns.Msg).SetQuestion(qname, qtype)
	r.SetEdns0(1232, false)
	for _, s := range subnets {
		s.Code = dns.EDNS0SUBNET
		r.IsEdns0().Option = append(r.IsEdns0().Option, s)
	}
	return r
}

// TestGateGivesSubnet checks that each answer has the subnet of its query, whoever
// makes it.
func TestGateGivesSubnet(t *testing.T) {
	failed := errors.New("failed")
	replying := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetReply(r))
	})
	code := func(rcode int, err error) plugin.Handler {
		return plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return rcode, err })
	}
	forgetting := plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		r.IsEdns0().Option = nil // as plugins may do
		return replying(ctx, w, r)
	})
	zone := testZone
	key := signing(t, example("par1", nil), []string{zone}, 257)
	for _, tc := range []struct {
		name  string
		next  plugin.Handler
		qtype uint16
		rcode int
		err   error
	}{
		{"a reply without an OPT record", replying, dns.TypeA, dns.RcodeSuccess, nil},
		{"a plugin that changes the query", forgetting, dns.TypeA, dns.RcodeSuccess, nil},
		{"SERVFAIL", code(dns.RcodeServerFailure, failed), dns.TypeA, dns.RcodeServerFailure, failed},
		{"REFUSED", code(dns.RcodeRefused, nil), dns.TypeA, dns.RcodeRefused, nil},
		{"DNSKEY records of dnssec", key, dns.TypeDNSKEY, dns.RcodeSuccess, nil},
		{"addresses through dnssec", key, dns.TypeA, dns.RcodeSuccess, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, subnet := range []dns.EDNS0_SUBNET{
				{Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}},
				{Family: 2, SourceNetmask: 48, Address: net.ParseIP("2001:db8:1::")},
				{Family: 1, Address: net.IP{0, 0, 0, 0}},
				{Family: 0, Address: net.IP{}},
			} {
				r := withSubnet(zone, tc.qtype, &subnet)
				if tc.qtype == dns.TypeA {
					r.Question[0].Name = "www." + zone
				}
				want := *dnsmsg.Subnet(r)
				w := dnstest.NewRecorder(&test.ResponseWriter{})
				rcode, err := (&subnetGate{tc.next, true}).ServeDNS(context.Background(), request.NewScrubWriter(r, w), r)
				if rcode != dns.RcodeSuccess || !errors.Is(err, tc.err) || w.Msg == nil || w.Msg.Rcode != tc.rcode {
					t.Fatalf("Expected an answer with RCODE %d and error %v, got %d, %v, %v", tc.rcode, tc.err, rcode, err, w.Msg)
				}
				if got := dnsmsg.Subnet(w.Msg); got == nil || got.String() != want.String() || got.Family != want.Family {
					t.Errorf("Expected %v, got %v", &want, w.Msg)
				}
			}
		})
	}

	t.Run("no subnet", func(t *testing.T) {
		r := new(dns.Msg).SetQuestion("www."+zone, dns.TypeA)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := (&subnetGate{replying, true}).ServeDNS(context.Background(), w, r); err != nil || w.Msg.IsEdns0() != nil {
			t.Errorf("Expected an answer without the option, got %v, %v", err, w.Msg)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		r := withSubnet(zone, dns.TypeDNSKEY, &dns.EDNS0_SUBNET{Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 7}})
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if rcode, _ := (&subnetGate{key, true}).ServeDNS(context.Background(), w, r); rcode != dns.RcodeFormatError || w.Msg != nil {
			t.Errorf("Expected FORMERR, got %d, %v", rcode, w.Msg)
		}
	})
}
