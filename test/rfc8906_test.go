package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec/nsectest"
)

// tier is a server of one of the two zones.
type tier struct {
	name, zone, addr string
}

// startTiers starts DNS-B and a node, each at a port of its own, with signed
// zones.
func startTiers(t *testing.T) []tier {
	t.Helper()
	tiers := []tier{
		{"dnsb", "gslb.example.org.", "127.0.0.1:" + freePort(t)},
		{"dnslb", "svc.gslb.example.org.", "127.0.0.1:" + freePort(t)},
	}
	var corefile strings.Builder
	for i, directive := range []string{
		"dnsb {\n ns b1 192.0.2.1\n node par1 192.0.2.53\n cut svc par1\n default par1\n }",
		"latencyprobe {\n rtt tcp 80\n }\n dnslb {\n server fra 127.0.0.1\n service www.svc.gslb.example.org fra\n node par1 192.0.2.53\n }",
	} {
		var keys []string // so many that the DNSKEY records exceed 512 bytes
		for range 3 {
			key, _ := nsectest.KeyFiles(t, tiers[i].zone, 257)
			keys = append(keys, key)
		}
		_, port, err := net.SplitHostPort(tiers[i].addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&corefile, "%s:%s {\n bind 127.0.0.1\n dnssec {\n key file %s\n }\n %s\n}\n", tiers[i].zone, port, strings.Join(keys, " "), directive)
	}
	path := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(path, []byte(corefile.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "-conf", path)
	return tiers
}

// TestRFC8906 sends the queries of RFC 8906, section 8, of the checks of EDNS
// compliance that ISC made of them, and of the RFCs that the names of the cases
// tell, to both tiers over UDP and TCP.
func TestRFC8906(t *testing.T) {
	for _, tier := range startTiers(t) {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(tier.name+"/"+network, func(t *testing.T) {
				for _, tc := range rfc8906Tests {
					query := tc.query(tier.zone)
					want, rfc := tc.want, ""
					if tier.name == "dnsb" && tc.dnsb != "" {
						want = tc.dnsb
					}
					if network == "tcp" && tc.tcp != "" {
						want = tc.tcp
					}
					if tc.coreDNS != "" && (network == "tcp" || !tc.onlyTCP) {
						want, rfc = tc.coreDNS, want
					}
					if got := rawExchange(t, network, tier.addr, query, want == noReply); got != want {
						t.Errorf("%s: Expected %q, got %q", tc.name, want, got)
					} else if got == rfc {
						t.Errorf("%s: Expected a difference from the RFC, remove its reason", tc.name)
					}
				}
			})
		}
	}
}

const (
	noReply      = "no reply"
	libraryReply = "the package dns answers messages that it cannot read, and CoreDNS lets no plugin change replies over TCP"
)

var rfc8906Tests = []struct {
	name    string
	query   func(zone string) []byte
	want    string // as described by describe
	tcp     string // over TCP; "": the same
	dnsb    string // at DNS-B, if that differs
	coreDNS string // what CoreDNS answers instead of want; "": want
	reason  string // of that difference
	onlyTCP bool   // there is none over UDP
}{
	{name: "8906 8.1.1 SOA", query: message(), want: "NOERROR aa SOA"},
	{name: "8906 8.1.2 unknown type", query: message(qtype(1000)), want: "NOERROR aa -SOA"},
	{name: "8906 8.1.3.1 flag CD", query: message(func(m *dns.Msg) { m.CheckingDisabled = true }), want: "NOERROR aa cd SOA"}, // RFC 4035, section 3.1.6
	{name: "8906 8.1.3.2 flag AD", query: message(func(m *dns.Msg) { m.AuthenticatedData = true }), want: "NOERROR aa SOA"},
	{name: "8906 8.1.3.3 reserved flag Z", query: message(func(m *dns.Msg) { m.Zero = true }), want: "NOERROR aa SOA"},
	{name: "8906 8.1.3.4 flag RD", query: message(func(m *dns.Msg) { m.RecursionDesired = true }), want: "NOERROR aa rd SOA"},
	{name: "1035 4.1.1 flag AA in a query", query: message(func(m *dns.Msg) { m.Authoritative = true }), want: "NOERROR aa SOA"},
	{name: "1035 4.1.1 flag TC in a query", query: message(func(m *dns.Msg) { m.Truncated = true }), want: "NOERROR aa SOA"},
	{name: "1035 4.1.1 flag RA in a query", query: message(func(m *dns.Msg) { m.RecursionAvailable = true }), want: "NOERROR aa SOA"},
	{name: "1035 4.1.1 flag QR: a response", query: message(func(m *dns.Msg) { m.Response = true }), want: noReply},
	{name: "1035 4.1.1 RCODE in a query", query: message(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), want: "NOERROR aa SOA"},
	{name: "8906 8.1.4 unknown opcode 15", query: message(opcode(15)), want: "NOTIMP op15"},
	{name: "8906 8.1.4 opcode 3", query: message(opcode(3)), want: "NOTIMP op3"},
	{name: "3425 opcode IQUERY", query: message(opcode(dns.OpcodeIQuery)), want: "NOTIMP op1"},
	{name: "1035 opcode STATUS", query: message(opcode(dns.OpcodeStatus)), want: "NOTIMP op2"},
	{name: "8490 opcode DSO", query: message(opcode(dns.OpcodeStateful)), want: "NOTIMP op6"},

	{name: "8906 8.2.1 EDNS", query: message(edns()), want: "NOERROR aa SOA edns0"},
	{name: "8906 8.2.2 EDNS version 1", query: message(edns(version1)), want: "BADVERS edns0"},
	{name: "8906 8.2.3 unknown option", query: message(edns(options(unknownOption))), want: "NOERROR aa SOA edns0"},
	{name: "8906 8.2.4 unknown flags of EDNS", query: message(edns(ednsFlags(0x40))), want: "NOERROR aa SOA edns0"},
	{name: "6891 6.1.4 all unknown flags of EDNS", query: message(edns(do, ednsFlags(0x7fff))), want: "NOERROR aa SOA RRSIG edns0 do"},
	{name: "8906 8.2.5 EDNS version 1 with unknown flags", query: message(edns(version1, ednsFlags(0x40))), want: "BADVERS edns0"},
	{name: "8906 8.2.6 EDNS version 1 with unknown option", query: message(edns(version1, options(unknownOption))), want: "BADVERS edns0"},
	{name: "8906 8.2.7 truncated answer", query: message(qtype(dns.TypeDNSKEY), edns(do, size(512))), want: "NOERROR aa tc DNSKEY RRSIG edns0 do", tcp: "NOERROR aa DNSKEY RRSIG edns0 do"},
	{name: "8906 8.2.8 flag DO", query: message(edns(do)), want: "NOERROR aa SOA RRSIG edns0 do"},
	{name: "8906 8.2.9 EDNS version 1 with flag DO", query: message(edns(version1, do)), want: "BADVERS edns0 do",
		coreDNS: "BADVERS edns0", reason: "CoreDNS answers queries of other versions before any plugin, with an OPT record that has no flags"},
	{name: "8906 8.2.10 several options", query: message(edns(options(nsid, cookie, expire, subnet))), want: "NOERROR aa SOA edns0 198.51.101.0/24/0", dnsb: "NOERROR aa SOA edns0"},

	{name: "5001 NSID", query: message(edns(options(nsid))), want: "NOERROR aa SOA edns0"},
	{name: "7314 EXPIRE", query: message(edns(options(expire))), want: "NOERROR aa SOA edns0"},
	{name: "7830 PADDING", query: message(edns(options(&dns.EDNS0_PADDING{Padding: make([]byte, 100)}))), want: "NOERROR aa SOA edns0"},
	{name: "7828 TCP KEEPALIVE", query: message(edns(options(&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}))), want: "NOERROR aa SOA edns0"},
	{name: "7871 7.2.1 client subnet", query: message(edns(options(subnet))), want: "NOERROR aa SOA edns0 198.51.101.0/24/0", dnsb: "NOERROR aa SOA edns0"},
	{name: "7871 6 client subnet with bits beyond its length", query: message(edns(options(subnetOf(23, 0)))), want: "FORMERR edns0"},
	{name: "7871 6 client subnet with a scope", query: message(edns(options(subnetOf(24, 24)))), want: "FORMERR edns0"},
	{name: "7871 6 client subnet with an octet too few", query: message(edns(options(subnetData(0, 1, 24, 0, 198, 51)))), want: "FORMERR edns0"},
	{name: "7871 6 client subnet with an octet too many", query: message(edns(options(cookie, subnetData(0, 1, 24, 0, 198, 51, 101, 0)))), want: "FORMERR edns0"},
	{name: "7871 6 client subnet of length 0 with an octet", query: message(edns(options(subnetData(0, 0, 0, 0, 0)))), want: "FORMERR edns0"},
	{name: "7871 6 client subnet of another family", query: message(edns(do, options(cookie, subnetData(0, 3, 24, 0, 198, 51, 101)))), want: "FORMERR edns0 do",
		coreDNS: "FORMERR", onlyTCP: true, reason: libraryReply},
	{name: "7871 6 client subnet with a length beyond the address", query: message(edns(options(subnetData(0, 1, 33, 0, 198, 51, 101, 0, 0)))), want: "FORMERR edns0",
		coreDNS: "FORMERR", onlyTCP: true, reason: libraryReply},
	{name: "7871 6 client subnet of three octets", query: message(edns(options(subnetData(0, 1, 24)))), want: "FORMERR edns0",
		coreDNS: "FORMERR", onlyTCP: true, reason: libraryReply},
	{name: "7871 6 two client subnets", query: message(edns(options(subnet, subnet))), want: "FORMERR edns0"},
	{name: "7873 cookie", query: message(edns(options(cookie))), want: "NOERROR aa SOA edns0"},
	{name: "7873 5.4 no question, with a cookie", query: message(noQuestion, edns(options(cookie))), want: "FORMERR edns0",
		coreDNS: "FORMERR", reason: "CoreDNS rejects a message by the counts in its header, before it reads the OPT record"},
	{name: "6891 6.2.3 size below 512", query: message(edns(size(100))), want: "NOERROR aa SOA edns0"},
	{name: "6891 6.1.1 two OPT records", query: message(edns(), edns()), want: "FORMERR edns0",
		coreDNS: "NOERROR aa SOA edns0", reason: "CoreDNS takes the last OPT record"},

	{name: "9619 no question", query: message(noQuestion), want: "FORMERR"},
	{name: "9619 two questions", query: message(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), want: "FORMERR"},
	{name: "1035 4.1.1 query cut after its header", query: firstBytes(12), want: "FORMERR",
		coreDNS: "SERVFAIL", reason: "the package dns takes a message that ends after its header as one without questions, and CoreDNS answers such by SERVFAIL"},
	{name: "1035 4.1.1 query cut in its question", query: firstBytes(20), want: "FORMERR"},
	{name: "1035 4.1.1 query cut in its header", query: firstBytes(11), want: noReply},
	{name: "0x20", query: message(func(m *dns.Msg) { m.Question[0].Name = mixed(m.Question[0].Name) }), want: "NOERROR aa SOA"},
	{name: "4343 5 NXDOMAIN in 0x20", query: message(func(m *dns.Msg) { m.Question[0].Name = "nOpE." + mixed(m.Question[0].Name) }), want: "NXDOMAIN aa -SOA"},
	{name: "1035 3.2.4 class CH", query: message(func(m *dns.Msg) {
		m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
	}), want: "REFUSED"},
	{name: "4892 class CH", query: message(func(m *dns.Msg) {
		m.Question[0] = dns.Question{Name: "id.server.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
	}), want: "REFUSED"},
	{name: "2136 2.3 class NONE", query: message(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassNONE }), want: "REFUSED"},
	{name: "6895 unknown class", query: message(func(m *dns.Msg) { m.Question[0].Qclass = 65281 }), want: "REFUSED"},
	{name: "another zone", query: message(func(m *dns.Msg) { m.Question[0].Name = "example.net." }), want: "REFUSED"},
}

// message returns a function that makes a query for the SOA record of a zone and
// changes it.
func message(changes ...func(*dns.Msg)) func(zone string) []byte {
	return func(zone string) []byte {
		m := new(dns.Msg).SetQuestion(zone, dns.TypeSOA)
		m.RecursionDesired = false
		for _, change := range changes {
			change(m)
		}
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return b
	}
}

func qtype(t uint16) func(*dns.Msg)     { return func(m *dns.Msg) { m.Question[0].Qtype = t } }
func opcode(o int) func(*dns.Msg)       { return func(m *dns.Msg) { m.Opcode = o } }
func noQuestion(m *dns.Msg)             { m.Question = nil }
func version1(o *dns.OPT)               { o.SetVersion(1) }
func do(o *dns.OPT)                     { o.SetDo() }
func size(n uint16) func(*dns.OPT)      { return func(o *dns.OPT) { o.SetUDPSize(n) } }
func ednsFlags(f uint32) func(*dns.OPT) { return func(o *dns.OPT) { o.Hdr.Ttl |= f } }

// edns returns a change that adds an OPT record.
func edns(changes ...func(*dns.OPT)) func(*dns.Msg) {
	return func(m *dns.Msg) {
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		o.SetUDPSize(1232)
		for _, change := range changes {
			change(o)
		}
		m.Extra = append(m.Extra, o)
	}
}

func options(list ...dns.EDNS0) func(*dns.OPT) {
	return func(o *dns.OPT) { o.Option = list }
}

var (
	unknownOption = &dns.EDNS0_LOCAL{Code: 100, Data: []byte{1}}
	nsid          = &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	cookie        = &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	expire        = &dns.EDNS0_EXPIRE{Code: dns.EDNS0EXPIRE, Empty: true}
	subnet        = &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 101, 0}}
)

// subnetOf returns the client subnet 198.51.101.0 with a length and a scope.
func subnetOf(length, scope byte) dns.EDNS0 {
	return subnetData(0, 1, length, scope, 198, 51, 101)
}

// subnetData returns a client subnet with any data.
func subnetData(data ...byte) dns.EDNS0 { return &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: data} }

// firstBytes returns a function that makes the first bytes of a query.
func firstBytes(n int) func(zone string) []byte {
	return func(zone string) []byte { return message()(zone)[:n] }
}

// mixed returns a name with every second letter in upper case.
func mixed(name string) string {
	b := []byte(name)
	for i := 0; i < len(b); i += 2 {
		b[i] = byte(unicode.ToUpper(rune(b[i])))
	}
	return string(b)
}

// rawExchange sends a query and describes the reply. It sends another query after
// one that must not be answered, whose reply shows that there was none.
func rawExchange(t *testing.T, network, server string, query []byte, unanswered bool) string {
	t.Helper()
	conn, err := dns.DialTimeout(network, server, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.UDPSize = dns.MaxMsgSize
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(query); err != nil {
		t.Fatal(err)
	}
	after := new(dns.Msg).SetQuestion("after.example.org.", dns.TypeA)
	if unanswered {
		if err := conn.WriteMsg(after); err != nil {
			t.Fatal(err)
		}
	}
	r, err := conn.ReadMsg()
	switch {
	case err != nil:
		return err.Error()
	case unanswered && r.Id == after.Id && len(r.Question) == 1 && r.Question[0] == after.Question[0]:
		return noReply
	case !r.Response:
		return "a query"
	case r.Id != uint16(query[0])<<8|uint16(query[1]):
		return "a reply with another ID"
	}
	return describe(r, query)
}

// describe tells the RCODE of a reply, its flags and its opcode unless it is
// QUERY, the types of the answer or, with a minus sign, of the authority section,
// and EDNS: its version, the flags and the options.
func describe(r *dns.Msg, query []byte) string {
	words := []string{dns.RcodeToString[r.Rcode]}
	if r.Rcode == dns.RcodeBadVers { // named BADSIG by the package dns
		words[0] = "BADVERS"
	}
	if r.Opcode != dns.OpcodeQuery {
		words = append(words, fmt.Sprintf("op%d", r.Opcode))
	}
	for _, flag := range []struct {
		set  bool
		word string
	}{
		{r.Authoritative, "aa"}, {r.Truncated, "tc"}, {r.RecursionDesired, "rd"}, {r.RecursionAvailable, "ra"},
		{r.Zero, "z"}, {r.AuthenticatedData, "ad"}, {r.CheckingDisabled, "cd"},
	} {
		if flag.set {
			words = append(words, flag.word)
		}
	}
	for _, rr := range r.Answer {
		words = append(words, dns.Type(rr.Header().Rrtype).String())
	}
	for _, rr := range r.Ns {
		words = append(words, "-"+dns.Type(rr.Header().Rrtype).String())
	}
	if len(r.Question) > 0 && !bytes.Contains(query, packName(r.Question[0].Name)) {
		words = append(words, "another question")
	}
	for _, rr := range r.Answer {
		if rr.Header().Name != r.Question[0].Name {
			words = append(words, "owner "+rr.Header().Name)
		}
	}
	for _, rr := range r.Extra {
		o, ok := rr.(*dns.OPT)
		if !ok {
			words = append(words, "+"+dns.Type(rr.Header().Rrtype).String())
			continue
		}
		words = append(words, fmt.Sprintf("edns%d", o.Version()))
		if o.Do() {
			words = append(words, "do")
		}
		if rest := o.Hdr.Ttl & 0x7fff; rest != 0 {
			words = append(words, fmt.Sprintf("flags %#x", rest))
		}
		for _, option := range o.Option {
			words = append(words, option.String())
		}
	}
	return strings.Join(slices.Compact(words), " ")
}

// packName returns a name as it is in a message.
func packName(name string) []byte {
	b := make([]byte, 256)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		panic(err)
	}
	return b[:n]
}
