package dnslb

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

var _ cache.ZoneBypasser = (*DNSLB)(nil)

// TestSizes checks the most addresses that an answer can hold, by transport and
// size.
func TestSizes(t *testing.T) {
	var addrs []string
	for i := range maxAnswers {
		addrs = append(addrs, fmt.Sprintf("2001:db8::%x", i+1))
	}
	long := "a-name-that-is-as-long-as-a-label-may-be-with-its-63-characters."
	d := newDNSLB(config{
		Zones: []string{testZone},
		inventory: inventory{map[string]serverConfig{"all": machine(addrs...)}, []serviceConfig{
			{name: "www." + testZone, servers: labelsOf("all"), options: options{answers: maxAnswers}},
			{name: long + testZone, servers: labelsOf("all"), options: options{answers: maxAnswers}},
		}},
		ttlLow: 20, ttlHigh: 60, Node: "par1",
	}, nil)
	d.state = newBlockState()
	d.snapshot.Store(d.sources.snapshot())

	for _, tc := range []struct {
		name      string
		tcp       bool
		size      uint16 // 0: no EDNS
		truncated bool
	}{
		{"www.", false, 0, false}, // 12 + 31 + 16 * 28 = 491 bytes
		{"www.", false, 512, false},
		{"www.", true, 0, false},
		{long, false, 0, true},
		{long, false, 512, true},
		{long, false, 100, true}, // as 512 (RFC 6891, section 6.2.3)
		{long, false, 600, false},
		{long, false, 1232, false},
		{long, true, 0, false},
		{long, true, 512, false},
	} {
		r := new(dns.Msg).SetQuestion(tc.name+testZone, dns.TypeAAAA)
		if tc.size > 0 {
			r.SetEdns0(tc.size, false)
		}
		rec := dnstest.NewRecorder(&test.ResponseWriter{TCP: tc.tcp})
		if _, err := d.ServeDNS(context.Background(), request.NewScrubWriter(r, rec), r); err != nil {
			t.Fatal(err)
		}
		wire, err := rec.Msg.Pack()
		if err != nil {
			t.Fatal(err)
		}
		limit := int(max(dns.MinMsgSize, tc.size))
		if tc.tcp {
			limit = dns.MaxMsgSize
		}
		if len(wire) > limit || rec.Msg.Truncated != tc.truncated || !tc.truncated && len(rec.Msg.Answer) != maxAnswers {
			t.Errorf("%s with TCP %v and size %d: expected at most %d bytes and TC %v, got %d bytes, TC %v and %d addresses",
				tc.name, tc.tcp, tc.size, limit, tc.truncated, len(wire), rec.Msg.Truncated, len(rec.Msg.Answer))
		}
	}
}

// TestCacheBypass checks that cache keeps no answer of any of the zones.
func TestCacheBypass(t *testing.T) {
	d := newDNSLB(config{Zones: []string{"example.org.", testZone, "2.0.192.in-addr.arpa."}}, nil)
	if got := d.CacheBypassZones(); !slices.Equal(got, d.Zones) {
		t.Errorf("Expected %v, got %v", d.Zones, got)
	}
}

// TestOtherClasses checks that there is nothing but the Internet.
func TestOtherClasses(t *testing.T) {
	d := frontOfZone(t, "par1")
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassHESIOD, dns.ClassANY} {
		r := new(dns.Msg).SetQuestion("www."+testZone, dns.TypeA)
		r.Question[0].Qclass = class
		if rcode, _ := d.ServeDNS(context.Background(), dnstest.NewRecorder(&test.ResponseWriter{}), r); rcode != dns.RcodeRefused {
			t.Errorf("Class %d: expected REFUSED, got %d", class, rcode)
		}
	}
}

// TestSharedRecords checks that what a plugin above changes in an answer is not
// in the next one.
func TestSharedRecords(t *testing.T) {
	d := frontOfZone(t, "par1")
	for _, q := range []struct {
		name  string
		qtype uint16
	}{{"www.", dns.TypeA}, {"www.", dns.TypeHTTPS}, {"alias.", dns.TypeA}, {"a.b.c.", dns.TypeTXT}, {"none.www.", dns.TypeA}} {
		var before string
		for range 2 {
			r := new(dns.Msg).SetQuestion(q.name+testZone, q.qtype)
			r.Id = 1
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			if _, err := d.ServeDNS(context.Background(), w, r); err != nil {
				t.Fatal(err)
			}
			if text := w.Msg.String(); before == "" {
				before = text
			} else if before != text {
				t.Errorf("Expected the same answer again, got\n%s\nafter\n%s", text, before)
			}
			for _, rr := range slices.Concat(w.Msg.Answer, w.Msg.Ns) {
				switch rr := rr.(type) {
				case *dns.A:
					rr.Hdr.Ttl, rr.A[3] = 1, 99
				case *dns.SOA:
					rr.Hdr.Ttl = 1
				case *dns.HTTPS:
					rr.Hdr.Ttl = 1
					for _, v := range rr.Value {
						if hint, ok := v.(*dns.SVCBIPv4Hint); ok {
							hint.Hint[0] = net.IP{127, 0, 0, 1}
						}
					}
				}
			}
		}
	}
}
