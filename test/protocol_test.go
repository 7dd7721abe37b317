//go:build unix

package test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestProtocolMatchesNSD sends messages that differ in opcode, class, type,
// flags and EDNS, and accepts the listed differences only.
func TestProtocolMatchesNSD(t *testing.T) {
	needNSD(t)
	p := newPair(t, "", true)
	for _, tc := range protocolTests {
		for _, network := range []string{"udp", "tcp"} {
			m := new(dns.Msg).SetQuestion(www, dns.TypeA)
			tc.change(m)
			if got := p.raw(network, p.dnslb, m); got != tc.want {
				t.Errorf("%s over %s: Expected %q, got %q", tc.name, network, tc.want, got)
			}
			if got := p.raw(network, p.nsd, m); tc.differs == "" && got != tc.want {
				t.Errorf("%s over %s: Expected %q from NSD, got %q", tc.name, network, tc.want, got)
			}
		}
	}
}

var protocolTests = []struct {
	name    string
	change  func(m *dns.Msg)
	want    string
	differs string // how NSD differs, or ""
}{
	{"opcode NOTIFY", func(m *dns.Msg) { m.SetNotify(cut) }, "NOTIMP", "REFUSED, since it is not a secondary"},
	{"opcode UPDATE", func(m *dns.Msg) { m.SetUpdate(cut) }, "NOTIMP", ""},
	{"opcode STATUS", func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, "NOTIMP", ""},
	{"opcode IQUERY", func(m *dns.Msg) { m.Opcode = dns.OpcodeIQuery }, "NOTIMP", ""},
	{"no question", func(m *dns.Msg) { m.Question = nil }, "FORMERR", "no reply over TCP"},
	{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR", ""},
	{"class CH", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED", ""},
	{"class HS", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassHESIOD }, "REFUSED", ""},
	{"class ANY", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED", "answers as for IN, which RFC 1035 allows"},
	{"type ANY", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY }, "NOERROR aa HINFO", "answers with all records; RFC 8482 advises less"},
	{"type AXFR", func(m *dns.Msg) { m.SetAxfr(cut) }, "REFUSED", "NOTIMP over UDP"},
	{"type IXFR", func(m *dns.Msg) { m.SetIxfr(cut, 1, "ns.example.org.", "hostmaster.example.org.") }, "REFUSED", ""},
	{"type 0", func(m *dns.Msg) { m.Question[0].Qtype = 0 }, "NOERROR aa SOA", ""},
	{"type OPT", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }, "NOERROR aa SOA", ""},
	{"type TSIG", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTSIG }, "NOERROR aa SOA", ""},
	{"type MAILB", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMAILB }, "NOERROR aa SOA", ""},
	{"type RRSIG", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeRRSIG }, "NOERROR aa SOA", ""},
	{"another zone", func(m *dns.Msg) { m.Question[0].Name = "www.example.net." }, "REFUSED", ""},
	{"flag AD", func(m *dns.Msg) { m.AuthenticatedData = true }, "NOERROR aa A", ""},
	{"flag CD", func(m *dns.Msg) { m.CheckingDisabled = true }, "NOERROR aa cd A", "clears the flag, which RFC 4035, section 3.1.6, says to copy"},
	{"EDNS version 1", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, "BADVERS edns", ""},
	{"EDNS size 0", func(m *dns.Msg) { m.SetEdns0(0, false) }, "NOERROR aa A edns", ""},
	{"two OPT records", func(m *dns.Msg) { m.SetEdns0(1232, false).SetEdns0(1232, false) }, "NOERROR aa A edns", "FORMERR (RFC 6891, section 6.1.1); CoreDNS does not check"},
	{"an unknown option", option(&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}}), "NOERROR aa A edns", ""},
	{"a cookie", option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}), "NOERROR aa A edns", ""},
	{"NSID", option(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}), "NOERROR aa A edns", ""},
	{
		"a client subnet", option(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}}),
		"NOERROR aa A edns 198.51.100.0/24/0", "ignores the option",
	},
}

// option returns a change that adds an EDNS option.
func option(o dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{o}
	}
}

// raw sends a message and describes the reply: RCODE, flags, the types of the
// answer or else of the authority section, and EDNS.
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
	if r.Rcode == dns.RcodeBadVers { // named BADSIG by the package dns
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
