//go:build unix

package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// moreRecords are in the backend zone and in the zone of NSD.
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
	// Records of the backend zone only. The services hide the addresses, also
	// in hints.
	backendOnly = `
ns       300 IN A    192.0.2.99
*.w      300 IN HTTPS 1 . alpn=h2
www      300 IN A    203.0.113.1
www      300 IN AAAA 2001:db8:ffff::1
both     300 IN A    203.0.113.1
www      300 IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1
old      300 IN HTTPS 2 www alpn=h3
`
	// Records that NSD has in their place.
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

// TestAnswersMatchNSD sends the same questions to dnslb and to NSD, which
// serves the same records from a zone file.
func TestAnswersMatchNSD(t *testing.T) {
	needNSD(t)
	for _, tc := range []struct {
		name, backend string
		node          bool
	}{
		{"node", "", true},
		{"node and file", file, true},
		{"node and auto", auto, true},
		{"node and secondary", secondary, true},
		{"node and dynupdate", dynupdate, true},
		{"file", file, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t, tc.backend, tc.node)
			for _, name := range referenceNames {
				for _, qtype := range referenceTypes {
					p.compare(name, qtype)
				}
			}
		})
	}
}

// needNSD skips the test if NSD is missing; in CI the test fails.
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

// pair is dnslb and the NSD that it is compared with.
type pair struct {
	*testing.T
	dnslb, nsd string // HOST:PORT
	node       bool   // dnslb has a node line
}

// Backend plugins with the zone in the file ZONE.
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

// newPair starts both servers, dnslb with the backend plugin or, if that is "",
// without.
func newPair(t *testing.T, backend string, node bool) *pair {
	t.Helper()
	dir := t.TempDir()
	p := &pair{t, net.JoinHostPort("127.0.0.1", freePort(t)), net.JoinHostPort("127.0.0.1", freePort(t)), node}
	write := writerIn(t, dir)
	zone := func(name, soa, records string) string {
		return write(name, "$ORIGIN "+cut+"\n$TTL 300\n"+soa+records)
	}

	soa := "@ 300 IN SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"
	records := moreRecords
	if backend == dynupdate {
		records = strings.Replace(records, dsRecord, "", 1) // *dynupdate* takes none
	}
	reference, nodeLine := zoneNS+servicesOnly, ""
	if node {
		reference, nodeLine = nodeNS+servicesOnly, "node par1 127.0.0.1"
	}
	_, port, _ := net.SplitHostPort(p.dnslb)
	dnslb := start(t, "-conf", write("Corefile", strings.NewReplacer(
		"PORT", port, "PROBED", listenOn(t, "127.0.1.1", "127.0.1.2", "127.0.1.3", "::1"), "SERVICES", referenceServices, "NODE", nodeLine,
		"ZONE", zone("db.svc.gslb.example.org", soa, zoneNS+backendOnly+records), "DIR", dir, "PRIMARY", freePort(t),
	).Replace(`svc.gslb.example.org:PORT {
	bind 127.0.0.1
	errors
	latencyprobe {
		rtt tcp PROBED
	}
	dnslb {SERVICES
		NODE
	}
	`+backend+`
}
`)))
	if backend != "" {
		dnslb.waitFor(", serial 42: ", 20*time.Second) // dnslb has read the zone
		reference += referenceOnly + records
	} else {
		// The serial is the time of the start.
		soa = p.exchange("udp", p.dnslb, new(dns.Msg).SetQuestion(cut, dns.TypeSOA)).Answer[0].String()
	}
	zone("zone", soa, reference)
	p.startNSD(dir, write)
	return p
}

// listenOn listens for probes on the same port of all addresses.
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
			p.Fatalf("Expected NSD to load the zone, got:\n%s", out)
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

// compare sends a question to both servers, over UDP and TCP, without EDNS and
// with a small and a large message size.
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

// differences describes how a reply of dnslb differs from that of NSD, apart
// from the differences that are intended.
func differences(got, want *dns.Msg, node bool) string {
	var out []string
	differ := func(field string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			out = append(out, fmt.Sprintf("expected %s %v, got %v", field, want, got))
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
	// NSD adds the NS records of the zone and their glue to each positive
	// answer. A node must not; without a node line dnslb may do either.
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
	// A service that has no address now may have one in 30 seconds.
	for _, rr := range slices.Concat(got.Ns, want.Ns) {
		if rr.Header().Rrtype == dns.TypeSOA && rr.Header().Ttl == 120 {
			rr.Header().Ttl = 30
		}
	}
	// NSD has no additional section processing for SVCB and HTTPS (RFC 9460,
	// section 4.1).
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

// section returns the records without OPT as sorted text.
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
