package registration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const (
	addr  = "par1.lb.gslb.example.org. 0 A 192.0.2.53\n"
	part0 = addr + "par1.lb.gslb.example.org. 0 TXT \"v=1 serial=1 parts=2\"\n0.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24\n"
)

var digest = strings.Repeat("c0de", 16) // in hexadecimal, of SHA-256

// parseTests have the records of an update, one a line, and what Parse returns.
var parseTests = []struct {
	name  string
	text  string
	rcode string // "": no error
	want  string // in the text of the error
}{
	{"without deletion", addr + "svc.gslb.example.org. 60 NS par1.lb.gslb.example.org.", "", ""},
	{"with deletion", "delete par1.lb.gslb.example.org. ANY\n" + addr, "", ""},
	{"mixed case", "PAR1.LB.gslb.Example.Org. 0 A 192.0.2.53\nsvc.gslb.example.org. 0 NS Par1.lb.gslb.example.ORG.", "", ""},
	{"withdrawal", "delete par1.lb.gslb.example.org. ANY", "", ""},
	{"unknown words", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 cost=12 colour=blue serial=7"`, "", ""},
	{"words in separate strings", addr + `par1.lb.gslb.example.org. 0 TXT v=1 serial=7`, "", ""},
	{"part 0", part0, "", ""},
	{"part 1 with deletion", "delete 1.par1.lb.gslb.example.org. ANY\n1.PAR1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24\n" + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "", ""},
	{"same prefix twice", addr + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24 1:192.0.2.0/24", "", ""},

	{"empty update", "", "REFUSED", "names no node"},
	{"no address", "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "REFUSED", "no address"},
	{"cut without address", "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.", "REFUSED", "no address"},
	{"deletion of a cut alone", "delete svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.", "REFUSED", "no address"},
	{"address before deletion", addr + "delete par1.lb.gslb.example.org. ANY\nsvc.gslb.example.org. 0 NS par1.lb.gslb.example.org.", "REFUSED", "no address"},
	{"two nodes", addr + "nyc1.lb.gslb.example.org. 0 A 192.0.2.54", "REFUSED", "one message for each node"},
	{"two nodes by NS", addr + "svc.gslb.example.org. 0 NS nyc1.lb.gslb.example.org.", "REFUSED", "one message for each node"},
	{"two nodes by deletion", addr + "delete nyc1.lb.gslb.example.org. ANY", "REFUSED", "one message for each node"},
	{"NS of a name that is not a node", addr + "svc.gslb.example.org. 0 NS ns.example.net.", "REFUSED", "not the name of a node"},
	{"address of a name that is not a node", "www.gslb.example.org. 0 A 192.0.2.53", "REFUSED", "not the name of a node"},
	{"below a node", "x.par1.lb.gslb.example.org. 0 A 192.0.2.53", "REFUSED", "expected one label"},
	{"address of a part", "0.par1.lb.gslb.example.org. 0 A 192.0.2.53", "REFUSED", "a part has APL and TXT"},
	{"part with a leading zero", "00.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "REFUSED", "expected one label"},
	{"part of a part", "0.0.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "REFUSED", "expected one label"},
	{"part number too high", "20.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "REFUSED", "at most 20 parts"},
	{"two parts in one message", part0 + "1.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "FORMERR", "one message for each part"},
	{"parts without TXT", addr + "0.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "FORMERR", "TXT parts=0"},
	{"part number not below the number of parts", `2.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "FORMERR", "part 2 of node par1 does not go with TXT parts=2"},
	{"part without serial", `1.par1.lb.gslb.example.org. 0 TXT "v=1 parts=2"`, "FORMERR", "no serial"},
	{"part 0 without address", `0.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "REFUSED", "no address"},
	{"address in part 1", addr + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "FORMERR", "move the rest to part 0"},
	{"cut in part 1", "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\n" + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "FORMERR", "move the rest to part 0"},
	{"deletion in part 1", "delete par1.lb.gslb.example.org. ANY\n" + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "FORMERR", "move the rest to part 0"},
	{"deputy in part 1", `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2 deputy=lon1"`, "FORMERR", "move the rest to part 0"},
	{"NS of a part", addr + "svc.gslb.example.org. 0 NS 0.par1.lb.gslb.example.org.", "REFUSED", "name of a part"},
	{"prefixes of the node beside those of a part", part0 + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", "FORMERR", "to the name of the part"},
	{"deletion after additions", part0 + "delete 0.par1.lb.gslb.example.org. ANY", "FORMERR", "delete first"},
	{"invalid label", "p_1.lb.gslb.example.org. 0 A 192.0.2.53", "REFUSED", "expected one label"},
	{"label lb without a node", "delete lb.gslb.example.org. ANY", "REFUSED", "not the name of a node"},
	{"cut outside the zone", addr + "svc.example.org. 0 NS par1.lb.gslb.example.org.", "NOTZONE", "not in the zone"},
	{"deletion of the NS records of all nodes", addr + "delete svc.gslb.example.org. NS", "REFUSED", "cannot delete the NS records"},
	{"deletion of one type", addr + "delete par1.lb.gslb.example.org. A", "REFUSED", "cannot delete the A records"},
	{"deletion of one address", addr + "delete par1.lb.gslb.example.org. 0 A 192.0.2.53", "REFUSED", "cannot delete one A record"},
	{"deletion of the NS record of another node", addr + "delete svc.gslb.example.org. 0 NS nyc1.lb.gslb.example.org.", "REFUSED", "one message for each node"},
	{"type that a node does not have", addr + "par1.lb.gslb.example.org. 0 MX 10 mail.example.org.", "REFUSED", "a node has A, AAAA"},
	{"prefix and its negation", addr + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24 !1:192.0.2.0/24", "FORMERR", "192.0.2.0/24 and !192.0.2.0/24"},
	{"prefix and its negation in two records", addr + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24\npar1.lb.gslb.example.org. 0 APL !1:192.0.2.0/24", "FORMERR", "192.0.2.0/24 and !192.0.2.0/24"},
	{"multicast", "par1.lb.gslb.example.org. 0 A 224.0.0.1", "REFUSED", "expected the IP address of a host"},
	{"unspecified", "par1.lb.gslb.example.org. 0 AAAA ::", "REFUSED", "expected the IP address of a host"},
	{"mapped", "par1.lb.gslb.example.org. 0 AAAA ::ffff:192.0.2.1", "REFUSED", "expected the IP address of a host"},
	{"two TXT", addr + "par1.lb.gslb.example.org. 0 TXT v=1\npar1.lb.gslb.example.org. 0 TXT \"v=1 serial=1\"", "FORMERR", "two TXT"},
	{"TXT without version", addr + "par1.lb.gslb.example.org. 0 TXT hello", "FORMERR", "v=1"},
	{"unknown version", addr + "par1.lb.gslb.example.org. 0 TXT v=2", "NOTIMP", "unknown version 'v=2'"},
	{"parts at the node", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, "FORMERR", "to the name of the part"},
	{"number of parts not a number", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 parts=x"`, "FORMERR", "number of parts"},
	{"zero parts", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 parts=0"`, "FORMERR", "number of parts"},
	{"too many parts", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 parts=21"`, "REFUSED", "at most 20 parts"},
	{"serial not a number", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 serial=x"`, "FORMERR", "serial"},
	{"serial zero", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 serial=0"`, "FORMERR", "serial"},
	{"DS", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nSVC.gslb.example.org. 0 DS 1 13 2 " + digest, "", ""},
	{"DS without an NS record", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nother.gslb.example.org. 0 DS 1 13 2 " + digest, "REFUSED", "without an NS record"},
	{"DS of SHA-1", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nsvc.gslb.example.org. 0 DS 1 13 1 " + digest[:40], "REFUSED", "SHA-256"},
	{"DS of a wrong length", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nsvc.gslb.example.org. 0 DS 1 13 2 " + digest[:40], "FORMERR", "32 bytes"},
	{"DS without a node", "delete par1.lb.gslb.example.org. ANY\nsvc.gslb.example.org. 0 DS 1 13 2 " + digest, "REFUSED", "no address"},
	{"deletion of a DS", addr + "delete svc.gslb.example.org. DS", "REFUSED", "cannot delete the DS records"},
	{"client subnets", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 client-subnets serial=7 client-subnets"`, "", ""},
	{"client subnets with a value", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 client-subnets=no"`, "FORMERR", "client-subnets alone"},
	{"servers beside nodes", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 beside=par1,lon1 serial=7 beside=fra1 beside=+nyc1,fra1"`, "", ""},
	{"servers beside nothing", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 beside="`, "FORMERR", "'' is not the label of a node"},
	{"servers beside no label", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 beside=par1,a.b"`, "FORMERR", "'a.b' is not the label of a node"},
	{"more of no servers", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 beside=+par1"`, "FORMERR", "there is no 'beside' before it"},
	{"too many servers beside nodes", addr + `par1.lb.gslb.example.org. 0 TXT "v=1` + strings.Repeat(" beside=par1", MaxBeside+1) + `"`, "REFUSED", "more than 16 sets of servers"},
	{"servers beside nodes in part 1", `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2 beside=par1"`, "FORMERR", "move the rest to part 0"},
	{"client subnets in part 1", `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2 client-subnets"`, "FORMERR", "move the rest to part 0"},
	{"client subnets without a node", "delete par1.lb.gslb.example.org. ANY\n" + `par1.lb.gslb.example.org. 0 TXT "v=1 client-subnets"`, "REFUSED", "no address"},
	{"empty deputy label", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 deputy=a,,b"`, "FORMERR", "label"},
}

func TestParse(t *testing.T) {
	for _, tc := range parseTests {
		t.Run(tc.name, func(t *testing.T) {
			r, err := Parse(update(t, tc.text))
			if tc.rcode == "" {
				if err != nil || r.Node != "par1" {
					t.Errorf("Expected a registration of node par1, got %+v, %v", r, err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || dns.RcodeToString[e.Rcode] != tc.rcode || !strings.Contains(e.Text, tc.want) {
				t.Errorf("Expected %s with %q, got: %v", tc.rcode, tc.want, err)
			}
		})
	}
}

// TestParseRejectsMalformedMessage has errors that presentation format cannot
// express.
func TestParseRejectsMalformedMessage(t *testing.T) {
	tests := []struct {
		name   string
		change func(*dns.Msg)
	}{
		{"two zones", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }},
		{"zone type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }},
		{"zone class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }},
		{"class", func(m *dns.Msg) { m.Ns[0].Header().Class = dns.ClassHESIOD }},
		{"TTL of a deletion", func(m *dns.Msg) { m.Ns[0].Header().Ttl = 1 }},
		{"ANY added", func(m *dns.Msg) { m.Ns[0].Header().Class = dns.ClassINET }},
		{"A without data", func(m *dns.Msg) { m.Ns[1].(*dns.A).A = nil }},
		{"AAAA without data", func(m *dns.Msg) { m.Ns[2].(*dns.AAAA).AAAA = nil }},
		{"host bits", func(m *dns.Msg) { m.Ns[3].(*dns.APL).Prefixes[0].Network.IP[3] = 1 }},
		{"address family", func(m *dns.Msg) { m.Ns[3].(*dns.APL).Prefixes[0].Network.IP = []byte{1} }},
		{"location out of range", func(m *dns.Msg) { m.Ns[4].(*dns.LOC).Latitude = 0 }},
		{"NS without data", func(m *dns.Msg) { m.Ns[6].(*dns.NS).Ns = "" }},
		{"deletion of an NS without data", func(m *dns.Msg) { m.Ns[10].(*dns.NS).Ns = "" }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			m, err := full().Message()
			if err != nil {
				t.Fatal(err)
			}
			tc.change(m)
			_, err = Parse(m)
			var e *Error
			if !errors.As(err, &e) || e.Rcode != dns.RcodeFormatError {
				t.Errorf("Expected FORMERR, got: %v", err)
			}
		})
	}
}

// What a registration makes a receiver do is bounded.
func TestRegistrationOfTooManyCutsIsRefused(t *testing.T) {
	r := full()
	r.FormerCuts, r.DS = nil, nil
	r.Cuts = nil
	for i := range maxCuts {
		r.Cuts = append(r.Cuts, fmt.Sprintf("c%d.%s", i, zone))
	}
	m, err := r.Message()
	if err != nil {
		t.Fatalf("Expected %d cuts to be accepted, got: %v", maxCuts, err)
	}
	if again, err := Parse(wire(t, m)); err != nil || !slices.Equal(again.Cuts, r.Cuts) {
		t.Errorf("Expected all cuts in their order, got %d, %v", len(again.Cuts), err)
	}
	for _, more := range []func(*Registration){
		func(r *Registration) { r.Cuts = append(r.Cuts, "more."+zone) },
		func(r *Registration) { r.FormerCuts = []string{"more." + zone} },
	} {
		c := *r
		more(&c)
		var e *Error
		if _, err := c.Message(); !errors.As(err, &e) || e.Rcode != dns.RcodeRefused || !strings.Contains(e.Text, "more than 1000 cuts") {
			t.Errorf("Expected more cuts to be refused, got: %v", err)
		}
	}
}
