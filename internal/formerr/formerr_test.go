package formerr

import (
	"bytes"
	"net"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

func TestMain(m *testing.M) {
	Install()
	m.Run()
}

// packed returns a query with options, changed.
func packed(t testing.TB, change func(*dns.Msg), options ...dns.EDNS0) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("wWw.example.org.", dns.TypeA)
	m.Id = 4711
	m.SetEdns0(4096, true)
	m.IsEdns0().Option = options
	change(m)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func subnet(data ...byte) dns.EDNS0 { return &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: data} }

// TestReplies sends messages to a server of package dns, which answers FORMERR.
func TestReplies(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, DecorateWriter: Writer, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeFormatError)) // no OPT record, and the query could be read
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	client, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	same := func(*dns.Msg) {}
	cut := packed(t, same, subnet(0, 3, 0, 0))
	for _, tc := range []struct {
		name  string
		query []byte
		size  uint16 // of the OPT record; 0: there is none
		do    bool
	}{
		{"family 3", packed(t, same, subnet(0, 3, 24, 0, 198, 51, 100)), dnsmsg.MaxUDPSize, true},
		{"33 bits of IPv4", packed(t, same, subnet(0, 1, 33, 0, 198, 51, 100, 0, 0)), dnsmsg.MaxUDPSize, true},
		{"129 bits of IPv6", packed(t, same, subnet(0, 2, 129, 0)), dnsmsg.MaxUDPSize, true},
		{"family 0 with a length", packed(t, same, subnet(0, 0, 24, 0, 198, 51, 100)), dnsmsg.MaxUDPSize, true},
		{"three octets", packed(t, same, subnet(0, 1, 24)), dnsmsg.MaxUDPSize, true},
		{"no octets", packed(t, same, subnet()), dnsmsg.MaxUDPSize, true},
		{"small size without DO", packed(t, func(m *dns.Msg) { m.Extra = nil; m.SetEdns0(800, false); m.IsEdns0().Option = []dns.EDNS0{subnet()} }), 800, false},
		{"another version", packed(t, func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }, subnet()), dnsmsg.MaxUDPSize, true},
		{"no RD", packed(t, func(m *dns.Msg) { m.RecursionDesired = false }, subnet()), dnsmsg.MaxUDPSize, true},
		{"signed", packed(t, func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: "k.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256, OrigId: m.Id})
		}, subnet()), dnsmsg.MaxUDPSize, true},
		{"after a record", packed(t, func(m *dns.Msg) {
			m.Extra = append([]dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeNULL, Class: dns.ClassINET}, Data: "abc"}}, m.Extra...)
		}, subnet()), dnsmsg.MaxUDPSize, true},
		{"cut in its options", cut[:len(cut)-1], dnsmsg.MaxUDPSize, true},
		{"cut in the OPT record", cut[:len(cut)-9], 0, false},
		{"no EDNS, cut", packed(t, func(m *dns.Msg) { m.Extra = nil })[:20], 0, false},
		{"readable", packed(t, same), 0, false}, // its reply is not that of package dns
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := client.Write(tc.query); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 512)
			n, err := client.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			r := new(dns.Msg)
			if err := r.Unpack(b[:n]); err != nil {
				t.Fatal(err)
			}
			if r.Rcode != dns.RcodeFormatError || r.Id != 4711 || r.RecursionDesired != (tc.query[2]&1 == 1) {
				t.Errorf("Expected FORMERR with ID and RD of the query, got %v", r)
			}
			opt := r.IsEdns0()
			if opt == nil && tc.size == 0 && len(r.Extra) == 0 {
				return
			}
			if tc.size == 0 || opt == nil || len(r.Extra) != 1 || len(r.Question) != 1 || r.Question[0].Name != "wWw.example.org." {
				t.Fatalf("Expected the question and an OPT record of size %d, got %v", tc.size, r)
			}
			if opt.UDPSize() != tc.size || opt.Do() != tc.do || opt.Version() != 0 || len(opt.Option) > 0 || !bytes.Equal(b[12:n-11], tc.query[12:12+n-23]) {
				t.Errorf("Expected size %d and DO %v, got %v", tc.size, tc.do, opt)
			}
		})
	}

	t.Run("nothing stays", func(t *testing.T) {
		for i := range unread {
			if u := unread[i].Load(); u != nil {
				t.Errorf("Expected each query to be forgotten with its reply, got %+v", u)
			}
		}
	})
}

// TestOtherRepliesStay checks that no other reply is changed, and none takes memory.
func TestOtherRepliesStay(t *testing.T) {
	query := packed(t, func(*dns.Msg) {}, subnet())
	note(query)
	t.Cleanup(func() {
		for i := range unread {
			unread[i].Store(nil)
		}
	})
	reply := packed(t, func(m *dns.Msg) { m.Extra, m.Response, m.Rcode = nil, true, dns.RcodeFormatError })
	for name, change := range map[string]func([]byte){
		"another ID":       func(b []byte) { b[1]++ },
		"another question": func(b []byte) { b[13] = 'x' },
		"another RCODE":    func(b []byte) { b[3] = b[3]&^rcodes | dns.RcodeServerFailure },
	} {
		other := bytes.Clone(reply)
		change(other)
		if n := testing.AllocsPerRun(10, func() {
			if got := complete(other); !bytes.Equal(got, other) {
				t.Errorf("%s: Expected the reply to stay, got %x", name, got)
			}
		}); n > 0 {
			t.Errorf("%s: Expected no allocations, got %v", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { parse(query) }); n > 0 {
		t.Errorf("Expected no allocations to read a query, got %v", n)
	}
	if got := complete(reply); len(got) != len(reply)+11 {
		t.Errorf("Expected an OPT record, got %x", got)
	}
	if got := complete(reply); !bytes.Equal(got, reply) {
		t.Errorf("Expected no OPT record in a second reply, got %x", got)
	}
}

// FuzzParse compares what is read of any message with what package dns reads, as far as
// that can read it.
func FuzzParse(f *testing.F) {
	same := func(*dns.Msg) {}
	for _, b := range [][]byte{
		packed(f, same), packed(f, same, subnet(0, 1, 24, 0, 198, 51, 100)), packed(f, same, subnet(0, 3, 0, 0)), packed(f, func(m *dns.Msg) { m.Extra = nil }),
		packed(f, func(m *dns.Msg) { m.SetEdns0(1232, false) }), packed(f, same)[:30], packed(f, func(m *dns.Msg) {
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeNS}, Ns: "a."}}
		}),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		q, ok := parse(message)
		if !ok && q.edns {
			t.Fatalf("Expected no OPT record in what is no query, got %+v", q)
		}
		m := new(dns.Msg)
		if err := m.Unpack(message); err != nil || m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || len(message) < 12 || message[4] != 0 || message[5] != 1 {
			return
		}
		if len(m.Answer) != count(message, 6) || len(m.Ns) != count(message, 8) || len(m.Extra) != count(message, 10) {
			return // package dns takes a count that is too high for a lie, and stops
		}
		if !ok {
			if end, _ := skipName(message[12:]); len(end) < questionTail {
				return // package dns takes a question without class
			}
			t.Fatalf("Expected a query, got none in %x", message)
		}
		opts := 0
		for _, rr := range m.Extra {
			if rr.Header().Rrtype == dns.TypeOPT && rr.Header().Name == "." {
				opts++
			} else if rr.Header().Rrtype == dns.TypeOPT {
				return // with a name, which RFC 6891 forbids
			}
		}
		opt := m.IsEdns0()
		if q.edns != (opts > 0) || opt != nil && (q.size != opt.UDPSize() || q.do != opt.Do()) {
			t.Fatalf("Expected %v, got %+v", opt, q)
		}
		question, err := (&dns.Msg{Question: m.Question}).Pack()
		if err == nil && bytes.IndexByte(q.question, 0xc0) < 0 && !bytes.Equal(question[12:], q.question) {
			t.Fatalf("Expected question %x, got %x", question[12:], q.question)
		}
	})
}
