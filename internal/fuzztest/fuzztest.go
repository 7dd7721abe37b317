// Package fuzztest sends the packets of fuzz tests to a plugin as CoreDNS does,
// and checks the replies.
package fuzztest

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// Request returns the message in a packet; ok is false for what CoreDNS answers
// before it calls a plugin. TSIG is what the test itself adds.
func Request(packet []byte) (r *dns.Msg, ok bool) {
	r = new(dns.Msg)
	if r.Unpack(packet) != nil || r.Response || len(r.Question) != 1 || r.Question[0].Qclass != dns.ClassINET || r.IsTsig() != nil {
		return nil, false
	}
	if opt := r.IsEdns0(); opt != nil && opt.Version() != 0 {
		return nil, false
	}
	switch r.Opcode {
	case dns.OpcodeUpdate:
		return r, true
	case dns.OpcodeQuery, dns.OpcodeNotify:
		return r, len(r.Answer) <= 1 && len(r.Ns) <= 1 && len(r.Extra) <= 2
	}
	return nil, false
}

// Client is who sends a request.
type Client struct {
	Addr     netip.Addr
	TCP      bool
	Tailored bool // the plugin answers for client subnets: each reply has one, with any scope
}

// ClientOf makes a client of bytes: an address, 4 or 16 of them, or loopback.
func ClientOf(address []byte, tcp bool) Client {
	addr, ok := netip.AddrFromSlice(address)
	if !ok {
		addr = netip.MustParseAddr("127.0.0.1")
	}
	return Client{Addr: addr, TCP: tcp}
}

// Ask hands a request to a plugin and returns the checked replies. There is none
// if the plugin leaves that to CoreDNS, and several for a transfer.
func Ask(t *testing.T, h plugin.Handler, r *dns.Msg, from Client) []*dns.Msg {
	t.Helper()
	original := r.Copy() // plugins change the request
	w := &writer{ResponseWriter: test.ResponseWriter{TCP: from.TCP, RemoteIP: from.Addr.String()}}
	rcode, err := h.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r)
	if err != nil && !strings.Contains(err.Error(), "no next plugin found") {
		t.Fatalf("Expected no error, got %v", err)
	}
	if written := len(w.replies) > 0; written != plugin.ClientWrite(rcode) && r.Opcode == dns.OpcodeQuery { // *file* drops a NOTIFY
		t.Fatalf("Expected a reply or an RCODE that stands for one, got %s and %v", dns.RcodeToString[rcode], w.replies)
	}
	for i, m := range w.replies {
		w.replies[i] = check(t, original, m, from)
	}
	return w.replies
}

// writer collects replies.
type writer struct {
	test.ResponseWriter
	replies []*dns.Msg
}

// WriteMsg implements the dns.ResponseWriter interface.
func (w *writer) WriteMsg(m *dns.Msg) error {
	w.replies = append(w.replies, m)
	return nil
}

// check checks a reply and returns it as the client reads it.
func check(t *testing.T, r, m *dns.Msg, from Client) *dns.Msg {
	t.Helper()
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeTSIG }) // package dns signs it
	packed, err := m.Pack()
	if err != nil {
		t.Fatalf("Expected a reply that packs, got %v: %v", err, m)
	}
	got := new(dns.Msg)
	if err := got.Unpack(packed); err != nil {
		t.Fatalf("Expected a reply that can be read, got %v: %v", err, m)
	}
	most, opt := dns.MinMsgSize, r.IsEdns0()
	switch {
	case from.TCP:
		most = dns.MaxMsgSize - 1
	case opt != nil:
		most = min(max(most, int(opt.UDPSize())), dnsmsg.MaxUDPSize)
	}
	if len(packed) > most {
		t.Fatalf("Expected at most %d bytes, got %d: %v", most, len(packed), got)
	}
	switch {
	case !got.Response || got.Id != r.Id || got.Opcode != r.Opcode || len(got.Question) != 1 || got.Question[0] != r.Question[0]:
		t.Fatalf("Expected a reply to %v, got %v", r, got)
	case got.Truncated && from.TCP:
		t.Fatalf("Expected no truncation over TCP, got %v", got)
	case got.IsEdns0() != nil && opt == nil:
		t.Fatalf("Expected no OPT record without one in the request, got %v", got)
	}
	checkOptions(t, r, got, from.Tailored)
	return got
}

// checkOptions checks the EDNS options of a reply: the client subnet of the request
// (RFC 7871, section 7.2.1) and texts that can be shown.
func checkOptions(t *testing.T, r, m *dns.Msg, tailored bool) {
	t.Helper()
	for s := range dnsmsg.Options[*dns.EDNS0_SUBNET](m) {
		echoes := false
		for asked := range dnsmsg.Options[*dns.EDNS0_SUBNET](r) {
			echoes = echoes || asked.Family == s.Family && asked.SourceNetmask == s.SourceNetmask && net.IP.Equal(asked.Address, s.Address)
		}
		longest := s.SourceNetmask
		if tailored {
			longest = map[uint16]uint8{1: 32, 2: 128}[s.Family]
		}
		if !echoes || s.SourceScope != 0 && s.SourceScope != s.SourceNetmask && !tailored || s.SourceScope > longest {
			t.Fatalf("Expected the client subnet of the request, got %v in reply to %v", s, r)
		}
		negative := m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 && !m.Truncated
		if explained := len(m.Question) > 0 && strings.HasPrefix(m.Question[0].Name, "_"); tailored && negative && s.SourceScope != 0 && !explained {
			t.Fatalf("Expected scope 0 of a negative reply, got %v", m)
		}
	}
	if tailored && dnsmsg.Subnet(m) == nil && dnsmsg.Subnet(r) != nil {
		t.Fatalf("Expected the client subnet of %v, got %v", r, m)
	}
	for ede := range dnsmsg.Options[*dns.EDNS0_EDE](m) {
		if !IsPrintable(ede.ExtraText) {
			t.Fatalf("Expected a text that can be shown, got %q", ede.ExtraText)
		}
	}
}

// CheckExplanation checks that the lines of an explanation can be shown.
func CheckExplanation(t *testing.T, m *dns.Msg) {
	t.Helper()
	for _, rr := range m.Answer {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			t.Fatalf("Expected TXT records, got %v", rr)
		}
		if text := dnsmsg.Text(txt); inputfile.Printable(text) != text {
			t.Fatalf("Expected a text that can be shown, got %q", text)
		}
	}
}

// IsPrintable reports whether a text is printable ASCII.
func IsPrintable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// position is that of a line: FILE:LINE.
var position = regexp.MustCompile(`[^ ]:[1-9][0-9]*( - |: )`)

// CheckPosition checks an error about a text that an operator wrote: it names the
// line, can be shown, and is not much longer than the text.
func CheckPosition(t *testing.T, err error, text string) {
	t.Helper()
	switch message := err.Error(); {
	case !position.MatchString(message):
		t.Fatalf("Expected an error with a line, got %q for %q", message, text)
	case inputfile.Printable(message) != message:
		t.Fatalf("Expected an error that can be shown, got %q for %q", message, text)
	case len(message) > 10*len(text)+4000:
		t.Fatalf("Expected a short error, got %q for %q", message, text)
	}
}
