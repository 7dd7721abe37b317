package dnsb

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/topsites"
)

// txtLines returns the lines of an explanation.
func txtLines(t *testing.T, m *dns.Msg) []string {
	t.Helper()
	var lines []string
	for _, rr := range m.Answer {
		txt, ok := rr.(*dns.TXT)
		if !ok || rr.Header().Ttl != 1 {
			t.Fatalf("Expected TXT records with a TTL of %d, got %v", 1, rr)
		}
		lines = append(lines, strings.Join(txt.Txt, ""))
	}
	return lines
}

func withSubnet(family uint16, bits uint8, addr string) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(4096, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: net.ParseIP(addr)}}
	}
}

func TestExplainByDNS(t *testing.T) {
	d := started(t, "accept k1 par1 any\nnode st1 192.0.2.4\ncut svc st1\nprefix 203.0.113.0/24 st1\ndefault st1\nexplain 198.51.100.0/24 2001:db8::/32", nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "198.51.100.0/24"))
	large := func(m *dns.Msg) { m.SetEdns0(4096, false) }
	for _, tc := range []struct {
		name, from string
		edit       func(*dns.Msg)
		want       []string
	}{
		{"_explain.svc." + testZone, "198.51.100.7", large, []string{
			"resolver 198.51.100.7", "cut svc." + testZone, "refer to par1 192.0.2.1", "NS TTL 30",
			"reason: par1 registered 198.51.100.0/24, the longest prefix with an eligible node", "layer registration", "prefix 198.51.100.0/24",
			"source: registration of par1, lease until ", "candidate 1: par1 live, registration 198.51.100.0/24, chosen",
		}},
		{"_EXPLAIN.www.svc." + testZone, "2001:db8::1", withSubnet(1, 32, "203.0.113.7"), []string{
			"resolver 203.0.113.7", "cut svc." + testZone, "refer to st1 192.0.2.4", "NS TTL 30", "reason: the operator named st1 for ", "layer operator",
			"prefix 203.0.113.0/24", "source: Testfile:6", "candidate 1: st1 live, operator 203.0.113.0/24, chosen",
		}},
		{"_explain." + testZone, "198.51.100.7", withSubnet(2, 128, "64:ff9b::cb00:7107"), []string{
			"resolver 64:ff9b::cb00:7107, looked up as 203.0.113.7", "cut svc.", "refer to st1", "NS TTL", "reason", "layer operator", "prefix", "source", "candidate 1: st1",
		}},
		{"_explain.svc." + testZone, "198.51.100.7", withSubnet(1, 0, "0.0.0.0"), []string{
			"resolver 198.51.100.7", "cut", "refer to par1", "NS", "reason", "layer", "prefix", "source", "candidate",
		}},
		{"_explain.www." + testZone, "198.51.100.7", large, []string{"www." + testZone + " is not at or below a cut; the cuts are: svc." + testZone}},
		{"nodes._explain." + testZone, "198.51.100.7", large, []string{"par1 live, lease until ", "st1 live, static, 0 prefixes"}},
		{"unmapped._explain." + testZone, "198.51.100.7", large, []string{"0 referrals of resolvers that no prefix covers since "}},
		{"overlaps._explain." + testZone, "198.51.100.7", large, []string{"overlaps with other nodes: 0 registered prefixes"}},
	} {
		m := ask(t, d, tc.from, tc.name, dns.TypeTXT, tc.edit)
		got := txtLines(t, m)
		if !m.Authoritative || !slices.EqualFunc(got, tc.want, strings.HasPrefix) {
			t.Errorf("%s from %s: Expected %q, got %q", tc.name, tc.from, tc.want, got)
		}
		if opt := m.IsEdns0(); opt != nil && len(opt.Option) > 0 {
			t.Errorf("%s: Expected no option, got %v", tc.name, opt)
		}
	}

	// All others see names like any other.
	for _, tc := range []struct {
		name, from string
		qtype      uint16
		rcode      int
		referral   bool
	}{
		{"_explain.svc." + testZone, "203.0.113.7", dns.TypeTXT, dns.RcodeSuccess, true},
		{"_explain.svc." + testZone, "198.51.100.7", dns.TypeA, dns.RcodeSuccess, true},
		{"_explain." + testZone, "203.0.113.7", dns.TypeTXT, dns.RcodeNameError, false},
		{"nodes._explain." + testZone, "203.0.113.7", dns.TypeTXT, dns.RcodeNameError, false},
		{"other._explain." + testZone, "198.51.100.7", dns.TypeTXT, dns.RcodeNameError, false},
		{"x_explain." + testZone, "198.51.100.7", dns.TypeTXT, dns.RcodeNameError, false},
	} {
		if m := ask(t, d, tc.from, tc.name, tc.qtype); m.Rcode != tc.rcode || len(m.Answer) > 0 || tc.referral == m.Authoritative {
			t.Errorf("%s %s from %s: Expected it to be like any other name, got %v", tc.name, dns.TypeToString[tc.qtype], tc.from, m)
		}
	}
	empty := started(t, "accept k1 par1 any\nexplain 198.51.100.0/24", nil)
	if got := txtLines(t, ask(t, empty, "198.51.100.7", "_explain."+testZone, dns.TypeTXT)); len(got) != 1 || !strings.HasPrefix(got[0], "there are no cuts") {
		t.Errorf("Expected a line that there are no cuts, got %q", got)
	}
	off := started(t, "node st1 192.0.2.4\ncut svc st1", nil)
	if m := ask(t, off, "198.51.100.7", "_explain.svc."+testZone, dns.TypeTXT); len(m.Answer) > 0 || len(m.Ns) != 1 {
		t.Errorf("Expected no explanation without the line, got %v", m)
	}
}

// TestExplanationFitsIntoMessage checks that an explanation is truncated over UDP,
// and ends early over TCP.
func TestExplanationFitsIntoMessage(t *testing.T) {
	d := started(t, "node st1 192.0.2.4\ncut svc st1\nexplain 198.51.100.0/24", nil)
	if m := ask(t, d, "198.51.100.7", "_explain.svc."+testZone, dns.TypeTXT); m.Truncated || len(m.Answer) != 7 || m.Len() > 512 {
		t.Errorf("Expected an explanation to fit into 512 bytes, got %d, %v", m.Len(), m)
	}
	for i := range topsites.Capacity {
		referredTo(t, d, fmt.Sprintf("10.%d.%d.1", i/256, i%256))
	}
	m := ask(t, d, "198.51.100.7", "unmapped._explain."+testZone, dns.TypeTXT)
	if !m.Truncated || len(m.Answer) > 0 {
		t.Errorf("Expected a truncated reply over UDP, got %v", m)
	}
	lines := d.unmappedLines()
	m = askTCP(t, d, "198.51.100.7", "unmapped._explain."+testZone)
	got := txtLines(t, m)
	if wire, err := m.Pack(); err != nil || len(wire) > dns.MaxMsgSize || m.Truncated {
		t.Errorf("Expected the reply to fit, got %d bytes, %v", len(wire), err)
	}
	if n := len(got) - 1; got[n] != fmt.Sprintf("left out, as the message is full: %d lines", len(lines)-n) || n < 400 || !slices.Equal(got[:n], lines[:n]) {
		t.Errorf("Expected as many lines as fit and a word on the others, got %d of %d: %q", n, len(lines), got[n])
	}
}

// askTCP asks for TXT records as a resolver at an address.
func askTCP(t *testing.T, d *DNSB, from, name string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: from, TCP: true})
	if _, err := d.ServeDNS(context.Background(), w, m); err != nil || w.Msg == nil {
		t.Fatalf("Expected a reply for %s, got: %v", name, err)
	}
	return w.Msg
}

func TestExplainWithDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("Expected dig to be installed")
		}
		t.Skip("no dig")
	}
	_, port := serve(t, "node st1 192.0.2.4\ncut static st1\nprefix 203.0.113.0/24 st1\nexplain 127.0.0.1/32")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"+subnet=203.0.113.7", "_explain.www.static.gslb.example.org"}, "\"resolver 203.0.113.7\"\n\"cut static.gslb.example.org.\"\n\"refer to st1 192.0.2.4\"\n\"NS TTL 30\"\n\"reason: the operator named st1"},
		{[]string{"_explain.static.gslb.example.org"}, "\"resolver 127.0.0.1\"\n\"cut"},
		{[]string{"+noedns", "+ignore", "nodes._explain.gslb.example.org"}, "\"st1 live, static, 0 prefixes\"\n"},
		{[]string{"+subnet=2001:db8::/48", "_explain.gslb.example.org"}, "\"resolver 2001:db8::\"\n"},
	} {
		args := append([]string{"@127.0.0.1", "-p", fmt.Sprint(port), "+short", "+tries=1", "-t", "TXT"}, tc.args...)
		out, err := exec.Command(dig, args...).CombinedOutput() // #nosec G204 -- a test
		if err != nil || !strings.HasPrefix(string(out), tc.want) {
			t.Errorf("%v: Expected %s, got %s, %v", tc.args, tc.want, out, err)
		}
	}
}
