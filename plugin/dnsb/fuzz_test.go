package dnsb

import (
	"context"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/tsig"

	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb/geodbtest"
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
	chain := &gate{&tsig.TSIGServer{Zones: []string{"."}, Next: d}, d}
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

// fuzzQueries adds queries, with and without EDNS options.
func fuzzQueries(f *testing.F, add func(packet []byte), names []string, types ...uint16) {
	f.Helper()
	subnet := func(family uint16, bits uint8, addr ...byte) dns.EDNS0 {
		return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: addr}
	}
	options := [][]dns.EDNS0{
		nil, {subnet(1, 24, 198, 51, 100, 0)}, {subnet(2, 48, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)}, {subnet(0, 0)},
		{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, subnet(1, 32, 10, 1, 2, 3), subnet(1, 8, 10, 0, 0, 0)},
	}
	n := 0
	for _, name := range names {
		for _, qtype := range types {
			m := new(dns.Msg).SetQuestion(name, qtype)
			if n++; n%2 == 0 {
				m.SetEdns0(uint16(n*97), n%4 == 0) // #nosec G115 -- small
				m.IsEdns0().Option = options[n/2%len(options)]
			}
			packet, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			add(packet)
		}
	}
}

// Any query gets a reply that its client can read, and changes nothing.
func FuzzQuery(f *testing.F) {
	names := []string{
		"www.svc." + testZone, "SVC." + testZone, testZone, "par1.lb." + testZone, "0.par1.lb." + testZone, "b1." + testZone, "none." + testZone, "lb." + testZone,
		"_explain." + testZone, "_explain.www.svc." + testZone, "nodes._explain." + testZone, "unmapped._explain." + testZone, "overlaps._explain." + testZone,
		`_explain.\000\255\".svc.` + testZone, "example.net.",
	}
	add := func(packet []byte) {
		f.Add(packet, []byte{198, 51, 100, 7}, false)
		f.Add(packet, netip.MustParseAddr("2001:db8:1::7").AsSlice(), true)
	}
	fuzzQueries(f, add, names, dns.TypeA, dns.TypeTXT, dns.TypeNS, dns.TypeDS, dns.TypeAPL, dns.TypeANY, dns.TypeSOA, dns.TypeAXFR, dns.TypeLOC)
	d := started(f, "accept k1 par1 any for svc\naccept k1 nyc1 any for svc\nexplain 0.0.0.0/0 ::/0", nil)
	par := largeNode(9000)
	par.Deputies = []string{"nyc1", `x"\\`}
	registers(f, d, par)
	registers(f, d, nodeAt("nyc1", "192.0.2.54", "198.51.100.0/24", "!198.51.100.128/25", "2001:db8::/32"))
	before := d.registry.State()
	f.Fuzz(func(t *testing.T, packet, address []byte, tcp bool) {
		r, ok := fuzztest.Request(packet)
		if !ok || r.Opcode == dns.OpcodeUpdate {
			return
		}
		name, qtype := strings.ToLower(r.Question[0].Name), r.Question[0].Qtype
		from := fuzztest.ClientOf(address, tcp)
		for _, m := range fuzztest.Ask(t, d, r, from) {
			if _, _, ok := d.conf.explained(name); ok && qtype == dns.TypeTXT && m.Rcode == dns.RcodeSuccess {
				fuzztest.CheckExplanation(t, m)
			}
			switch referral := !m.Authoritative && len(m.Ns) > 0; {
			case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError || m.Truncated:
			case referral && (len(m.Answer) > 0 || len(m.Extra) == 0):
				t.Fatalf("Expected a referral with addresses and no answer, got %v", m)
			case referral: // RFC 1035: the names are at or below the cut that is delegated
				for _, rr := range m.Ns {
					if rr.Header().Rrtype == dns.TypeNS && !dns.IsSubDomain(strings.ToLower(rr.Header().Name), name) {
						t.Fatalf("Expected a referral for %s, got %v", name, m)
					}
				}
			case !m.Authoritative:
				t.Fatalf("Expected a referral or an authoritative answer, got %v", m)
			case len(m.Answer) == 0 && len(m.Ns) != 1: // RFC 2308
				t.Fatalf("Expected an SOA record with a negative answer, got %v", m)
			}
		}
		if d.registry.Serial() != before.Serial {
			t.Fatal("Expected a query to change nothing")
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

// FuzzCorefile reads any block of dnsb. An error names a line and can be shown; what
// is accepted can be served.
func FuzzCorefile(f *testing.F) {
	dir := f.TempDir()
	mapFile, admin, database := filepath.Join(dir, "map"), filepath.Join(dir, "admin"), filepath.Join(dir, "db.mmdb")
	writeMap(f, mapFile, "198.51.100.0/24 par1 !nyc1\nasn AS64500 nyc1\n")
	writeMap(f, admin, "drain par1 until 2099-01-31T18:00:00Z reason x\n")
	writeDatabase(f, database, "GeoLite2-ASN", map[string]mmdbtype.Map{"10.0.0.0/8": geodbtest.AS(64500)})
	const start = "ns b1 192.0.2.1 2001:db8::1\n"
	for _, text := range []string{
		start, start + "accept k1 par1 any for svc ds\nnode nyc1 192.0.2.4 location 1 2 deputy par1\ncut c nyc1\nprefix 10.0.0.0/8 !nyc1 par1\nlease 1m 2h\nttl 30s\nexplain ::/0 0.0.0.0/0\nupdate-from 192.0.2.0/24\n",
		start + "node par1 192.0.2.53\nnode nyc1 192.0.2.54 2001:db8::54\ncut svc par1 nyc1\nmap MAP\nmmdb MMDB\ndefault nyc1 par1\nasn AS64501 par1\nadmin ADMIN\n",
		start + "node par1 192.0.2.53\ncut svc par1\nds svc 1 13 2 C0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DEC0DE\n",
		start + "store etcd http://192.0.2.7:2379 user dnsb secret\n", start + "store db db\nexport map.out\n", start + "country FR a\ncontinent EU a\nmmdb MMDB\nnode a 192.0.2.5\n",
		start + "}\ndnsb {\n", start + "\x00 \x1b[2J\n", start + "node a fe80::1%eth0\n", start + "node a 192.0.2.5 location nan inf\n", "ns b1.x 192.0.2.1\nnode a 192.0.2.5\ncut *.x a\n", "ns \\.b1 192.0.2.1\n", start + "ttl 1e9h\n", "{\n", "\"\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.NewReplacer("MAP", mapFile, "ADMIN", admin, "MMDB", database).Replace(text)
		d, err := parse(controller("dnsb {\n" + text + "\n}"))
		if err != nil {
			fuzztest.CheckPosition(t, err, text)
			return
		}
		z := newZone(testZone)
		if err := d.resolvers.check(&z.sizes, d.conf); err != nil {
			return
		}
		d.conf.export = "" // where it says
		d.start(z)
		defer func() { d.close(); z.registry.Close() }()
		for name := range d.snapshot.Load().cuts {
			for _, from := range []string{"198.51.100.1", "10.1.2.3", "2001:db8:1::1"} {
				askOverUDP(t, d, from, "www."+name, dns.TypeA)
				askOverUDP(t, d, from, "_explain."+name, dns.TypeTXT)
			}
		}
		for _, rr := range transferred(t, d, 0) {
			if _, err := (&dns.Msg{Answer: []dns.RR{rr}}).Pack(); err != nil {
				t.Fatalf("Expected %v to pack, got: %v", rr, err)
			}
		}
	})
}

// askOverUDP asks a question and checks the replies, if the name fits into one.
func askOverUDP(t *testing.T, d *DNSB, from, name string, qtype uint16) {
	t.Helper()
	packed, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		return
	}
	r, ok := fuzztest.Request(packed)
	if !ok {
		t.Fatalf("Expected a question for %s", name)
	}
	fuzztest.Ask(t, d, r, fuzztest.Client{Addr: netip.MustParseAddr(from)})
}

// FuzzAdmin reads any admin file. Whatever overrides say, resolvers get a referral,
// and its explanation can be shown.
func FuzzAdmin(f *testing.F) {
	for _, text := range []string{
		"drain par1 until 2099-01-31T18:00:00Z reason x\npin 10.0.0.0/8 nyc1 par1 until 2099-01-31T18:00:00Z reason y z\nforget nyc1 until 2099-01-31T18:00:00+01:00 reason q\n",
		"\ufeffdrain nyc1 until 9999-12-31T23:59:59Z reason a\x1b[2J # c\r\n", "drain x until 2099-01-31T18:00:00Z reason x", "pin 10.0.0.1/8 par1 until 2099-01-31T18:00:00Z reason x",
		"pin 0.0.0.0/0 par1 until 2099-01-31T18:00:00Z reason x\npin 0.0.0.0/0 nyc1 until 2099-01-31T18:00:00Z reason \"\\", "drain until until until", "drain par1 until tomorrow reason x",
	} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "admin")
	d := started(f, "node par1 192.0.2.53\nnode nyc1 192.0.2.54\ncut svc par1 nyc1\nexplain 0.0.0.0/0 ::/0", nil)
	f.Fuzz(func(t *testing.T, text string) {
		writeMap(t, path, text)
		all, err := overrideGrammar(d.conf).ReadFile(path)
		if err != nil {
			fuzztest.CheckPosition(t, err, text)
			return
		}
		d.mu.Lock()
		d.active = all
		d.mu.Unlock()
		d.refresh()
		for _, from := range []string{"198.51.100.1", "10.0.0.1", "2001:db8::1"} {
			r := new(dns.Msg).SetQuestion("_explain.svc."+testZone, dns.TypeTXT)
			for _, m := range fuzztest.Ask(t, d, r, fuzztest.Client{Addr: netip.MustParseAddr(from), TCP: true}) {
				fuzztest.CheckExplanation(t, m)
			}
			if node := referredTo(t, d, from); node != "par1" && node != "nyc1" {
				t.Fatalf("Expected a referral in spite of %q, got %q", text, node)
			}
		}
	})
}
