package registration

import (
	"fmt"
	"net/netip"
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

// full returns a registration with all fields of a whole one set.
func full() *Registration {
	return &Registration{
		Zone:       zone,
		Node:       "par1",
		Addresses:  []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")},
		Prefixes:   []Prefix{prefix("198.51.100.0/24"), prefix("!198.51.100.128/25"), prefix("2001:db8:1::/48"), prefix("0.0.0.0/0"), prefix("::/0")},
		Cuts:       []string{"svc.gslb.example.org.", "a.b.gslb.example.org."},
		FormerCuts: []string{"old.gslb.example.org."},
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

// withClientSubnets returns full of a node that answers by client subnets.
func withClientSubnets() *Registration {
	r := full()
	r.ClientSubnets = true
	return r
}

// withBeside returns full of a node whose servers stand beside nodes.
func withBeside() *Registration {
	r := full()
	r.Beside = [][]string{{"fra1", "lon1", "par1"}, nil, {"nyc1"}}
	for i := range MaxBesideNodes {
		r.Beside[1] = append(r.Beside[1], fmt.Sprintf("node-with-a-long-name-%02d", i))
	}
	return r
}

// wire returns m after packing and unpacking.
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

// update returns an UPDATE with one record for each line of text.
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
