package prefixmap

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap/prefixmaptest"
)

func TestOverlaps(t *testing.T) {
	for _, tc := range []struct {
		name       string
		operator   string
		registered map[string][]string
		want       string
	}{
		{"apart", "", map[string][]string{"a": {"10.0.0.0/9"}, "b": {"10.128.0.0/9"}}, "[] 0"},
		{"same prefix", "", map[string][]string{"b": {"10.0.0.0/8"}, "a": {"10.0.0.0/8"}}, "[{10.0.0.0/8 [a b]}] 1"},
		{"inside", "", map[string][]string{"b": {"10.0.0.0/8"}, "a": {"10.1.0.0/16", "10.1.2.0/24"}}, "[{10.1.0.0/16 [a b]} {10.1.2.0/24 [a b]}] 2"},
		{"inside its own", "", map[string][]string{"a": {"10.0.0.0/8", "10.1.0.0/16"}}, "[] 0"},
		{"negated", "", map[string][]string{"a": {"10.0.0.0/8"}, "b": {"!10.1.0.0/16"}}, "[] 0"},
		{"inside an operator prefix", "10.0.0.0/8", map[string][]string{"a": {"10.1.0.0/16"}}, "[] 0"},
		{"at an operator prefix", "10.0.0.0/8", map[string][]string{"a": {"10.0.0.0/8"}, "b": {"10.1.0.0/16"}}, "[{10.1.0.0/16 [a b]}] 1"},
		{"IPv6", "", map[string][]string{"a": {"2001:db8::/32"}, "b": {"2001:db8:1::/48"}, "c": {"2001:db8:1::/48"}}, "[{2001:db8:1::/48 [a b c]}] 1"},
		{"more than the limit", "", map[string][]string{"a": {"0.0.0.0/0"}, "b": {"10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"}}, "[{10.0.0.0/8 [a b]} {11.0.0.0/8 [a b]}] 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newTestMap()
			if tc.operator != "" {
				m.Add(netip.MustParsePrefix(tc.operator), m.OperatorEntry([]string{"op"}))
			}
			for node, prefixes := range tc.registered {
				m.register(node, parse(prefixes))
			}
			list, total := Overlaps(m.Publish(), m.Names(), 2)
			if got := fmt.Sprint(list, total); got != tc.want {
				t.Errorf("Expected %s, got %s", tc.want, got)
			}
		})
	}
}

func BenchmarkOverlaps(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newTestMap()
			for i, node := range []string{"par1", "nyc1"} {
				var prefixes []registration.Prefix
				for _, p := range prefixmaptest.Prefixes(n/2, uint64(i)) { // #nosec G115 -- two
					prefixes = append(prefixes, registration.Prefix{Prefix: p})
				}
				m.register(node, prefixes)
			}
			for b.Loop() {
				Overlaps(m.Publish(), m.Names(), 1000)
			}
		})
	}
}
