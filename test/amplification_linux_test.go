package test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec/nsectest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// TestAmplification asks both tiers all that anybody may ask over UDP, with the
// configuration that makes the answers longest, and compares the sizes with the
// table in docs/limits.md.
func TestAmplification(t *testing.T) {
	documented := amplificationTable(t)
	a := startAmplifiers(t)
	var table strings.Builder
	for _, q := range amplifiedQuestions {
		row := a.measure(q)
		fmt.Fprintf(&table, "| %s | %s | %d | %d | %d | %d | %.1f |\n", q.tier, q.name, row.query, row.plain, row.edns, row.signed, row.factor)
		key := q.tier + " " + q.name
		want, ok := documented[key]
		if !ok {
			t.Errorf("%s: Expected a row in docs/limits.md", key)
			continue
		}
		delete(documented, key)
		varies := strings.Contains(q.name, "_explain") // documented is the most that it can be
		for what, sizes := range map[string][2]int{
			"query": {row.query, want.query}, "answer without EDNS": {row.plain, want.plain},
			"answer": {row.edns, want.edns}, "signed answer": {row.signed, want.signed},
		} {
			if got, doc := sizes[0], sizes[1]; got > doc || got < doc && !varies {
				t.Errorf("%s: Expected a %s of %d bytes as documented, got %d", key, what, doc, got)
			}
		}
		if row.factor > want.factor+0.05 {
			t.Errorf("%s: Expected a factor of at most %v, got %.2f", key, want.factor, row.factor)
		}
	}
	for key := range documented {
		t.Errorf("%s: Expected no row in docs/limits.md without a question", key)
	}
	if t.Failed() {
		t.Logf("Measured:\n%s", &table)
	}
}

// amplification is a row of the table: bytes, and the highest factor.
type amplification struct {
	query               int // with EDNS
	plain, edns, signed int
	factor              float64
}

// The sizes that answers may have (RFC 1035, section 4.2.1, and DNS flag day 2020).
const (
	maxPlain = 512
	maxEDNS  = 1232
)

var amplificationRow = regexp.MustCompile(`(?m)^\| (DNS-B|DNS-LB) \| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \|$`)

func amplificationTable(t *testing.T) map[string]amplification {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]amplification)
	for _, m := range amplificationRow.FindAllStringSubmatch(string(text), -1) {
		var n [4]int
		for i := range n {
			n[i], _ = strconv.Atoi(m[i+3])
		}
		factor, _ := strconv.ParseFloat(m[7], 64)
		rows[m[1]+" "+m[2]] = amplification{n[0], n[1], n[2], n[3], factor}
	}
	return rows
}

// amplifiedQuestion is a message to a tier. It is made anew each time.
type amplifiedQuestion struct {
	tier, name string
	message    func() *dns.Msg
}

func asking(name string, qtype uint16) func() *dns.Msg {
	return func() *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }
}

func withOption(m func() *dns.Msg, o dns.EDNS0) func() *dns.Msg {
	return func() *dns.Msg {
		q := m()
		q.SetEdns0(0, false)
		q.IsEdns0().Option = []dns.EDNS0{o}
		return q
	}
}

func updating(key string) func() *dns.Msg {
	return func() *dns.Msg {
		m := new(dns.Msg).SetUpdate("gslb.example.org.")
		m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "par1.lb.gslb.example.org."}}})
		if key != "" {
			m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
		}
		return m
	}
}

var amplifiedQuestions = []amplifiedQuestion{
	{"DNS-B", "A, referral", asking("www.svc.gslb.example.org.", dns.TypeA)},
	{"DNS-B", "HTTPS, referral", asking("www.svc.gslb.example.org.", dns.TypeHTTPS)},
	{"DNS-B", "A, referral of an insecure cut", asking("www.plain.gslb.example.org.", dns.TypeA)},
	{"DNS-B", "A, referral to nodes with two addresses", asking("www.small.gslb.example.org.", dns.TypeA)},
	{"DNS-B", "DS of a secure cut", asking("svc.gslb.example.org.", dns.TypeDS)},
	{"DNS-B", "DS of an insecure cut", asking("plain.gslb.example.org.", dns.TypeDS)},
	{"DNS-B", "SOA", asking("gslb.example.org.", dns.TypeSOA)},
	{"DNS-B", "NS", asking("gslb.example.org.", dns.TypeNS)},
	{"DNS-B", "DNSKEY", asking("gslb.example.org.", dns.TypeDNSKEY)},
	{"DNS-B", "ANY", asking("gslb.example.org.", dns.TypeANY)},
	{"DNS-B", "NODATA", asking("gslb.example.org.", dns.TypeMX)},
	{"DNS-B", "NXDOMAIN", asking("none.gslb.example.org.", dns.TypeA)},
	{"DNS-B", "A of a node", asking("reg1.lb.gslb.example.org.", dns.TypeA)},
	{"DNS-B", "AAAA of a node", asking("reg1.lb.gslb.example.org.", dns.TypeAAAA)},
	{"DNS-B", "APL of a node", asking("reg1.lb.gslb.example.org.", dns.TypeAPL)},
	{"DNS-B", "TXT of a node", asking("reg1.lb.gslb.example.org.", dns.TypeTXT)},
	{"DNS-B", "TXT of `_explain`", asking("_explain.svc.gslb.example.org.", dns.TypeTXT)},
	{"DNS-B", "TXT of `nodes._explain`", asking("nodes._explain.gslb.example.org.", dns.TypeTXT)},
	{"DNS-B", "TXT of `unmapped._explain`", asking("unmapped._explain.gslb.example.org.", dns.TypeTXT)},
	{"DNS-B", "AXFR", asking("gslb.example.org.", dns.TypeAXFR)},
	{"DNS-B", "SOA of a map", asking("_map.svc.gslb.example.org.", dns.TypeSOA)},
	{"DNS-B", "AXFR of a map", asking("_map.svc.gslb.example.org.", dns.TypeAXFR)},
	{"DNS-B", "another zone", asking("example.net.", dns.TypeA)},
	{"DNS-B", "SOA with a cookie", withOption(asking("gslb.example.org.", dns.TypeSOA), &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})},
	{"DNS-B", "SOA with a client subnet", withOption(asking("gslb.example.org.", dns.TypeSOA), &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}})},
	{"DNS-B", "UPDATE, unsigned", updating("")},
	{"DNS-B", "UPDATE, unknown key", updating("unknown.key.example.org.")},
	{"DNS-B", "NOTIFY", func() *dns.Msg { return new(dns.Msg).SetNotify("gslb.example.org.") }},
	{"DNS-LB", "A, 16 answers", asking("www.svc.gslb.example.org.", dns.TypeA)},
	{"DNS-LB", "AAAA, 16 answers", asking("www.svc.gslb.example.org.", dns.TypeAAAA)},
	{"DNS-LB", "A, one answer", asking("one.svc.gslb.example.org.", dns.TypeA)},
	{"DNS-LB", "HTTPS with hints", asking("www.svc.gslb.example.org.", dns.TypeHTTPS)},
	{"DNS-LB", "SVCB with hints", asking("_dns.svc.gslb.example.org.", dns.TypeSVCB)},
	{"DNS-LB", "MX with addresses", asking("svc.gslb.example.org.", dns.TypeMX)},
	{"DNS-LB", "CAA", asking("www.svc.gslb.example.org.", dns.TypeCAA)},
	{"DNS-LB", "APL", asking("www.svc.gslb.example.org.", dns.TypeAPL)},
	{"DNS-LB", "TXT", asking("www.svc.gslb.example.org.", dns.TypeTXT)},
	{"DNS-LB", "SOA", asking("svc.gslb.example.org.", dns.TypeSOA)},
	{"DNS-LB", "NS", asking("svc.gslb.example.org.", dns.TypeNS)},
	{"DNS-LB", "DNSKEY", asking("svc.gslb.example.org.", dns.TypeDNSKEY)},
	{"DNS-LB", "ANY", asking("www.svc.gslb.example.org.", dns.TypeANY)},
	{"DNS-LB", "NODATA", asking("www.svc.gslb.example.org.", dns.TypeSRV)},
	{"DNS-LB", "NXDOMAIN", asking("none.svc.gslb.example.org.", dns.TypeA)},
	{"DNS-LB", "referral of the backend zone", asking("www.sub.svc.gslb.example.org.", dns.TypeA)},
	{"DNS-LB", "TXT of `_explain`", asking("_explain.www.svc.gslb.example.org.", dns.TypeTXT)},
	{"DNS-LB", "AXFR", asking("svc.gslb.example.org.", dns.TypeAXFR)},
	{"DNS-LB", "SOA of a view", asking("par1._view.svc.gslb.example.org.", dns.TypeSOA)},
	{"DNS-LB", "AXFR of a view", asking("par1._view.svc.gslb.example.org.", dns.TypeAXFR)},
	{"DNS-LB", "UPDATE", func() *dns.Msg { return new(dns.Msg).SetUpdate("svc.gslb.example.org.") }},
}

// amplifiers are servers of both tiers, by tier, signed and not.
type amplifiers struct {
	*testing.T
	plain, signed map[string]string // HOST:PORT
}

// measure asks a question without EDNS, and with it at both sizes.
func (a *amplifiers) measure(q amplifiedQuestion) (row amplification) {
	a.Helper()
	size := func(server string, edns uint16, do bool) (query, answer int) {
		a.Helper()
		m := q.message()
		tsig := m.IsTsig()
		if tsig != nil {
			m.Extra = m.Extra[:len(m.Extra)-1]
		}
		switch opt := m.IsEdns0(); {
		case edns == 0 && opt != nil:
			m.Extra = nil
		case edns != 0 && opt == nil:
			m.SetEdns0(edns, do)
		case edns != 0:
			opt.SetUDPSize(edns)
			opt.SetDo(do)
		}
		var b []byte
		var err error
		if tsig != nil {
			m.Extra = append(m.Extra, tsig)
			b, _, err = dns.TsigGenerate(m, "dW5rbm93bg==", "", false)
		} else {
			b, err = m.Pack()
		}
		if err != nil {
			a.Fatal(err)
		}
		return len(b), a.ask(server, b)
	}
	factor := func(query, answer, limit int) int {
		if answer > limit {
			a.Errorf("%s %s: Expected at most %d bytes, got %d", q.tier, q.name, limit, answer)
		}
		row.factor = max(row.factor, float64(answer)/float64(query))
		return answer
	}
	for _, servers := range []map[string]string{a.plain, a.signed} {
		query, answer := size(servers[q.tier], 0, false)
		row.plain = max(row.plain, factor(query, answer, maxPlain))
		for _, edns := range []uint16{maxEDNS, 65535} {
			query, answer = size(servers[q.tier], edns, false)
			row.query = query
			row.edns = max(row.edns, factor(query, answer, maxEDNS))
			query, answer = size(servers[q.tier], edns, true)
			row.signed = max(row.signed, factor(query, answer, maxEDNS))
		}
	}
	return row
}

// ask sends a message over UDP and returns the size of the answer, 0 if there is
// none.
func (a *amplifiers) ask(server string, m []byte) int {
	a.Helper()
	conn, err := net.Dial("udp", server)
	if err != nil {
		a.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 65535)
	for range 5 {
		if _, err := conn.Write(m); err != nil {
			a.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, err := conn.Read(b); err == nil {
			return n
		}
	}
	a.Fatalf("Expected an answer of %s", server)
	return 0
}

// amplifierCorefile is one zone of each tier. No server of the services answers
// probes, so answers have the text of an error too.
const amplifierCorefile = `gslb.example.org:PORT {
	bind DNSB
	tsig {
		secret reg1.key. SECRET
	}
	KEYSB
	dnsb {
		NAMESERVERS
		accept  reg1.key. reg1 any for reg
		node    par1 ADDRESSES1 deputy nyc1
		node    nyc1 ADDRESSES2
		node    lon1 192.0.2.53 2001:db8::53 deputy osa1
		node    osa1 198.51.100.53 2001:db8:1::53
		cut     svc par1 nyc1
		cut     plain par1 nyc1
		cut     small lon1 osa1
		DS
		default par1 lon1
		explain 127.0.0.0/8
	}
}
svc.gslb.example.org:PORT {
	bind DNSLB
	tsig {
		secret views.key. SECRET
	}
	KEYSLB
	latencyprobe {
		rtt      tcp 9
		interval 1s
		source   127.0.0.1 ::1
	}
	dnslb {
		SERVERS
		service  www.svc.gslb.example.org NAMES answers 16
		service  one.svc.gslb.example.org s1
		node     NODE DNSLB
		register DNSB:PORT
		key      reg1.key. SECRET
		view-key views.key.
		explain  127.0.0.0/8
	}
	file ZONE
}
`

const amplifierZone = `$ORIGIN svc.gslb.example.org.
$TTL 300
@    IN SOA   ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120
@    IN NS    ns.example.org.
@    IN MX    10 www
@    IN MX    20 one
www  IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1
www  IN HTTPS 2 one alpn=h3 ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1
_dns IN SVCB  1 www alpn=dot ipv4hint=203.0.113.1 ipv6hint=2001:db8:ffff::1
sub  IN NS    ns1.sub
sub  IN NS    ns2.sub
ns1.sub IN A  192.0.2.110
ns2.sub IN A  192.0.2.111
`

const amplifierSecret = "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="

// startAmplifiers starts the program with both tiers, once signed and once not.
func startAmplifiers(t *testing.T) *amplifiers {
	t.Helper()
	dir := t.TempDir()
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i+1)
		}
		return b.String()
	}
	zone := amplifierZone + dsRecord + list(30, "www IN TXT \"text %03d of a set that does not fit into one message\"\n") +
		list(12, "www IN CAA 0 issue \"ca%02d.example.net; account=230123\"\n") + list(4, "www IN APL"+strings.Repeat(" 1:10.%[1]d.0.0/16", 60)+"\n")
	zoneFile := filepath.Join(dir, "zone")
	if err := os.WriteFile(zoneFile, []byte(zone), 0o600); err != nil {
		t.Fatal(err)
	}

	a := &amplifiers{t, make(map[string]string), make(map[string]string)}
	var corefile strings.Builder
	port := freePort(t)
	for i, servers := range []map[string]string{a.plain, a.signed} {
		b, lb := fmt.Sprintf("127.0.0.%d", 2+2*i), fmt.Sprintf("127.0.0.%d", 3+2*i)
		servers["DNS-B"], servers["DNS-LB"] = net.JoinHostPort(b, port), net.JoinHostPort(lb, port)
		keysB, keysLB, ds := "", "", ""
		if i == 1 { // two keys, as during a rollover
			for range 2 {
				path, _ := nsectest.KeyFiles(t, "gslb.example.org.", 257)
				keysB += " " + path
				path, record := nsectest.KeyFiles(t, "svc.gslb.example.org.", 257)
				keysLB += " " + path
				ds += fmt.Sprintf("ds svc %d %d %d %s\n", record.KeyTag, record.Algorithm, record.DigestType, record.Digest)
			}
			keysB, keysLB = "dnssec {\nkey file"+keysB+"\n}", "dnssec {\nkey file"+keysLB+"\n}"
		}
		corefile.WriteString(strings.NewReplacer(
			"PORT", port, "NODE", fmt.Sprintf("par%d", i+1), "DNSB", b, "DNSLB", lb, "SECRET", amplifierSecret, "KEYSB", keysB, "KEYSLB", keysLB, "DS", ds, "ZONE", zoneFile,
			"NAMESERVERS", list(8, "ns b%[1]d 192.0.2.%[1]d 2001:db8::%[1]d\n"),
			"ADDRESSES1", list(6, "192.0.2.%d ")+list(6, "2001:db8:1::%d "), "ADDRESSES2", list(6, "198.51.100.%d ")+list(6, "2001:db8:2::%d "),
			"SERVERS", list(16, "server s%[1]d 127.0.1.%[1]d 2001:db8::%[1]d\n"), "NAMES", list(16, "s%d "),
		).Replace(amplifierCorefile))
	}
	path := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(path, []byte(corefile.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "-conf", path)
	for _, servers := range []map[string]string{a.plain, a.signed} {
		a.registerLargest(servers["DNS-B"])
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			www := new(dns.Msg).SetQuestion("www.svc.gslb.example.org.", qtype)
			www.SetEdns0(maxEDNS, false)
			wait(t, time.Minute, "all servers to be down", func() bool {
				r, err := dns.Exchange(www, servers["DNS-LB"])
				return err == nil && r.IsEdns0() != nil && len(r.IsEdns0().Option) > 0
			})
		}
	}
	return a
}

// registerLargest registers the node with the most records.
func (a *amplifiers) registerLargest(server string) {
	a.Helper()
	r := &registration.Registration{Zone: "gslb.example.org.", Node: "reg1", Cuts: []string{"reg.gslb.example.org."}, Location: "48 51 24.000 N 2 21 3.000 E 35.00m"}
	for i := range 6 {
		r.Addresses = append(r.Addresses, netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i + 1)}))
	}
	for i := range 16 {
		r.Deputies = append(r.Deputies, fmt.Sprintf("deputy-%02d-%s", i, strings.Repeat("x", 40)))
	}
	for i := range 250 {
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)})
	}
	m, err := r.Message()
	if err != nil {
		a.Fatal(err)
	}
	m.SetTsig("reg1.key.", dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{"reg1.key.": amplifierSecret}}
	if reply, _, err := c.Exchange(m, server); err != nil || reply.Rcode != dns.RcodeSuccess {
		a.Fatalf("Expected the node to be registered, got %v, %v", reply, err)
	}
}
