//go:build unix

package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// moreRecords are those of a zone behind, alike in that of the reference.
const moreRecords = `
@        IN MX    10 www
@        IN MX    20 mail
@        IN TXT   "the apex"
mail     IN A     192.0.2.101
mail     IN A     192.0.2.102
www      IN TXT   "of the zone"
www      IN CAA   0 issue "ca.example.net"
x.w      IN MX    10 mail
*.w      IN TXT   "wildcard"
_sip._tcp IN SRV  0 0 5060 www
_443._tcp IN SRV  0 0 443 outside.example.net.
alias    IN CNAME www
alias2   IN CNAME alias
ghost    IN CNAME a.b.c
lost     IN CNAME mail
gone     IN CNAME none.b.c
out      IN CNAME www.example.net.
into     IN CNAME y.sub
sub      IN NS    ns.sub
ns.sub   IN A     192.0.2.110
far      IN NS    ns.example.net.
e.f.g.h  IN TXT   "deep"
unknown  IN TYPE65280 \# 4 01020304
alias3.x.w IN CNAME alias2
moved    IN HTTPS 0 www
dn       IN DNAME w
dn       IN TXT   "beside a DNAME"
_8443._https IN SVCB 1 mail port=8443
` + dsRecord

const dsRecord = "sub IN DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF\n"

const (
	// What the plugin behind has: the services hide its addresses, in the hints
	// too, and its name servers are not those of the node.
	behindOnly = `
ns       300 IN A    192.0.2.99
*.w      300 IN HTTPS 1 . alpn=h2
www      300 IN A    203.0.113.1
www      300 IN AAAA 2001:db8:ffff::1
both     300 IN A    203.0.113.1
www      300 IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1
old      300 IN HTTPS 2 www alpn=h3
`
	// What the reference has instead.
	referenceOnly = `
ns       300 IN A    192.0.2.99
*.w      30 IN HTTPS 1 . alpn=h2 ipv4hint=127.0.1.1 ipv6hint=::1
www      30 IN HTTPS 1 . alpn=h2 ipv4hint=127.0.1.1 ipv6hint=::1
old      30 IN HTTPS 2 www alpn=h3 ipv4hint=127.0.1.1 ipv6hint=::1
`
	zoneNS = `
@        300 IN NS   ns1.example.net.
@        300 IN NS   ns.svc.gslb.example.org.
`
	nodeNS = `
@        30 IN NS    par1.lb.gslb.example.org.
`
	servicesOnly = `
@        30 IN A     127.0.1.2
www      30 IN A     127.0.1.1
www      30 IN AAAA  ::1
both     30 IN A     127.0.1.1
both     30 IN A     127.0.1.2
both     30 IN A     127.0.1.3
both     30 IN AAAA  ::1
a.b.c    30 IN A     127.0.1.2
*.w      30 IN A     127.0.1.1
*.w      30 IN AAAA  ::1
z.y.w    30 IN A     127.0.1.3
`
	referenceServices = `
		ttl     30s 30s
		server  one 127.0.1.1 ::1
		server  two 127.0.1.2
		server  three 127.0.1.3
		service svc.gslb.example.org       two
		service www.svc.gslb.example.org   one
		service both.svc.gslb.example.org  one two three answers 3
		service a.b.c.svc.gslb.example.org two
		service *.w.svc.gslb.example.org   one
		service z.y.w.svc.gslb.example.org three
`
)

// TestReference asks dnslb and NSD, which serves the same records as a zone
// file, the same questions.
func TestReference(t *testing.T) {
	needNSD(t)
	for _, tc := range []struct {
		name, zonePlugin string
		node             bool
	}{
		{"node", "", true},
		{"node and file", file, true},
		{"node and auto", auto, true},
		{"node and secondary", secondary, true},
		{"node and dynupdate", dynupdate, true},
		{"file", file, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t, tc.zonePlugin, tc.node)
			for _, name := range referenceNames {
				for _, qtype := range referenceTypes {
					p.compare(name, qtype)
				}
			}
		})
	}
}

func needNSD(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nsd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

var (
	referenceNames = []string{
		"", "www.", "WwW.", "both.", "x.www.", "c.", "b.c.", "a.b.c.", "x.b.c.", "none.", "no.ne.",
		"w.", "x.w.", "v.w.", "v.v.w.", "*.w.", "v.*.w.", "y.w.", "z.y.w.", "v.y.w.", "v.x.w.",
		"mail.", "alias.", "alias2.", "alias3.x.w.", "ghost.", "lost.", "gone.", "out.", "into.", "sub.", "ns.sub.", "v.sub.", "far.", "v.far.",
		"e.f.g.h.", "f.g.h.", "h.", "v.g.h.", "unknown.", "moved.", "old.", "dn.", "y.dn.", "x.dn.", "v.x.dn.", "_tcp.", "_sip._tcp.", "_443._tcp.", "_8443._https.",
	}
	referenceTypes = []uint16{
		dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeCNAME, dns.TypeDS, dns.TypeSRV, dns.TypeCAA,
		dns.TypeHTTPS, dns.TypeSVCB, dns.TypeDNAME, dns.TypePTR, 65280,
	}
)

// pair is a dnslb and the reference for it.
type pair struct {
	*testing.T
	dnslb, nsd string // HOST:PORT
	node       bool   // dnslb is one
}

// Plugins that have the zone in the file ZONE.
const (
	file = "file ZONE"
	auto = `auto {
		directory DIR
	}`
	dynupdate = `tsig {
		secret key.example.org. i9M+00yrECfVZG2qCjr4mPpaGim/Bq+IWMiNrLjUO4Y=
		require_opcode UPDATE
	}
	dynupdate {
		file ZONE
		allow key.example.org. other.svc.gslb.example.org. TXT
	}`
	secondary = `secondary {
		transfer from 127.0.0.1:PRIMARY
	}
}
svc.gslb.example.org:PRIMARY {
	bind 127.0.0.1
	file ZONE
	transfer {
		to *
	}`
)

// newPair starts both, dnslb with a zone plugin behind it or, if that is "",
// alone.
func newPair(t *testing.T, zonePlugin string, node bool) *pair {
	dir := t.TempDir()
	p := &pair{t, net.JoinHostPort("127.0.0.1", freePort(t)), net.JoinHostPort("127.0.0.1", freePort(t)), node}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	zone := func(name, soa, records string) string {
		return write(name, "$ORIGIN "+cut+"\n$TTL 300\n"+soa+records)
	}

	soa := "@ 300 IN SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"
	records := moreRecords
	if zonePlugin == dynupdate {
		records = strings.Replace(records, dsRecord, "", 1) // it takes none
	}
	reference, nodeLine := zoneNS+servicesOnly, ""
	if node {
		reference, nodeLine = nodeNS+servicesOnly, "node par1 127.0.0.1"
	}
	_, port, _ := net.SplitHostPort(p.dnslb)
	dnslb := start(t, "-conf", write("Corefile", strings.NewReplacer(
		"PORT", port, "PROBED", listenOn(t, "127.0.1.1", "127.0.1.2", "127.0.1.3", "::1"), "SERVICES", referenceServices, "NODE", nodeLine,
		"ZONE", zone("db.svc.gslb.example.org", soa, zoneNS+behindOnly+records), "DIR", dir, "PRIMARY", freePort(t),
	).Replace(`svc.gslb.example.org:PORT {
	bind 127.0.0.1
	errors
	latencyprobe {
		rtt tcp PROBED
	}
	dnslb {SERVICES
		NODE
	}
	`+zonePlugin+`
}
`)))
	if zonePlugin != "" {
		dnslb.waitFor("with serial 42", 20*time.Second) // read by dnslb
		reference += referenceOnly + records
	} else {
		// Its serial is the time at which it was started.
		soa = p.exchange("udp", p.dnslb, new(dns.Msg).SetQuestion(cut, dns.TypeSOA)).Answer[0].String()
	}
	zone("zone", soa, reference)
	p.startNSD(dir, write)
	return p
}

// listenOn listens on one port of all addresses, for the probes.
func listenOn(t *testing.T, addrs ...string) (port string) {
	t.Helper()
	port = "0"
	for _, addr := range addrs {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	return port
}

func (p *pair) startNSD(dir string, write func(name, text string) string) {
	p.Helper()
	host, port, _ := net.SplitHostPort(p.nsd)
	conf := write("nsd.conf", strings.ReplaceAll(fmt.Sprintf(`server:
	server-count: 1
	ip-address: %s@%s
	username: ""
	chroot: ""
	zonesdir: "DIR"
	database: ""
	pidfile: "DIR/pid"
	xfrdfile: "DIR/xfrd"
	xfrdir: "DIR"
	zonelistfile: "DIR/zones"
	cookie-secret-file: "DIR/cookies"
	rrl-ratelimit: 0
remote-control:
	control-enable: no
zone:
	name: "%s"
	zonefile: "DIR/zone"
`, host, port, cut), "DIR", dir))
	out := new(output)
	cmd := exec.Command("nsd", "-d", "-c", conf)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	wait(p.T, 10*time.Second, "NSD to answer", func() bool {
		r, err := dns.Exchange(new(dns.Msg).SetQuestion(cut, dns.TypeSOA), p.nsd)
		if err == nil && r.Rcode != dns.RcodeSuccess {
			p.Fatalf("NSD does not load the zone:\n%s", out)
		}
		return err == nil
	})
}

func (p *pair) exchange(network, server string, m *dns.Msg) *dns.Msg {
	p.Helper()
	client := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: dns.MaxMsgSize}
	r, _, err := client.Exchange(m, server)
	if err != nil {
		p.Fatalf("%s: %v", m.Question[0].String(), err)
	}
	return r
}

// compare asks both servers over UDP without EDNS and with small and large
// messages, and over TCP.
func (p *pair) compare(name string, qtype uint16) {
	p.Helper()
	for _, network := range []string{"udp", "tcp"} {
		for _, size := range []uint16{0, 512, 1232} {
			m := new(dns.Msg).SetQuestion(name+cut, qtype)
			m.RecursionDesired = size > 0
			if size > 0 {
				m.SetEdns0(size, size == 1232)
			}
			got, want := p.exchange(network, p.dnslb, m), p.exchange(network, p.nsd, m)
			if d := differences(got, want, p.node); d != "" {
				p.Errorf("%s %s over %s, EDNS size %d: %s\ndnslb:\n%v\nNSD:\n%v", name, dns.Type(qtype), network, size, d, got, want)
				return
			}
		}
	}
}

// differences tells how an answer of dnslb differs from that of NSD, but for
// what is documented here.
func differences(got, want *dns.Msg, node bool) string {
	var out []string
	differ := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			out = append(out, fmt.Sprintf("%s is %v and not %v", what, got, want))
		}
	}
	differ("RCODE", dns.RcodeToString[got.Rcode], dns.RcodeToString[want.Rcode])
	differ("AA", got.Authoritative, want.Authoritative)
	differ("TC", got.Truncated, want.Truncated)
	differ("RD", got.RecursionDesired, want.RecursionDesired)
	differ("RA", got.RecursionAvailable, want.RecursionAvailable)
	differ("the question", got.Question, want.Question)
	differ("EDNS", got.IsEdns0() != nil, want.IsEdns0() != nil)
	if got.IsEdns0() != nil && want.IsEdns0() != nil {
		differ("DO", got.IsEdns0().Do(), want.IsEdns0().Do())
	}
	// What differs on purpose: NSD adds the zone's NS records and their glue to
	// each positive answer. A node must not, in front of a zone it does not matter.
	if len(want.Answer) > 0 {
		if node {
			differ("the number of NS records", len(zoneNSOf(got)), 0)
		}
		for _, m := range []*dns.Msg{got, want} {
			ns := zoneNSOf(m)
			m.Ns = slices.DeleteFunc(m.Ns, func(rr dns.RR) bool { return slices.Contains(ns, rr) })
			if m.Question[0].Qtype != dns.TypeNS {
				m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Name == "ns."+cut })
			}
		}
	}
	// NSD adds the DS record of a delegation only where the zone is signed.
	got.Ns = slices.DeleteFunc(got.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS })
	// And negative answers about a service can be so only for 30 seconds.
	for _, rr := range slices.Concat(got.Ns, want.Ns) {
		if rr.Header().Rrtype == dns.TypeSOA && rr.Header().Ttl == 120 {
			rr.Header().Ttl = 30
		}
	}
	// NSD has no additional section processing for SVCB and HTTPS (RFC 9460, section 4.1).
	if q := got.Question[0].Qtype; (q == dns.TypeSVCB || q == dns.TypeHTTPS) && len(section(want.Extra)) == 0 {
		got.Extra = nil
	}
	differ("the answer", section(got.Answer), section(want.Answer))
	differ("the authority section", section(got.Ns), section(want.Ns))
	differ("the additional section", section(got.Extra), section(want.Extra))
	return strings.Join(out, "\n")
}

// zoneNSOf returns the NS records of the zone in the authority section.
func zoneNSOf(m *dns.Msg) []dns.RR {
	return slices.DeleteFunc(slices.Clone(m.Ns), func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeNS || rr.Header().Name != cut })
}

// section returns records in an order of its own, without OPT.
func section(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.ToLower(rr.String()))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestReferenceProtocol checks what is not about records, beside the reference.
func TestReferenceProtocol(t *testing.T) {
	needNSD(t)
	p := newPair(t, "", true)
	for _, tc := range protocolTests {
		for _, network := range []string{"udp", "tcp"} {
			m := new(dns.Msg).SetQuestion(www, dns.TypeA)
			tc.change(m)
			if got := p.raw(network, p.dnslb, m); got != tc.want {
				t.Errorf("%s over %s: expected %q, got %q", tc.what, network, tc.want, got)
			}
			if got := p.raw(network, p.nsd, m); tc.differs == "" && got != tc.want {
				t.Errorf("%s over %s: expected %q of NSD, got %q", tc.what, network, tc.want, got)
			}
		}
	}
}

var protocolTests = []struct {
	what    string
	change  func(m *dns.Msg)
	want    string
	differs string // how NSD does
}{
	{"opcode NOTIFY", func(m *dns.Msg) { m.SetNotify(cut) }, "NOTIMP", "it is no secondary, and refuses"},
	{"opcode UPDATE", func(m *dns.Msg) { m.SetUpdate(cut) }, "NOTIMP", ""},
	{"opcode STATUS", func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, "NOTIMP", ""},
	{"opcode IQUERY", func(m *dns.Msg) { m.Opcode = dns.OpcodeIQuery }, "NOTIMP", ""},
	{"no question", func(m *dns.Msg) { m.Question = nil }, "FORMERR", "it says nothing over TCP"},
	{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR", ""},
	{"class CH", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED", ""},
	{"class HS", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassHESIOD }, "REFUSED", ""},
	{"class ANY", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED", "it answers as for IN, which RFC 1035 lets it do"},
	{"type ANY", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY }, "NOERROR aa HINFO", "it answers all that it has; RFC 8482 advises less"},
	{"type AXFR", func(m *dns.Msg) { m.SetAxfr(cut) }, "REFUSED", "over UDP it has NOTIMP for it"},
	{"type IXFR", func(m *dns.Msg) { m.SetIxfr(cut, 1, "ns.example.org.", "hostmaster.example.org.") }, "REFUSED", ""},
	{"type 0", func(m *dns.Msg) { m.Question[0].Qtype = 0 }, "NOERROR aa SOA", ""},
	{"type OPT", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }, "NOERROR aa SOA", ""},
	{"type TSIG", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTSIG }, "NOERROR aa SOA", ""},
	{"type MAILB", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMAILB }, "NOERROR aa SOA", ""},
	{"type RRSIG", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeRRSIG }, "NOERROR aa SOA", ""},
	{"another zone", func(m *dns.Msg) { m.Question[0].Name = "www.example.net." }, "REFUSED", ""},
	{"flag AD", func(m *dns.Msg) { m.AuthenticatedData = true }, "NOERROR aa A", ""},
	{"flag CD", func(m *dns.Msg) { m.CheckingDisabled = true }, "NOERROR aa cd A", "it clears the flag, which RFC 4035, section 3.1.6, wants copied"},
	{"EDNS version 1", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, "BADVERS edns", ""},
	{"EDNS size 0", func(m *dns.Msg) { m.SetEdns0(0, false) }, "NOERROR aa A edns", ""},
	{"two OPT records", func(m *dns.Msg) { m.SetEdns0(1232, false).SetEdns0(1232, false) }, "NOERROR aa A edns", "it has FORMERR (RFC 6891, section 6.1.1); CoreDNS does not look"},
	{"an unknown option", option(&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}}), "NOERROR aa A edns", ""},
	{"a cookie", option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}), "NOERROR aa A edns", ""},
	{"NSID", option(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}), "NOERROR aa A edns", ""},
	{
		"a client subnet", option(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}}),
		"NOERROR aa A edns 198.51.100.0/24/0", "it does not know the option",
	},
}

func option(o dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{o}
	}
}

// raw sends a message as it is and describes the reply by its code, flags, the
// types of answer and, in a negative one, of authority, and EDNS.
func (p *pair) raw(network, server string, m *dns.Msg) string {
	p.Helper()
	conn, err := dns.DialTimeout(network, server, 5*time.Second)
	if err != nil {
		p.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err := conn.WriteMsg(m); err != nil {
		p.Fatal(err)
	}
	r, err := conn.ReadMsg()
	if err != nil {
		return err.Error()
	}
	words := []string{dns.RcodeToString[r.Rcode]}
	if r.Rcode == dns.RcodeBadVers { // or BADSIG, which is no code of a message
		words[0] = "BADVERS"
	}
	for _, flag := range []struct {
		set  bool
		word string
	}{{r.Authoritative, "aa"}, {r.Truncated, "tc"}, {r.AuthenticatedData, "ad"}, {r.CheckingDisabled, "cd"}} {
		if flag.set {
			words = append(words, flag.word)
		}
	}
	records := r.Answer
	if len(records) == 0 {
		records = r.Ns
	}
	for _, rr := range records {
		words = append(words, dns.Type(rr.Header().Rrtype).String())
	}
	if o := r.IsEdns0(); o != nil {
		words = append(words, "edns")
		for _, opt := range o.Option {
			words = append(words, opt.String())
		}
	}
	return strings.Join(words, " ")
}
