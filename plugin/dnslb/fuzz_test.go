package dnslb

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// FuzzQuery sends any request to a node without a zone and to one in front of
// a backend zone. Addresses of services are those of their servers, and a resolver
// is never told other name servers than those in the referral.
func FuzzQuery(f *testing.F) {
	alone, front, inner := example("par1", nil), frontOfZone(f, "par1"), frontOfZone(f, "")
	subnets := frontOfZone(f, "par1")
	tailored(subnets, nodemaptest.Table(f, map[string]string{"198.51.100.0/23": "registration=par1", "198.51.100.128/25": "pin=lon1", "2001:db8::/33": "operator=lon1", "10.0.0.0/8": "operator=lon1"}), "lon1")
	instances := []*DNSLB{alone, front, inner, subnets}
	for _, d := range instances {
		d.explainTo = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		d.watch = new(latencyprobe.Watch)
	}
	front.allDown.refuse = true
	subnet := func(family uint16, bits uint8, addr ...byte) dns.EDNS0 {
		return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: addr}
	}
	options := [][]dns.EDNS0{
		nil, {subnet(1, 24, 198, 51, 100, 0)}, {subnet(2, 48, netip.MustParseAddr("2001:db8:1::").AsSlice()...)}, {subnet(0, 0)},
		{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, subnet(1, 32, 10, 1, 2, 3), subnet(1, 8, 10, 0, 0, 0)},
	}
	n := 0
	for _, name := range []string{"www.", "WwW.", "both.", "x.wild.", "*.w.", "a.b.c.", "b.c.", "", "alias2.", "out.", "into.", "x.sub.", "a.sub.", "nowhere.", "moved.", "old.", "_sip._tcp.", "none.", "six.",
		"_explain.", "_explain.www.", `_EXPLAIN.\000\255\".`, "_explain.none.", "par1._view."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeHTTPS, dns.TypeANY, dns.TypeSOA, dns.TypeAXFR, dns.TypeNS, dns.TypeDS, dns.TypeSRV} {
			m := new(dns.Msg).SetQuestion(name+testZone, qtype)
			if n++; n%2 == 0 {
				m.SetEdns0(uint16(n*7), n%4 == 0) // #nosec G115 -- small
				m.IsEdns0().Option = options[n/2%len(options)]
			}
			if n%50 == 0 {
				m.SetNotify(name + testZone)
			}
			packed, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packed, []byte{198, 51, 100, 7}, n%3 == 0, uint8(n%len(instances))) // #nosec G115 -- small
		}
	}
	services := map[string]bool{"www." + testZone: true, "both." + testZone: true}
	servers := []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}
	f.Fuzz(func(t *testing.T, packet, address []byte, tcp bool, instance uint8) {
		r, ok := fuzztest.Request(packet)
		if !ok || r.Opcode == dns.OpcodeUpdate {
			return
		}
		d := instances[int(instance)%len(instances)]
		name, qtype := strings.ToLower(r.Question[0].Name), r.Question[0].Qtype
		client, handler := fuzztest.ClientOf(address, tcp), d.subnetGate(d)
		client.Tailored = d.clientSubnets && !dnsmsg.MalformedSubnet(r)
		for _, m := range fuzztest.Ask(t, handler, r, client) {
			if rest, ok := strings.CutPrefix(name, "_explain."); ok && qtype == dns.TypeTXT && dns.IsSubDomain(testZone, rest) && m.Rcode == dns.RcodeSuccess && r.Opcode == dns.OpcodeQuery {
				fuzztest.CheckExplanation(t, m)
				continue
			}
			for _, rr := range append(slices.Clone(m.Answer), m.Extra...) {
				if addr, ok := dnsmsg.Address(rr); ok && services[strings.ToLower(rr.Header().Name)] && !slices.Contains(servers, addr.String()) {
					t.Fatalf("Expected addresses of servers, got %v", m)
				}
			}
			soas := 0
			for _, rr := range m.Ns {
				switch rr.Header().Rrtype {
				case dns.TypeSOA:
					soas++
				case dns.TypeNS:
					if d.Node != "" && m.Rcode == dns.RcodeSuccess && strings.EqualFold(rr.Header().Name, testZone) {
						t.Fatalf("Expected no NS records of the zone that nobody asked for, got %v", m)
					}
				}
			}
			inZone := plugin.Zones(d.Zones).Matches(name) != ""
			if referral := !m.Authoritative && len(m.Ns) > 0; inZone && r.Opcode == dns.OpcodeQuery && len(m.Answer) == 0 && !referral && !m.Truncated && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) && soas != 1 {
				t.Fatalf("Expected an SOA record with a negative answer, got %v", m)
			}
		}
	})
}

// FuzzSubnet sends queries with any data of a client subnet (RFC 7871, section 6) to a
// node that answers for them. A malformed one is FORMERR. All other subnets in the
// scope of an answer get the same answer.
func FuzzSubnet(f *testing.F) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	tailored(d, nodemaptest.Table(f, map[string]string{
		"0.0.0.0/0": "default=par1", "10.0.0.0/8": "operator=lon1", "198.51.100.0/24": "registration=lon1", "198.51.100.64/26": "pin=par1", "198.18.0.0/15": "",
		"2001:db8::/32": "registration=lon1", "2001:db8:5::/48": "pin=gone",
	}), "lon1")
	for _, data := range [][]byte{
		{0, 1, 24, 0, 198, 51, 100}, {0, 1, 26, 0, 198, 51, 100, 64}, {0, 1, 20, 0, 198, 18, 0}, {0, 1, 24, 0, 10, 1, 2}, {0, 1, 0, 0}, {0, 0, 0, 0}, {0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 5, 0},
		{0, 2, 32, 0, 0x20, 1, 0xd, 0xb8}, {0, 2, 0, 0}, {0, 1, 24, 24, 198, 51, 100}, {0, 1, 20, 0, 198, 51, 100}, {0, 3, 24, 0, 1, 2, 3}, {0, 1, 33, 0, 1, 2, 3, 4, 5}, {0, 1, 24, 0, 198}, {0, 1, 24, 0, 198, 51, 100, 0}, {},
	} {
		f.Add(data, []byte{203, 0, 113, 9}, false)
	}
	ask := func(t *testing.T, r *dns.Msg, client fuzztest.Client) (addr netip.Addr, ttl uint32, subnet *dns.EDNS0_SUBNET) {
		t.Helper()
		replies := fuzztest.Ask(t, &subnetGate{d, true}, r, client)
		if len(replies) != 1 || len(replies[0].Answer) != 1 {
			t.Fatalf("Expected an address, got %v", replies)
		}
		addr, _ = dnsmsg.Address(replies[0].Answer[0])
		return addr, replies[0].Answer[0].Header().Ttl, dnsmsg.Subnet(replies[0])
	}
	f.Fuzz(func(t *testing.T, data, address []byte, tcp bool) {
		query := withSubnet("www."+testZone, dns.TypeA)
		query.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: data}}
		packet, err := query.Pack()
		if err != nil {
			return
		}
		r, ok := fuzztest.Request(packet)
		if !ok {
			return
		}
		client := fuzztest.ClientOf(address, tcp)
		asked := dnsmsg.Subnet(r)
		if dnsmsg.MalformedSubnet(r) {
			if replies := fuzztest.Ask(t, &subnetGate{d, true}, r, client); len(replies) != 0 {
				t.Fatalf("Expected FORMERR for %v, got %v", data, replies)
			}
			return
		}
		prefix := dnsmsg.SubnetPrefix(r)
		client.Tailored = true
		addr, ttl, got := ask(t, r, client)
		switch {
		case asked.SourceNetmask == 0 && got.SourceScope != 0, asked.SourceNetmask > 0 && got.SourceScope == 0:
			t.Fatalf("Expected a scope unless the length is 0, got %v", got)
		case asked.SourceNetmask == 0:
			return
		case got.SourceScope > asked.SourceNetmask && ttl > d.ttlLow:
			t.Fatalf("Expected at most TTL %d for a subnet that is shorter than its block, got %d and %v", d.ttlLow, ttl, got)
		}
		block := netip.PrefixFrom(prefix.Addr(), int(got.SourceScope)).Masked()
		for _, other := range []netip.Prefix{block, netip.PrefixFrom(last(block), block.Addr().BitLen())} {
			sibling, _, s := ask(t, withSubnet("www."+testZone, dns.TypeA, optionOf(other)), client)
			if sibling != addr || s.SourceScope != got.SourceScope {
				t.Fatalf("Expected %v with scope %d for %v, as for %v, got %v and %v", addr, got.SourceScope, other, prefix, sibling, s)
			}
		}
	})
}

// last returns the last address of a prefix.
func last(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// FuzzCorefile reads any block of dnslb. An error names a line and can be shown.
func FuzzCorefile(f *testing.F) {
	dir := f.TempDir()
	near, key, services, admin := filepath.Join(dir, "near"), filepath.Join(dir, "key"), filepath.Join(dir, "services"), filepath.Join(dir, "admin")
	for path, text := range map[string]string{
		near: "198.51.100.0/24\n", key: "key k {\nsecret c2VjcmV0c2VjcmV0c2VjcmV0;\n};\n", services: "server fra 192.0.2.1\nservice www." + testZone + " fra\n",
		admin: "drain fra until 2100-01-31T18:00:00Z reason x\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	const start = "server fra 192.0.2.1 2001:db8::1 weight 2 bias 1ms tier 2 drain\nservice www.svc.gslb.example.org fra answers 2 within 3ms probe \"\"\n"
	for _, text := range []string{
		start, start + "ttl 5s 10s\nall-down 192.0.2.99\nexplain 127.0.0.0/8\n", start + "all-down refuse\nobserve\n",
		start + "node par1 192.0.2.9\nregister 192.0.2.53 tls://[2001:db8::53]#b1.example.org\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\nnear 198.51.100.0/24 !198.51.100.0/25\nlocation 48.86 2.35\nlease 10m\nds\nview-key v\ndeputy nyc1\n",
		"services SERVICES\nadmin ADMIN\nnode par1 192.0.2.9\nregister 192.0.2.53\nkey KEY\nnear NEAR\n",
		"server \"a\nb\" 192.0.2.1\n", "service *.svc.gslb.example.org {\n}\n", "import x\n", "}\n{\n", "\"\n", "node par1 fe80::1%eth0\n", "location nan inf\nnode par1 192.0.2.9\n", "near \x00\nnode par1 192.0.2.9\n", "server fra 192.0.2.1 bias 1e999s\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.NewReplacer("SERVICES", services, "ADMIN", admin, "KEY", key, "NEAR", near).Replace(text)
		c := block(t, head+"tsig {\nsecret v c2VjcmV0c2VjcmV0c2VjcmV0\n}\ndnslb {\n}\n}\n")
		c.Dispenser = caddyfile.NewDispenser("Corefile", strings.NewReader("dnslb {\n"+text+"\n}\n"))
		conf, err := parse(c)
		if err != nil {
			fuzztest.CheckPosition(t, err, text)
			return
		}
		d := newDNSLB(conf, latencyprobe.ForServerBlock(c))
		for _, p := range d.sources.snapshot().pools {
			if len(p.answer.Load().addrs) == 0 {
				t.Fatalf("Expected each pool to have an answer, got none for %v of %q", p.services, text)
			}
		}
		if conf.Node != "" && len(conf.addresses) == 0 || conf.ttlLow < 1 || conf.ttlHigh < conf.ttlLow || conf.ttlHigh > maxTTL {
			t.Fatalf("Expected values within their bounds, got %+v", conf)
		}
	})
}

// FuzzNear reads any file of prefixes. An error names a line and can be shown.
func FuzzNear(f *testing.F) {
	for _, text := range []string{"198.51.100.0/24 !198.51.100.128/25\n2001:db8::/32 # IPv6\n", "\ufeff10.0.0.0/8\r\n", "", "#", "10.0.0.0/8\n10.0.0.1/8\n", "!!10.0.0.0/8", "::ffff:192.0.2.0/120\x1b[2J", "fe80::%eth0/64"} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "near")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list := prefixList{seen: make(map[netip.Prefix]bool)}
		err := list.addFile(path)
		prefixes := list.prefixes
		if err != nil {
			if err.Error() == "no prefix in "+path {
				return
			}
			fuzztest.CheckPosition(t, err, text)
			return
		}
		if len(prefixes) == 0 || len(prefixes) > len(text) {
			t.Fatalf("Expected some prefixes, got %v", prefixes)
		}
		for _, p := range prefixes {
			again, err := parsePrefix(p.String())
			if err != nil || again != p || p.Masked() != p.Prefix {
				t.Fatalf("Expected %s to stay itself, got %s, %v", p, again, err)
			}
		}
	})
}

// FuzzAdmin reads any admin file. Whatever overrides say, each pool has an answer.
func FuzzAdmin(f *testing.F) {
	for _, text := range []string{
		"down fra until 2099-01-31T18:00:00Z reason x\ndrain 192.0.2.2 for *.svc.gslb.example.org until 2099-01-31T18:00:00+01:00 reason slow\n",
		"up [a-z* until 2099-01-31T18:00:00Z reason z\n", "\ufeffdown * until 2099-01-31T18:00:00Z reason a b # c\r\n", "down ::ffff:192.0.2.1 until 9999-12-31T23:59:59Z reason \x1b\n",
		"down fra for \\ until 2099-01-31T18:00:00Z reason x", "move fra", "down fra until tomorrow reason x", "down until until until until reason reason reason",
	} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "admin")
	d := example("par1", nil)
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overrides, err := serveroverride.Grammar.ReadFile(path)
		if err != nil {
			fuzztest.CheckPosition(t, err, text)
			return
		}
		for _, p := range build(&d.config, d.sources.inventory(), nil, overrides).pools {
			if len(p.answer.Load().addrs) == 0 {
				t.Fatalf("Expected each pool to have an answer, got none for %v of %q", p.services, text)
			}
		}
	})
}
