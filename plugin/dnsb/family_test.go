package dnsb

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestResolverIsReferredToItsFamily checks that a resolver which asks over IPv6 is
// referred to a node with an IPv6 address, if one is live; the same for IPv4.
func TestResolverIsReferredToItsFamily(t *testing.T) {
	const nodes = "node four 192.0.2.4\nnode six 2001:db8::6\nnode both 192.0.2.7 2001:db8::7\n"
	for _, tc := range []struct {
		name  string
		lines string
		dead  []string
		want  map[string]string // resolver to nodes
	}{
		{
			name: "first of a line", lines: "cut svc four six both\nprefix 0.0.0.0/0 six four both\nprefix ::/0 four six both",
			want: map[string]string{"10.0.0.1": "four", "2001:db8:1::1": "six", "64:ff9b::10.0.0.1": "four", "::ffff:10.0.0.1": "four"},
		},
		{
			name: "the rest dead", lines: "cut svc four six both\nprefix ::/0 four six both", dead: []string{"2001:db8::6"},
			want: map[string]string{"2001:db8:1::1": "both"},
		},
		{
			name: "next shorter prefix", lines: "cut svc four both\nprefix 2001:db8::/32 four\nprefix 2001::/16 both",
			want: map[string]string{"2001:db8:1::1": "both"},
		},
		{
			name: "default", lines: "cut svc four six\nprefix 2001:db8::/32 four\ndefault four six",
			want: map[string]string{"2001:db8:1::1": "six", "10.0.0.1": "four"},
		},
		{
			name: "hash", lines: "cut svc four six\nprefix 2001:db8::/32 four",
			want: map[string]string{"2001:db8:1::1": "six", "2001::1": "six", "10.0.0.1": "four"},
		},
		{
			name: "none of the family", lines: "cut svc four\nprefix 2001:db8::/32 four",
			want: map[string]string{"2001:db8:1::1": "four", "10.0.0.1": "four"},
		},
		{
			name: "none of the family live", lines: "cut svc four six\nprefix 2001:db8::/32 six", dead: []string{"2001:db8::6"},
			want: map[string]string{"2001:db8:1::1": "four"},
		},
		{
			name: "all dead", lines: "cut svc four six\nprefix 2001:db8::/32 four six", dead: []string{"2001:db8::6", "192.0.2.4"},
			want: map[string]string{"2001:db8:1::1": "six"},
		},
		{
			name: "deputies", lines: "cut svc first four six both\nnode first 192.0.2.1 2001:db8::1 deputy four six both\ndefault first",
			want: map[string]string{"2001:db8:1::1": "first six", "10.0.0.1": "first four"},
		},
		{
			name: "no deputy of the family", lines: "cut svc first four\nnode first 192.0.2.1 2001:db8::1 deputy four\ndefault first",
			want: map[string]string{"2001:db8:1::1": "first", "10.0.0.1": "first four"},
		},
		{
			name: "the second of a line is no deputy", lines: "cut svc four both\nprefix 0.0.0.0/0 four both",
			want: map[string]string{"10.0.0.1": "four"},
		},
		{
			name: "deputy dead", lines: "cut svc first four both\nnode first 192.0.2.1 location 48 2 deputy four both\ndefault first", dead: []string{"192.0.2.4"},
			want: map[string]string{"10.0.0.1": "first both"},
		},
		{
			name: "each other's deputies, the nearest dead", lines: "cut svc a b\nnode a 192.0.2.1 deputy b\nnode b 192.0.2.2 deputy a\nprefix 10.0.0.0/8 a b", dead: []string{"192.0.2.1"},
			want: map[string]string{"10.0.0.1": "b"},
		},
	} {
		p := newFakeProber()
		for _, addr := range tc.dead {
			p.said[addr] = silent
		}
		d := started(t, nodes+tc.lines, func() prober { return p })
		for from, want := range tc.want {
			m := ask(t, d, from, "www.svc."+testZone, dns.TypeA)
			ttl := uint32(defaultTTL)
			if len(m.Ns) == 1 {
				ttl = soloTTL
			}
			var got []string
			for _, rr := range m.Ns {
				got = append(got, strings.TrimSuffix(rr.(*dns.NS).Ns, ".lb."+testZone))
				if rr.Header().Ttl != ttl {
					t.Errorf("%s, %s: Expected a TTL of %d, got %v", tc.name, from, ttl, rr)
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s, %s: Expected %s, got %v", tc.name, from, want, got)
			}
		}
	}
}

func TestExplainFamily(t *testing.T) {
	d := started(t, "node four 192.0.2.4\nnode six 2001:db8::6\ncut svc four six\nprefix ::/0 four six", nil)
	e, err := d.Explain("svc."+testZone, netip.MustParseAddr("2001:db8:1::1"))
	if err != nil || len(e.Candidates) < 2 || e.Candidates[0].Why != "no IPv6 address" || e.Candidates[0].Chosen || !e.Candidates[1].Chosen {
		t.Errorf("Expected the node without an IPv6 address to be passed over, got %+v, %v", e.Candidates, err)
	}
}
