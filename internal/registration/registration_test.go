package registration

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const zone = "gslb.example.org."

func prefix(s string) Prefix {
	bare, negated := strings.CutPrefix(s, "!")
	return Prefix{netip.MustParsePrefix(bare), negated}
}

func full() *Registration {
	return &Registration{
		Zone:      zone,
		Node:      "par1",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")},
		Prefixes:  []Prefix{prefix("198.51.100.0/24"), prefix("!198.51.100.128/25"), prefix("2001:db8:1::/48"), prefix("0.0.0.0/0"), prefix("::/0")},
		Cuts:      []string{"svc.gslb.example.org.", "a.b.gslb.example.org."},
		GivenUp:   []string{"old.gslb.example.org."},
		DS: []DS{
			{"svc.gslb.example.org.", 12345, dns.ECDSAP256SHA256, dns.SHA256, strings.Repeat("c0de", 16)},
			{"svc.gslb.example.org.", 54321, dns.ED25519, dns.SHA384, strings.Repeat("beef", 24)},
		},
		Deputies: []string{"lon1", "fra1"},
		Location: "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m",
		Serial:   1763800000123,
		Lease:    30 * time.Minute,
	}
}

// wire sends m over the wire.
func wire(t testing.TB, m *dns.Msg) *dns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatalf("Expected the message to pack, got: %v", err)
	}
	out := new(dns.Msg)
	if err := out.Unpack(b); err != nil {
		t.Fatalf("Expected the message to unpack, got: %v", err)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	bare := &Registration{Zone: zone, Node: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	many := full()
	for i := range 9000 {
		many.Prefixes = append(many.Prefixes, Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	talkative := full()
	talkative.Deputies = nil
	for i := range maxDeputies {
		talkative.Deputies = append(talkative.Deputies, fmt.Sprintf("%d%s", i+10, strings.Repeat("x", 61)))
	}
	for name, r := range map[string]*Registration{"full": full(), "bare": bare, "many": many, "talkative": talkative} {
		m, err := r.Message()
		if err != nil {
			t.Errorf("%s: Expected a message, got: %v", name, err)
			continue
		}
		got, err := Parse(wire(t, m))
		if err != nil {
			t.Errorf("%s: Expected to parse, got: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("%s: Expected %.500s, got %.500s", name, fmt.Sprint(r), fmt.Sprint(got))
		}
	}
}

func TestWithdrawal(t *testing.T) {
	got, err := Parse(wire(t, full().Withdrawal()))
	if err != nil {
		t.Fatalf("Expected to parse, got: %v", err)
	}
	want := &Registration{
		Zone: zone, Node: "par1", Serial: 1763800000123,
		GivenUp: []string{"svc.gslb.example.org.", "a.b.gslb.example.org.", "old.gslb.example.org."},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Expected %+v, got %+v", want, got)
	}
	if lease, ok := Granted(full().Withdrawal()); !ok || lease != 0 {
		t.Errorf("Expected a lease of 0, got %v, %v", lease, ok)
	}
}

func TestMessageErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Registration)
		want   string
	}{
		{"no address", func(r *Registration) { r.Addresses = nil }, "needs an address"},
		{"bad node", func(r *Registration) { r.Node = "par.1" }, "not one label"},
		{"cut elsewhere", func(r *Registration) { r.Cuts = []string{"example.net."} }, "not in the zone"},
		{"host bits", func(r *Registration) { r.Prefixes = []Prefix{prefix("192.0.2.1/24")} }, "did you mean"},
		{"location", func(r *Registration) { r.Location = "Paris" }, "of the form"},
		{"too long", func(r *Registration) {
			for i := range 20000 {
				r.Prefixes = append(r.Prefixes, Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
			}
		}, "does not fit"},
	}
	for _, tc := range tests {
		r := full()
		tc.change(r)
		_, err := r.Message()
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Expected an error with %q, got: %v", tc.name, tc.want, err)
		}
	}
}

// update returns an UPDATE with the records of text, one a line.
func update(t testing.TB, text string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetUpdate(zone)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		f := strings.Fields(line)
		if f[0] == "delete" && len(f) == 3 {
			m.Ns = append(m.Ns, &dns.ANY{Hdr: dns.RR_Header{Name: f[1], Rrtype: dns.StringToType[f[2]], Class: dns.ClassANY}})
			continue
		}
		rr, err := dns.NewRR(strings.TrimPrefix(line, "delete "))
		if err != nil || rr == nil {
			t.Fatalf("Expected %q to be a record, got: %v", line, err)
		}
		if f[0] == "delete" {
			rr.Header().Class, rr.Header().Ttl = dns.ClassNONE, 0
		}
		m.Ns = append(m.Ns, rr)
	}
	return wire(t, m)
}

func TestParse(t *testing.T) {
	const (
		form    = dns.RcodeFormatError
		refused = dns.RcodeRefused
		notZone = dns.RcodeNotZone
		notImp  = dns.RcodeNotImplemented
		addr    = "par1.lb.gslb.example.org. 0 A 192.0.2.53\n"
		part0   = addr + "par1.lb.gslb.example.org. 0 TXT \"v=1 serial=1 parts=2\"\n0.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24\n"
	)
	digest := strings.Repeat("c0de", 16)
	tests := []struct {
		name  string
		text  string
		rcode int
		want  string // part of the error's text
	}{
		{"by hand", addr + "svc.gslb.example.org. 60 NS par1.lb.gslb.example.org.", 0, ""},
		{"with deletion", "delete par1.lb.gslb.example.org. ANY\n" + addr, 0, ""},
		{"mixed case", "PAR1.LB.gslb.Example.Org. 0 A 192.0.2.53\nsvc.gslb.example.org. 0 NS Par1.lb.gslb.example.ORG.", 0, ""},
		{"withdrawal", "delete par1.lb.gslb.example.org. ANY", 0, ""},
		{"unknown words", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 cost=12 colour=blue serial=7"`, 0, ""},
		{"words apart", addr + `par1.lb.gslb.example.org. 0 TXT v=1 serial=7`, 0, ""},
		{"part 0", part0, 0, ""},
		{"part 1 with deletion", "delete 1.par1.lb.gslb.example.org. ANY\n1.PAR1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24\n" + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, 0, ""},
		{"same prefix twice", addr + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24 1:192.0.2.0/24", 0, ""},

		{"nothing", "", refused, "about no node"},
		{"no address", "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", refused, "no address"},
		{"cut without address", "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.", refused, "no address"},
		{"deletion of a cut alone", "delete svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.", refused, "no address"},
		{"address before deletion", addr + "delete par1.lb.gslb.example.org. ANY\nsvc.gslb.example.org. 0 NS par1.lb.gslb.example.org.", refused, "no address"},
		{"two nodes", addr + "nyc1.lb.gslb.example.org. 0 A 192.0.2.54", refused, "one message is about one node"},
		{"two nodes by NS", addr + "svc.gslb.example.org. 0 NS nyc1.lb.gslb.example.org.", refused, "one message is about one node"},
		{"two nodes by deletion", addr + "delete nyc1.lb.gslb.example.org. ANY", refused, "one message is about one node"},
		{"foreign target", addr + "svc.gslb.example.org. 0 NS ns.example.net.", refused, "not the name of a node"},
		{"other name", "www.gslb.example.org. 0 A 192.0.2.53", refused, "not the name of a node"},
		{"below a node", "x.par1.lb.gslb.example.org. 0 A 192.0.2.53", refused, "not one label"},
		{"address of a part", "0.par1.lb.gslb.example.org. 0 A 192.0.2.53", refused, "a part has APL and TXT"},
		{"odd part", "00.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", refused, "not one label"},
		{"part of a part", "0.0.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", refused, "not one label"},
		{"too high a part", "20.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", refused, "at most 20 parts"},
		{"two parts", part0 + "1.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", form, "each part is one message"},
		{"parts without TXT", addr + "0.par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", form, "TXT parts=0"},
		{"part beyond", `2.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, form, "part 2 of par1, and TXT parts=2"},
		{"part without serial", `1.par1.lb.gslb.example.org. 0 TXT "v=1 parts=2"`, form, "no serial"},
		{"part 0 without address", `0.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, refused, "no address"},
		{"address in part 1", addr + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, form, "belongs into part 0"},
		{"cut in part 1", "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\n" + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, form, "belongs into part 0"},
		{"deletion in part 1", "delete par1.lb.gslb.example.org. ANY\n" + `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, form, "belongs into part 0"},
		{"deputy in part 1", `1.par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2 deputy=lon1"`, form, "belongs into part 0"},
		{"part as a target", addr + "svc.gslb.example.org. 0 NS 0.par1.lb.gslb.example.org.", refused, "name of a part"},
		{"prefixes of the node beside those of a part", part0 + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24", form, "stand at the name of the part"},
		{"deletion behind", part0 + "delete 0.par1.lb.gslb.example.org. ANY", form, "behind what is added"},
		{"odd label", "p_1.lb.gslb.example.org. 0 A 192.0.2.53", refused, "not one label"},
		{"lb itself", "delete lb.gslb.example.org. ANY", refused, "not the name of a node"},
		{"not in zone", addr + "svc.example.org. 0 NS par1.lb.gslb.example.org.", notZone, "not in the zone"},
		{"shared set", addr + "delete svc.gslb.example.org. NS", refused, "deletion of the NS records"},
		{"one type", addr + "delete par1.lb.gslb.example.org. A", refused, "deletion of the A records"},
		{"one address", addr + "delete par1.lb.gslb.example.org. 0 A 192.0.2.53", refused, "deletion of one A record"},
		{"foreign NS", addr + "delete svc.gslb.example.org. 0 NS nyc1.lb.gslb.example.org.", refused, "one message is about one node"},
		{"other type", addr + "par1.lb.gslb.example.org. 0 MX 10 mail.example.org.", refused, "a node has A, AAAA"},
		{"both ways", addr + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24 !1:192.0.2.0/24", form, "192.0.2.0/24 and !192.0.2.0/24"},
		{"both ways in two records", addr + "par1.lb.gslb.example.org. 0 APL 1:192.0.2.0/24\npar1.lb.gslb.example.org. 0 APL !1:192.0.2.0/24", form, "192.0.2.0/24 and !192.0.2.0/24"},
		{"multicast", "par1.lb.gslb.example.org. 0 A 224.0.0.1", refused, "cannot be the address"},
		{"unspecified", "par1.lb.gslb.example.org. 0 AAAA ::", refused, "cannot be the address"},
		{"mapped", "par1.lb.gslb.example.org. 0 AAAA ::ffff:192.0.2.1", refused, "cannot be the address"},
		{"two TXT", addr + "par1.lb.gslb.example.org. 0 TXT v=1\npar1.lb.gslb.example.org. 0 TXT \"v=1 serial=1\"", form, "two TXT"},
		{"foreign TXT", addr + "par1.lb.gslb.example.org. 0 TXT hello", form, "v=1"},
		{"version", addr + "par1.lb.gslb.example.org. 0 TXT v=2", notImp, "only v=1"},
		{"parts at the node", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 serial=1 parts=2"`, form, "stand at the name of the part"},
		{"parts that are no number", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 parts=x"`, form, "number of parts"},
		{"no parts", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 parts=0"`, form, "number of parts"},
		{"too many parts", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 parts=21"`, refused, "at most 20 parts"},
		{"serial", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 serial=x"`, form, "serial"},
		{"serial zero", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 serial=0"`, form, "serial"},
		{"DS", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nSVC.gslb.example.org. 0 DS 1 13 2 " + digest, 0, ""},
		{"DS elsewhere", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nother.gslb.example.org. 0 DS 1 13 2 " + digest, refused, "does not add an NS record there"},
		{"DS of SHA-1", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nsvc.gslb.example.org. 0 DS 1 13 1 " + digest[:40], refused, "SHA-256"},
		{"DS of a wrong length", addr + "svc.gslb.example.org. 0 NS par1.lb.gslb.example.org.\nsvc.gslb.example.org. 0 DS 1 13 2 " + digest[:40], form, "32 bytes"},
		{"DS without a node", "delete par1.lb.gslb.example.org. ANY\nsvc.gslb.example.org. 0 DS 1 13 2 " + digest, refused, "no address"},
		{"deletion of a DS", addr + "delete svc.gslb.example.org. DS", refused, "deletion of the DS records"},
		{"deputy", addr + `par1.lb.gslb.example.org. 0 TXT "v=1 deputy=a,,b"`, form, "label"},
	}
	for _, tc := range tests {
		r, err := Parse(update(t, tc.text))
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: Expected no error, got: %v", tc.name, err)
			} else if r.Node != "par1" {
				t.Errorf("%s: Expected node par1, got %q", tc.name, r.Node)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Rcode != tc.rcode || !strings.Contains(e.Text, tc.want) {
			t.Errorf("%s: Expected %s with %q, got: %v", tc.name, dns.RcodeToString[tc.rcode], tc.want, err)
		}
	}
}

// Forms that no presentation format has.
func TestParseRaw(t *testing.T) {
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
		{"family", func(m *dns.Msg) { m.Ns[3].(*dns.APL).Prefixes[0].Network.IP = []byte{1} }},
		{"place", func(m *dns.Msg) { m.Ns[4].(*dns.LOC).Latitude = 0 }},
		{"NS without data", func(m *dns.Msg) { m.Ns[6].(*dns.NS).Ns = "" }},
		{"deletion of an NS without data", func(m *dns.Msg) { m.Ns[10].(*dns.NS).Ns = "" }},
	}
	for _, tc := range tests {
		m, err := full().Message()
		if err != nil {
			t.Fatal(err)
		}
		tc.change(m)
		_, err = Parse(m)
		var e *Error
		if !errors.As(err, &e) || e.Rcode != dns.RcodeFormatError {
			t.Errorf("%s: Expected FORMERR, got: %v", tc.name, err)
		}
	}
}

func TestLease(t *testing.T) {
	for _, keyLease := range []uint32{0, 3600} {
		request := new(dns.Msg)
		request.SetUpdate(zone)
		setLease(request, &dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: 7200, KeyLease: keyLease})
		reply := new(dns.Msg)
		reply.SetReply(request)
		SetLease(reply, request, 90*time.Second+time.Nanosecond)
		reply = wire(t, reply)
		granted, ok := Granted(reply)
		if !ok || granted != 91*time.Second {
			t.Errorf("Expected a lease of 91 s, got %v, %v", granted, ok)
		}
		if eight := lease(reply).KeyLease != 0; eight != (keyLease != 0) {
			t.Errorf("Expected the form of the request with key lease %d, got %+v", keyLease, lease(reply))
		}
	}

	request, reply := new(dns.Msg), new(dns.Msg)
	request.SetUpdate(zone)
	reply.SetReply(request)
	SetLease(reply, request, time.Hour)
	if _, ok := Granted(reply); ok || len(reply.Extra) > 0 {
		t.Errorf("Expected no option in a reply to a request without, got %v", reply.Extra)
	}
}

func FuzzParse(f *testing.F) {
	m, err := full().Message()
	if err != nil {
		f.Fatal(err)
	}
	var parts [2]*dns.Msg
	for i, r := range []*Registration{full(), {Zone: zone, Node: "par1", Serial: 7, Prefixes: full().Prefixes, Part: 1}} {
		r.Parts = 2
		if parts[i], err = r.Message(); err != nil {
			f.Fatal(err)
		}
	}
	for _, m := range []*dns.Msg{m, full().Withdrawal(), parts[0], parts[1], update(f, "x.lb.gslb.example.org. 0 AAAA 2001:db8::1")} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		r, err := Parse(m)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Rcode == dns.RcodeSuccess || e.Text == "" {
				t.Fatalf("Expected an *Error with a code and a text, got %#v", err)
			}
			return
		}
		if len(r.Addresses) == 0 && r.Parts == 0 {
			again, err := Parse(wire(t, r.Withdrawal()))
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("Expected %+v, got %+v: %v", r, again, err)
			}
			return
		}
		out, err := r.Message()
		if err != nil {
			if strings.Contains(err.Error(), "does not fit") {
				return
			}
			t.Fatalf("Expected %+v to be sent, got: %v", r, err)
		}
		again, err := Parse(wire(t, out))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("Expected %+v, got %+v: %v", r, again, err)
		}
	})
}
