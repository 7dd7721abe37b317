package explain

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// FuzzRecords checks that any lines fit into a message, and that all that fit
// arrive as they are.
func FuzzRecords(f *testing.F) {
	f.Add("www.example.org.", "one\ntwo", 1)
	f.Add(`\000\".example.org.`, `a "b" \c \007`+"\x1b\xff", 3)
	f.Add(strings.Repeat(strings.Repeat("x", 61)+".", 4), strings.Repeat(`"\`, 300), 500)
	f.Add(".", "", 60_000)
	f.Fuzz(func(t *testing.T, owner, text string, times int) {
		if _, ok := dns.IsDomainName(owner); !ok {
			return
		}
		owner = dns.Fqdn(owner)
		var lines []string
		for range 1 + uint(times)%100_000/uint(len(text)+1) { // #nosec G115 -- any number will do
			lines = append(lines, strings.Split(text, "\n")...)
		}
		m := new(dns.Msg).SetQuestion(owner, dns.TypeTXT)
		if question, err := m.Pack(); err != nil || new(dns.Msg).Unpack(question) != nil {
			return // no client can ask for it
		}
		m.Compress = true
		m.Answer = Records(m.Question[0].Name, lines)
		packed, err := m.Pack()
		if err != nil || len(packed) > maxSize+1000 {
			t.Fatalf("Expected at most %d bytes, got %d, %v", maxSize+1000, len(packed), err)
		}
		if err := m.Unpack(packed); err != nil {
			t.Fatal(err)
		}
		n := len(m.Answer)
		if n > len(lines) || n == 0 || n < len(lines) && !strings.Contains(m.Answer[n-1].String(), "left out, as the message is full: ") {
			t.Fatalf("Expected %d lines or how many are missing, got %d", len(lines), n)
		}
		if first := m.Answer[0].(*dns.TXT); (n > 1 || len(lines) == 1) && len(lines[0]) < maxSize/2 && dnsmsg.Text(first) != lines[0] {
			t.Fatalf("Expected %q, got %v", lines[0], first)
		}
	})
}
