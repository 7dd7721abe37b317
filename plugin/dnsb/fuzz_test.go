package dnsb

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

const fuzzLines = `accept k1 par1 any for svc
accept k1 nyc1 any for svc
accept k2 mal1 10.0.0.0/8 2001:db8::/32 for mal ds
default nyc1
explain 127.0.0.0/8 10.0.0.0/8`

// fuzzServer returns an instance at which par1 and nyc1 have registered.
func fuzzServer(t testing.TB) *DNSB {
	t.Helper()
	d := started(t, fuzzLines, nil)
	par := nodeAt("par1", "192.0.2.53", "198.51.100.0/24", "10.9.0.0/16")
	par.Serial, par.Deputies = 1, []string{"nyc1"}
	registers(t, d, par)
	nyc := nodeAt("nyc1", "192.0.2.54", "203.0.113.0/24", "!203.0.113.128/25")
	nyc.Serial = 1
	registers(t, d, nyc)
	return d
}

// fuzzSeeds adds the messages that a node sends, and others.
func fuzzSeeds(f *testing.F) {
	f.Helper()
	add := func(m *dns.Msg, err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
		m.Compress = true
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	mal := nodeAt("mal1", "192.0.2.66", "10.1.0.0/16", "!10.1.2.0/24", "2001:db8:1::/48")
	mal.Cuts = []string{"mal." + testZone}
	mal.Serial, mal.Deputies, mal.Location, mal.Lease = 7, []string{"par1", "x"}, "48 51 0 N 2 21 0 E 35m", time.Hour
	add(mal.Message())
	add(mal.Withdrawal(), nil)
	for n, part := range []*registration.Registration{mal, {Zone: testZone, Node: "mal1", Serial: 7, Prefixes: mal.Prefixes}} {
		p := *part
		p.Part, p.Parts = n, 2
		add(p.Message())
	}
	other := *mal
	other.Node = "par1"
	add(other.Message())
	prerequisites, err := mal.Message()
	if err != nil {
		f.Fatal(err)
	}
	prerequisites.Answer = []dns.RR{
		&dns.ANY{Hdr: dns.RR_Header{Name: "par1.lb." + testZone, Rrtype: dns.TypeAPL, Class: dns.ClassANY}},
		&dns.A{Hdr: dns.RR_Header{Name: "par1.lb." + testZone, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{192, 0, 2, 53}},
		&dns.NS{Hdr: dns.RR_Header{Name: "svc." + testZone, Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "par1.lb." + testZone},
	}
	add(prerequisites, nil)
	add(records(0, 0), nil)
	add(records(maxPrerequisites+1, 3), nil)
	transfer := records(0, 0)
	transfer.Question[0].Qtype = dns.TypeAXFR
	add(transfer, nil)
}

// sendFuzzed sends an UPDATE through the chain, signed if there is a key.
func sendFuzzed(t *testing.T, d *DNSB, b []byte, key string) {
	t.Helper()
	m := new(dns.Msg)
	if m.Unpack(b) != nil || m.IsTsig() != nil {
		t.Skip()
	}
	m.Opcode, m.Response = dns.OpcodeUpdate, false
	if len(m.Question) == 0 {
		t.Skip() // CoreDNS has no block for it
	}
	if key != "" {
		m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	}
	w := dnstest.NewRecorder(&test.ResponseWriter{TCP: true})
	chain := &updateGate{&tsig.TSIGServer{Zones: []string{"."}, Next: d}, d.conf}
	if _, err := chain.ServeDNS(context.Background(), w, m); err != nil {
		t.Fatal(err)
	}
	if w.Msg == nil {
		t.Fatal("Expected a reply")
	}
	w.Msg.Extra = slices.DeleteFunc(w.Msg.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeTSIG })
	if _, err := w.Msg.Pack(); err != nil {
		t.Fatalf("Expected a reply that packs, got: %v", err)
	}
}

// Whoever has no key changes nothing.
func FuzzUnsignedUpdate(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := fuzzServer(t)
		before := d.registry.State()
		sendFuzzed(t, d, b, "")
		if after := d.registry.State(); !reflect.DeepEqual(before, after) {
			t.Fatalf("Expected nothing to change from %v, got %v", before, after)
		}
	})
}

// The key of one node changes that node, within its accept line, and no other. What
// it registers can be shown, transferred and stored.
func FuzzSignedUpdate(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := fuzzServer(t)
		before := d.registry.State()
		sendFuzzed(t, d, b, "k2.")
		after := d.registry.State()
		for _, node := range []string{"par1", "nyc1"} {
			if !reflect.DeepEqual(before.Records[node], after.Records[node]) {
				t.Fatalf("Expected %s to stay, got %+v", node, after.Records[node])
			}
		}
		for name, rec := range after.Records {
			if name == "par1" || name == "nyc1" {
				continue
			}
			if name != "mal1" {
				t.Fatalf("Expected no node %s", name)
			}
			checkFuzzed(t, rec)
		}
		for name, c := range d.snapshot.Load().cuts {
			for _, id := range c.nodes {
				if d.snapshot.Load().nodes[id].Node == "mal1" && name != "mal."+testZone {
					t.Fatalf("Expected mal1 not to serve %s", name)
				}
			}
		}
		for _, from := range []string{"198.51.100.1", "203.0.113.200", "10.1.2.3", "2001:db8:1::1"} {
			for _, name := range []string{"svc." + testZone, "www.mal." + testZone, "_explain.mal." + testZone} {
				ask(t, d, from, name, dns.TypeTXT)
			}
		}
		for _, rr := range transferred(t, d, 0) {
			if _, err := (&dns.Msg{Answer: []dns.RR{rr}}).Pack(); err != nil {
				t.Fatalf("Expected %v to pack, got: %v", rr, err)
			}
		}
	})
}

// checkFuzzed checks what mal1 has registered.
func checkFuzzed(t *testing.T, rec *registry.Record) {
	t.Helper()
	for _, p := range rec.Prefixes {
		if !netip.MustParsePrefix("10.0.0.0/8").Contains(p.Addr()) && !netip.MustParsePrefix("2001:db8::/32").Contains(p.Addr()) {
			t.Fatalf("Expected mal1 not to claim %s", p)
		}
	}
	for _, addr := range rec.Addresses {
		if !registration.IsNodeAddress(addr) {
			t.Fatalf("Expected the address of a host, got %s", addr)
		}
	}
	stored, err := registry.Encode(rec.Registration)
	if err != nil {
		t.Fatalf("Expected a registration that can be stored, got: %v", err)
	}
	if again, err := registry.Decode(stored); err != nil || !registry.SameContent(again, rec.Registration) {
		t.Fatalf("Expected what was stored, %+v, got %+v, %v", rec.Registration, again, err)
	}
}
