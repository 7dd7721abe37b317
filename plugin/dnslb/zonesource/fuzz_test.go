package zonesource

import (
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
)

// FuzzZone reads any zone file, and any message, as what a backend plugin has.
// Names are of the zone and not of one below it, addresses are those of hosts.
func FuzzZone(f *testing.F) {
	const soa = "@ 300 SOA ns hostmaster 7 7200 1800 86400 300\n"
	for _, text := range []string{
		soa + "www A 192.0.2.1\nWWW A 192.0.2.2\nwww AAAA 2001:db8::1\n@ NS www\n@ MX 10 www\n",
		soa + "sub NS ns.sub\nns.sub A 192.0.2.3\nx.ns.sub A 192.0.2.4\nsub DS 1 13 2 00\nsub A 192.0.2.5\n",
		soa + "other A 192.0.2.1\na.other A 192.0.2.2\n. NS www\nexample.net. A 192.0.2.1\n",
		soa + "a\\.b A 0.0.0.0\n*.w A 224.0.0.1\n\\000 AAAA ::ffff:192.0.2.1\n",
		soa + "@ RRSIG A 13 2 300 20300101000000 20200101000000 1 example.org. AAAA\nwww RRSIG A 13 2 300 20300101000000 20200101000000 1 example.org. AAAA\n",
		"www A 192.0.2.1\n" + soa, "@ 0 SOA . . 0 0 0 0 0\n", soa + soa + "$GENERATE 1-3 h$ A 192.0.2.$\n",
	} {
		f.Add(text, []byte(nil))
	}
	packed, err := (&dns.Msg{Answer: []dns.RR{newRR("example.org. 300 SOA . . 7 1 1 1 1"), newRR("www.example.org. 300 A 192.0.2.1")}}).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("", packed)
	zones := plugin.Zones{zoneName, "other." + zoneName}
	f.Fuzz(func(t *testing.T, text string, packet []byte) {
		records := parsed(text, packet)
		ch := make(chan []dns.RR, 1)
		ch <- records
		close(ch)
		all, err := readTransfer(ch)
		if err != nil {
			if !fuzztest.IsPrintable(err.Error()) {
				t.Fatalf("Expected an error that can be logged, got %q", err)
			}
			return
		}
		z := newZone(zones, zoneName, all[0].(*dns.SOA), all)
		var cuts []string
		for _, rr := range records {
			if owner := strings.ToLower(rr.Header().Name); rr.Header().Rrtype == dns.TypeNS && owner != zoneName && dns.IsSubDomain(zoneName, owner) {
				cuts = append(cuts, owner)
			}
		}
		for name, n := range z.Names {
			if !dns.IsSubDomain(zoneName, name) || dns.IsSubDomain(zones[1], name) || len(n.Types) == 0 || !slices.IsSorted(n.Types) {
				t.Fatalf("Expected names of the zone with sorted types, got %q, %+v", name, n)
			}
			if slices.ContainsFunc(cuts, func(cut string) bool { return cut != name && dns.IsSubDomain(cut, name) }) {
				t.Fatalf("Expected no name below a zone cut, got %q", name)
			}
			for i, addr := range n.Addrs {
				if !dnsmsg.IsHost(addr) || slices.Contains(n.Addrs[:i], addr) {
					t.Fatalf("Expected addresses of hosts, each once, got %v", n.Addrs)
				}
			}
		}
		if !z.equal(newZone(zones, zoneName, all[0].(*dns.SOA), all)) {
			t.Fatalf("Expected the same zone again, got another than %+v", z)
		}
	})
}

// parsed returns the records of a zone file and of a message, as far as they can be
// read.
func parsed(text string, packet []byte) []dns.RR {
	var records []dns.RR
	p := dns.NewZoneParser(strings.NewReader(text), zoneName, "")
	for rr, ok := p.Next(); ok && len(records) < 1000; rr, ok = p.Next() {
		records = append(records, rr)
	}
	if m := new(dns.Msg); m.Unpack(packet) == nil {
		records = append(records, m.Answer...)
	}
	return records
}
