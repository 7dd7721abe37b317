package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/bpf"
)

// packed returns a query for www.Example.org A, edited.
func packed(t testing.TB, edit func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("www.Example.org.", dns.TypeA)
	m.Id = 0x1234
	if edit != nil {
		edit(m)
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func withOptions(options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = options
	}
}

func subnet(family uint16, length uint8, address ...byte) *dns.EDNS0_SUBNET {
	return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: length, Address: address}
}

func local(code uint16, data ...byte) *dns.EDNS0_LOCAL {
	return &dns.EDNS0_LOCAL{Code: code, Data: data}
}

// simple tells what a datagram is for the parser, and for the kernel, which looks at
// the header alone.
var simple = []struct {
	name          string
	edit          func(*dns.Msg)
	parser, likes bool
}{
	{"plain", nil, true, true},
	{"flags", func(m *dns.Msg) { m.RecursionDesired, m.AuthenticatedData, m.CheckingDisabled = true, true, true }, true, true},
	{"EDNS", func(m *dns.Msg) { m.SetEdns0(1232, true) }, true, true},
	{"cookie", withOptions(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}), true, true},
	{"HTTPS", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeHTTPS }, true, true},
	{"underscore", func(m *dns.Msg) { m.Question[0].Name = "_443._tcp.example.org." }, true, true},
	{"short cookie", withOptions(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011"}), false, true},
	{"two cookies", withOptions(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}), false, true},
	{"client subnet", withOptions(subnet(1, 24, 192, 0, 2, 0)), true, true},
	{"client subnet of length 0", withOptions(subnet(1, 0, 0, 0, 0, 0)), true, true},
	{"client subnet of IPv6", withOptions(subnet(2, 33, 0x20, 1, 0xd, 0xb8, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)), true, true},
	{"client subnet and cookie", withOptions(subnet(1, 24, 192, 0, 2, 0), &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}), true, true},
	{"two client subnets", withOptions(subnet(1, 24, 192, 0, 2, 0), subnet(1, 24, 192, 0, 2, 0)), false, true},
	{"client subnet with a scope", withOptions(local(dns.EDNS0SUBNET, 0, 1, 24, 24, 192, 0, 2)), false, true},
	{"client subnet of no family", withOptions(subnet(0, 0)), false, true},
	{"client subnet with too few octets", withOptions(local(dns.EDNS0SUBNET, 0, 1, 24, 0, 192, 0)), false, true},
	{"client subnet with too many octets", withOptions(local(dns.EDNS0SUBNET, 0, 1, 16, 0, 192, 0, 0)), false, true},
	{"client subnet with bits beyond its length", withOptions(local(dns.EDNS0SUBNET, 0, 1, 23, 0, 192, 0, 1)), false, true},
	{"client subnet without a length", withOptions(local(dns.EDNS0SUBNET, 0, 1)), false, true},
	{"client subnet longer than addresses", withOptions(local(dns.EDNS0SUBNET, 0, 1, 33, 0, 192, 0, 2, 0, 0)), false, true},
	{"NSID", withOptions(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}), false, true},
	{"EDNS version", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, false, true},
	{"EDNS flags", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetZ(1) }, false, true},
	{"additional record that is no OPT", func(m *dns.Msg) {
		m.Extra = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: make([]byte, 4)}}
	}, false, true},
	{"TSIG", func(m *dns.Msg) {
		m.Extra = []dns.RR{&dns.TSIG{Hdr: dns.RR_Header{Name: "k.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256}}
	}, false, true},
	{"root", func(m *dns.Msg) { m.Question[0].Name = "." }, false, true},
	{"escape", func(m *dns.Msg) { m.Question[0].Name = `a\.b.example.org.` }, false, true},
	{"class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, false, true},
	{"DS", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeDS }, false, true},
	{"ANY", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY }, false, true},
	{"AXFR", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, false, true},
	{"NOTIFY", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, false, false},
	{"UPDATE", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, false, false},
	{"response", func(m *dns.Msg) { m.Response = true }, false, false},
	{"truncated", func(m *dns.Msg) { m.Truncated = true }, false, false},
	{"authoritative", func(m *dns.Msg) { m.Authoritative = true }, false, false},
	{"RCODE", func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }, false, false},
	{"reserved bit", func(m *dns.Msg) { m.Zero = true }, false, false},
	{"no question", func(m *dns.Msg) { m.Question = nil }, false, false},
	{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, false, false},
	{"answer", func(m *dns.Msg) { m.Answer = []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNULL}}} }, false, false},
	{"authority", func(m *dns.Msg) { m.Ns = []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNULL}}} }, false, false},
	{"large", withOptions(&dns.EDNS0_PADDING{Padding: make([]byte, 500)}), false, false},
}

func TestSimpleQueries(t *testing.T) {
	vm, err := bpf.NewVM(classifier(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range simple {
		t.Run(tc.name, func(t *testing.T) {
			packet := packed(t, tc.edit)
			if got := new(Query).Parse(packet); got != tc.parser {
				t.Errorf("Expected the parser to say %v, got %v", tc.parser, got)
			}
			for id := range 4 {
				packet[1] = byte(id)
				want := 0
				if tc.likes {
					want = 1 + id%2
				}
				if got, err := vm.Run(packet); got != want || err != nil {
					t.Errorf("Expected the kernel to choose socket %d for ID %d, got %d, %v", want, id, got, err)
				}
			}
			for i := range packet { // whatever is cut off
				if new(Query).Parse(packet[:i]) {
					t.Errorf("Expected the first %d bytes not to be a query", i)
				}
			}
			if new(Query).Parse(append(packet, 0)) {
				t.Error("Expected a query with a byte after it not to be one")
			}
		})
	}
}

func TestQueryFields(t *testing.T) {
	q := new(Query)
	if !q.Parse(packed(t, func(m *dns.Msg) { m.SetEdns0(4096, true) })) {
		t.Fatal("Expected a simple query")
	}
	if string(q.Name) != "www.example.org." || !bytes.Equal(q.Labels, []byte{0, 4, 12}) || q.Type != dns.TypeA || !q.DO || q.size != MaxReply {
		t.Errorf("Expected the fields of the query, got %s %v %d %v %d", q.Name, q.Labels, q.Type, q.DO, q.size)
	}
	if got := q.Suffix(4); string(got) != "\x07Example\x03org\x00" {
		t.Errorf("Expected the name as in the query, got %q", got)
	}
	longest := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61) + "."
	if !q.Parse(packed(t, func(m *dns.Msg) { m.Question[0].Name = longest })) || string(q.Name) != longest {
		t.Errorf("Expected the longest name, got %s", q.Name)
	}
}

func TestReplySize(t *testing.T) {
	for _, tc := range []struct {
		edns, records int // size that the query has, 0: none
		want          bool
	}{
		{0, 20, true}, {0, 30, false}, {100, 20, true}, {512, 20, true}, {512, 30, false}, {1232, 60, true}, {1232, 80, false}, {65535, 60, true}, {65535, 80, false},
	} {
		q := new(Query)
		if !q.Parse(packed(t, func(m *dns.Msg) {
			if tc.edns > 0 {
				m.SetEdns0(uint16(tc.edns), false) // #nosec G115 -- of a table
			}
		})) {
			t.Fatal("Expected a simple query")
		}
		b := q.Begin(make([]byte, MaxReply), true, dns.RcodeSuccess, tc.records, 0, 0)
		for range tc.records {
			b = AppendAddress(b, []byte{0}, netip.AddrFrom4([4]byte{192, 0, 2, 1}), 1)
		}
		n, ok := q.End(b)
		if ok != tc.want {
			t.Fatalf("Expected %v for %d records and a size of %d, got %v", tc.want, tc.records, tc.edns, ok)
		}
		if !ok {
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(b[:n:n]); tc.edns == 0 && (err != nil || len(m.Answer) != tc.records || !m.Authoritative || m.Id != 0x1234) {
			t.Errorf("Expected the reply, got %v, %v", m, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, tc := range simple {
		f.Add(packed(f, tc.edit))
	}
	vm, err := bpf.NewVM(classifier(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		q := new(Query)
		if !q.Parse(packet) {
			return
		}
		if socket, err := vm.Run(packet); len(packet) <= maxQuery && (err != nil || socket != 1) {
			t.Errorf("Expected the kernel to take %x for a simple query, got %d, %v", packet, socket, err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(packet); err != nil || len(m.Question) != 1 {
			t.Fatalf("Expected %x to be a query, got %v", packet, err)
		}
		want := m.Question[0]
		if string(q.Name) != strings.ToLower(want.Name) || q.Type != want.Qtype || want.Qclass != dns.ClassINET || m.Opcode != dns.OpcodeQuery {
			t.Errorf("Expected %v, got %s %d", want, q.Name, q.Type)
		}
		for _, label := range q.Labels {
			if name, _, err := dns.UnpackDomainName(append(q.Suffix(label), 0), 0); err != nil || strings.ToLower(name) != string(q.Name[label:]) {
				t.Errorf("Expected the suffix %s, got %s, %v", q.Name[label:], name, err)
			}
		}
		opt := m.IsEdns0()
		if (opt != nil) != q.opt || opt != nil && opt.Do() != q.DO {
			t.Errorf("Expected OPT record %v, got %v, DO %v", opt, q.opt, q.DO)
		}
		out := make([]byte, MaxReply)
		n, ok := q.End(q.Begin(out, false, dns.RcodeNameError, 0, 0, 0))
		if !ok {
			return
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(out[:n]); err != nil || !reply.Response || reply.Id != binary.BigEndian.Uint16(packet) || reply.Rcode != dns.RcodeNameError || reply.Question[0] != want {
			t.Errorf("Expected a reply to %x, got %x, %v", packet, out[:n], err)
		}
	})
}
