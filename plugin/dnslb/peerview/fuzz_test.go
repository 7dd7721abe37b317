package peerview

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

// FuzzTransferredView reads any messages as the transfer of a view. What is read
// is within the limits, can be followed, and can be sent and read again.
func FuzzTransferredView(f *testing.F) {
	now := time.Now().Truncate(time.Second)
	v := exampleView(now)
	soa := v.soa(testZone, nameserver)
	records := append(append([]dns.RR{soa}, v.records(testCut, nameserver, now)...), soa)
	apex := "par1._view." + testCut
	for _, answer := range [][]dns.RR{
		records, records[:3], {soa, soa}, append(slices.Clone(records), records...),
		{soa, newRR(f, apex+` 0 TXT "v=1 age=1e9"`), soa}, {soa, newRR(f, apex+` 0 TXT "v=1 age=3" " deputies=,,\007\255"`), newRR(f, `a\.\007.`+apex+` 0 TXT "::ffff:192.0.2.1 value=1e-320 age=0 probe=%00%ff"`), soa},
		{soa, newRR(f, apex+` 0 TXT "v=1 age=3"`), newRR(f, "_ranked."+apex+` 0 TXT "www" "~192.0.2.1" "192.0.2.1"`), soa},
		{soa, newRR(f, apex+` 0 TXT "v=1 age=3"`), newRR(f, "_ranked."+apex+` 0 TXT "." "2001:db8::1"`), newRR(f, "fra."+apex+` 0 TXT "2001:db8::1 value=300000 noise=300000 round=18446744073709551615 age=31536000 state=down x=y"`), soa},
	} {
		m := &dns.Msg{Answer: answer}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(dns.Msg)
		if m.Unpack(packet) != nil {
			return
		}
		v, err := readView(m.Answer, now)
		if err != nil {
			if !fuzztest.IsPrintable(err.Error()) {
				t.Fatalf("Expected an error that can be logged, got %q", err)
			}
			return
		}
		if v.Made.After(now) || now.Sub(v.Made) > maxAge || len(v.Targets)+len(v.Rankings) > len(m.Answer) {
			t.Fatalf("Expected a view within the limits, got %+v", v)
		}
		for target, m := range v.Targets {
			if e := m.Estimate; !target.Addr.IsValid() || target.Addr.Is4In6() || !(e.Value >= 0 && e.Value <= milliseconds(maxEstimate)) || !(e.Noise >= 0) || m.At.After(now) || !fuzztest.IsPrintable(m.Server) {
				t.Fatalf("Expected a measurement within the limits, got %v, %+v", target, m)
			}
		}
		for service, r := range v.Rankings {
			if len(r.Order) == 0 || len(r.Order) > maxRanked || slices.ContainsFunc(r.Tied, func(a netip.Addr) bool { return !slices.Contains(r.Order, a) }) {
				t.Fatalf("Expected a ranking within the limits, got %v, %+v", service, r)
			}
		}
		for _, deputy := range v.Deputies {
			if !fuzztest.IsPrintable(deputy) {
				t.Fatalf("Expected names of deputies that can be logged, got %q", v.Deputies)
			}
		}
		soa := v.soa(testZone, nameserver)
		var sent []dns.RR
		for _, rr := range append(append([]dns.RR{soa}, v.records(testCut, nameserver, now)...), soa) {
			m := &dns.Msg{Answer: []dns.RR{rr}}
			packed, err := m.Pack()
			if err != nil || m.Unpack(packed) != nil {
				t.Fatalf("Expected a record that can be sent, got %v: %v", rr, err)
			}
			sent = append(sent, m.Answer...)
		}
		again, err := readView(sent, now)
		if err != nil || again.Serial != v.Serial || len(again.Targets) != len(v.Targets) {
			t.Fatalf("Expected to read %+v again, got %+v, %v", v, again, err)
		}
	})
}

// FuzzServe sends any request for the zone of a view. Only holders of the view
// key get the view, and only they make a node follow another one.
func FuzzServe(f *testing.F) {
	for _, name := range []string{testZone, strings.ToUpper(testZone), "lon1._view." + testCut, `lon1\._view.` + testCut, "x." + testZone, `\000._view.` + testCut, "_view." + testCut} {
		for _, qtype := range []uint16{dns.TypeSOA, dns.TypeAXFR, dns.TypeIXFR, dns.TypeTXT} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			notify := new(dns.Msg).SetNotify(name)
			notify.Question[0].Qtype = qtype
			for key, m := range []*dns.Msg{m, notify} {
				packed, err := m.Pack()
				if err != nil {
					f.Fatal(err)
				}
				f.Add(packed, true, uint8(key))
				f.Add(packed, qtype == dns.TypeSOA, uint8(key+1))
			}
		}
	}
	key := dnsclient.Key{Name: "views.key.example.org.", Algorithm: dns.HmacSHA256, Secret: testSecret}
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool, signed uint8) {
		r, ok := fuzztest.Request(packet)
		if !ok || !IsViewName(strings.ToLower(r.Question[0].Name), testCut) {
			return
		}
		var lookups atomic.Int32
		s := New(func(context.Context, string) ([]netip.Addr, error) {
			lookups.Add(1)
			return nil, registrar.ErrUnknownNode
		}, noTargets)
		s.Configure(Settings{Node: "par1", Cut: testCut, Port: "53", Key: key})
		s.published.Store(exampleView(time.Now()))
		chain := &tsig.TSIGServer{Zones: []string{"."}, Next: plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			return s.Serve(ctx, w, r, nameserver)
		})}
		name := []string{"", key.Name, otherKey}[signed%3]
		if name != "" {
			r.SetTsig(name, dns.HmacSHA256, dnsclient.Fudge, time.Now().Unix())
		}
		replies := fuzztest.Ask(t, chain, r, fuzztest.ClientOf(nil, tcp))
		s.mu.Lock()
		following := len(s.fetchers)
		s.mu.Unlock()
		s.Close()
		node := strings.TrimSuffix(strings.ToLower(r.Question[0].Name), zoneOf("", testCut))
		if notified := name == key.Name && r.Opcode == dns.OpcodeNotify && node != "par1" && registration.IsLabel(node); !notified && (following > 0 || lookups.Load() > 0) {
			t.Fatalf("Expected no view to be fetched for %v, signed with %q", r, name)
		}
		for _, m := range replies {
			if len(m.Answer) > 0 && (name != key.Name || node != "par1" || m.Rcode != dns.RcodeSuccess) {
				t.Fatalf("Expected no view in reply to %v, signed with %q, got %v", r, name, m)
			}
		}
		if n := len(replies); n > 0 && r.Question[0].Qtype == dns.TypeAXFR && len(replies[0].Answer) > 0 {
			last := replies[n-1].Answer
			if replies[0].Answer[0].Header().Rrtype != dns.TypeSOA || last[len(last)-1].Header().Rrtype != dns.TypeSOA {
				t.Fatalf("Expected a transfer between SOA records, got %v", replies)
			}
		}
	})
}

func newRR(f *testing.F, text string) dns.RR {
	f.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		f.Fatal(err)
	}
	return rr
}
