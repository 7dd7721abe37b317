package dnsclient

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
)

var fuzzKey = Key{Name: testKey, Algorithm: dns.HmacSHA256, Secret: "c2VjcmV0c2VjcmV0c2VjcmV0"}

// maxErrorText is how long an error about another server may be in a log line, in
// bytes.
const maxErrorText = 500

// expectLoggable checks an error about what another server sent.
func expectLoggable(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); !fuzztest.IsPrintable(text) || len(text) > maxErrorText {
		t.Fatalf("Expected an error that can be logged, got %q", text)
	}
}

// answering returns a connection to a server that answers one request with a
// message, signed with a key unless that is zero. The function waits for its end.
func answering(t *testing.T, message []byte, key Key) (conn *dns.Conn, wait func()) {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		var length uint16
		if binary.Read(server, binary.BigEndian, &length) != nil {
			return
		}
		request := make([]byte, length)
		if _, err := io.ReadFull(server, request); err != nil {
			return
		}
		message := append([]byte(nil), message...)
		if len(message) >= 2 {
			copy(message, request[:2]) // ID
		}
		asked, m := new(dns.Msg), new(dns.Msg)
		if key.Name != "" && asked.Unpack(request) == nil && m.Unpack(message) == nil && m.IsTsig() == nil {
			m.SetTsig(key.Name, key.Algorithm, Fudge, time.Now().Unix())
			mac := ""
			if tsig := asked.IsTsig(); tsig != nil {
				mac = tsig.MAC
			}
			if signed, _, err := dns.TsigGenerate(m, key.Secret, mac, false); err == nil {
				message = signed
			}
		}
		if len(message) < dns.MaxMsgSize {
			framed := binary.BigEndian.AppendUint16(nil, uint16(len(message))) // #nosec G115 -- bounded
			_, _ = server.Write(append(framed, message...))
		}
	}()
	return &dns.Conn{Conn: client}, func() { client.Close(); <-done }
}

// replies are what a fuzz target begins with.
func replies(f *testing.F, question *dns.Msg) [][]byte {
	f.Helper()
	ok := new(dns.Msg).SetReply(question)
	refused := new(dns.Msg).SetRcode(question, dns.RcodeRefused)
	refused.SetEdns0(1232, false)
	refused.IsEdns0().Option = []dns.EDNS0{
		&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: "no \x1b[31m 'accept'\nline"},
		&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: strings.Repeat("long ", 500)},
	}
	all := []*dns.Msg{ok, refused}
	for _, code := range []uint16{dns.RcodeBadKey, dns.RcodeBadSig, dns.RcodeBadTime} {
		m := new(dns.Msg).SetRcode(question, dns.RcodeNotAuth)
		m.Extra = []dns.RR{&dns.TSIG{
			Hdr: dns.RR_Header{Name: testKey, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256,
			Error: code, TimeSigned: 1 << 40, OtherLen: 6, OtherData: "ffffffffffff",
		}}
		all = append(all, m)
	}
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: ".", Mbox: "."}
	txt := &dns.TXT{Hdr: dns.RR_Header{Name: `\000.example.org.`, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"}}
	for _, answer := range [][]dns.RR{{soa}, {soa, soa}, {soa, txt, soa}, {soa, txt}, {txt, soa}} {
		m := new(dns.Msg).SetReply(question)
		m.Answer = answer
		all = append(all, m)
	}
	packed := make([][]byte, len(all))
	for i, m := range all {
		var err error
		if packed[i], err = m.Pack(); err != nil {
			f.Fatal(err)
		}
	}
	return packed
}

// FuzzExchange answers a signed request with anything. What counts as a success
// is signed, and what does not can be logged.
func FuzzExchange(f *testing.F) {
	update := new(dns.Msg).SetUpdate("example.org.")
	for _, reply := range replies(f, update) {
		f.Add(reply, true)
		f.Add(reply, false)
	}
	f.Fuzz(func(t *testing.T, reply []byte, signed bool) {
		var key Key
		if signed {
			key = fuzzKey
		}
		conn, wait := answering(t, reply, key)
		m := new(dns.Msg).SetUpdate("example.org.")
		r, err := exchange(t.Context(), conn, m, fuzzKey)
		wait()
		if err != nil {
			expectLoggable(t, err)
			return
		}
		if r.Id != m.Id {
			t.Fatalf("Expected the reply to the request, got %v", r)
		}
		switch err := CheckSigned(r, fuzzKey, "compare the keys"); {
		case err != nil:
			expectLoggable(t, err)
		case !signed || r.Rcode != dns.RcodeSuccess:
			t.Fatalf("Expected a success to be signed, got %v", r)
		}
	})
}

// FuzzTransfer answers a request for a zone with anything. What is transferred is
// signed, within its SOA records, and not longer than it may be.
func FuzzTransfer(f *testing.F) {
	axfr := new(dns.Msg).SetAxfr("example.org.")
	for _, reply := range replies(f, axfr) {
		f.Add(reply, true)
		f.Add(reply, false)
	}
	const most = 2000
	f.Fuzz(func(t *testing.T, reply []byte, signed bool) {
		var key Key
		if signed {
			key = fuzzKey
		}
		conn, wait := answering(t, reply, key)
		var records []dns.RR
		err := transfer(t.Context(), conn, "example.org.", fuzzKey, most, func(rr dns.RR) error { records = append(records, rr); return nil })
		wait()
		if err != nil {
			expectLoggable(t, err)
			return
		}
		n := len(records)
		if !signed || len(reply) > most || n == 0 || records[0].Header().Rrtype != dns.TypeSOA || records[n-1].Header().Rrtype != dns.TypeSOA {
			t.Fatalf("Expected a signed zone between its SOA records, got %v", records)
		}
	})
}

// FuzzParseEndpoint checks that what an endpoint is written as stays itself.
func FuzzParseEndpoint(f *testing.F) {
	for _, text := range []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:53", "tls://192.0.2.1", "tls://[2001:db8::1]:853#b1.example.org", "tls://192.0.2.1#", "192.0.2.1#x", "fe80::1%eth0", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:53", "tls://192.0.2.1#a#b", "0.0.0.0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEndpoint(text)
		if err != nil {
			return
		}
		if again, err := ParseEndpoint(string(e)); err != nil || again != e {
			t.Fatalf("Expected %q to stay itself, got %q, %v", e, again, err)
		}
		client, address := e.client(nil)
		if host, port, err := net.SplitHostPort(address); err != nil || net.ParseIP(strings.Split(host, "%")[0]) == nil || port == "0" || (client.Net == "tcp-tls") != strings.HasPrefix(text, "tls://") {
			t.Fatalf("Expected an address to dial, got %q of %q", address, text)
		}
	})
}
