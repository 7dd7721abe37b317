package dnsb

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestUnmappedResolversAreListedAcrossInstances(t *testing.T) {
	z := newZone(testZone)
	d := startedWith(t, z, "accept k1 par1 any\nnode st1 192.0.2.4\ncut svc st1\ndefault st1", nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
	for i := range 5 {
		referredTo(t, d, fmt.Sprintf("203.0.113.%d", i))
		referredTo(t, d, fmt.Sprintf("10.0.0.%d", i))
	}
	referredTo(t, d, "2001:db8:1::1")
	younger := startedWith(t, z, "accept k1 par1 any", nil)
	referredTo(t, younger, "2001:db8:1:2::1")
	for _, d := range []*DNSB{d, younger} {
		got := d.Unmapped()
		if got.Counted != 7 || len(got.Prefixes) != 2 || got.Since.IsZero() {
			t.Fatalf("Expected 7 referrals of 2 sites, got %+v", got)
		}
		for i, want := range []UnmappedPrefix{
			{netip.MustParsePrefix("203.0.113.0/24"), 5, 0, "st1", "default", got.Prefixes[0].Last},
			{netip.MustParsePrefix("2001:db8:1::/48"), 2, 0, "par1", "hash", got.Prefixes[1].Last},
		} {
			if got.Prefixes[i] != want || want.Last.IsZero() {
				t.Errorf("Expected %+v, got %+v", want, got.Prefixes[i])
			}
		}
	}
}
