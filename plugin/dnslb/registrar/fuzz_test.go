package registrar

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// FuzzReply reads any message as the replies of a DNS-B: about its zone, about
// another node and about a lease.
func FuzzReply(f *testing.F) {
	const name = "par1.lb.gslb.example.org."
	for _, text := range []string{
		"gslb.example.org. 30 SOA b1.gslb.example.org. hostmaster.gslb.example.org. 1 7200 1800 86400 60",
		". 30 SOA . . 1 7200 1800 86400 60", `\000\".example.org. 30 SOA . . 1 7200 1800 86400 60`, testZone + " 30 SOA . . 1 7200 1800 86400 60",
		name + " 60 A 192.0.2.53", name + " 60 A 0.0.0.0", name + " 60 A 224.0.0.1", name + " 60 AAAA ::ffff:192.0.2.1", name + " 60 AAAA fe80::1",
		name + " 60 APL 1:198.51.100.0/24 !1:198.51.100.128/25 2:2001:db8::/32", name + " 60 APL 1:0.0.0.0/0", name + " 60 APL",
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		for _, lease := range []uint32{0, 1, 1800, 1 << 31} {
			m := new(dns.Msg).SetQuestion(name, rr.Header().Rrtype)
			m.Response, m.Authoritative, m.Answer = true, true, []dns.RR{rr, rr}
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: lease, KeyLease: lease}}
			packed, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packed)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		r := new(dns.Msg)
		if r.Unpack(packet) != nil {
			return
		}
		zone, err := zoneOf(r, []string{testZone, "other.gslb.example.org."})
		switch {
		case err != nil && (!fuzztest.IsPrintable(err.Error()) || strings.Contains(err.Error(), "()")):
			t.Fatalf("Expected an error that can be logged, got %q", err)
		case err == nil && (!dns.IsSubDomain(zone, testZone) || zone == testZone || !r.Authoritative):
			t.Fatalf("Expected a zone above the cuts, got %q", zone)
		case err == nil && !fuzztest.IsPrintable(registration.NodeName("par1", zone)):
			t.Fatalf("Expected a name that can be logged, got %q", zone)
		}
		addrs := appendAddresses(nil, r.Answer)
		if len(addrs) > registration.MaxAddresses {
			t.Fatalf("Expected few addresses, got %v", addrs)
		}
		for i, addr := range addrs {
			if !registration.IsNodeAddress(addr) || slices.Contains(addrs[:i], addr) {
				t.Fatalf("Expected addresses of hosts, each once, got %v", addrs)
			}
		}
		if granted, ok := registration.GrantedLease(r); ok && granted > 0 {
			if after := renewal(granted); after < minRenewal || after > max(granted, minRenewal) {
				t.Fatalf("Expected the lease of %s to be renewed in time, got %s", granted, after)
			}
		}
	})
}
