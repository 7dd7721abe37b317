package dnsb

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status/pagetest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
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
			{netip.MustParsePrefix("203.0.113.0/24"), 5, 0, "st1", "default", got.Prefixes[0].Last, nil},
			{netip.MustParsePrefix("2001:db8:1::/48"), 2, 0, "par1", "hash", got.Prefixes[1].Last, nil},
		} {
			if got.Prefixes[i] != want || want.Last.IsZero() {
				t.Errorf("Expected %+v, got %+v", want, got.Prefixes[i])
			}
		}
	}
}

// TestUnmappedSitesOfSurvey checks that the state tells what nodes have measured of the
// sites that nobody mapped.
func TestUnmappedSitesOfSurvey(t *testing.T) {
	d := started(t, "accept k1 par1 any survey\naccept k1 nyc1 any survey\nsurvey budget 1000", nil)
	for i, name := range []string{"par1", "nyc1"} {
		registers(t, d, nodeAt(name, fmt.Sprintf("192.0.2.%d", i+1)))
	}
	now := time.Now()
	known := func(want string) {
		t.Helper()
		prefixes := d.Unmapped().Prefixes
		if len(prefixes) != 1 || prefixes[0].Survey == nil {
			t.Fatalf("Expected a site of the survey, got %+v", prefixes)
		}
		if got := fmt.Sprintf("%+v", *prefixes[0].Survey); got != want {
			t.Errorf("Expected %s, got %s", want, got)
		}
	}
	referredTo(t, d, "198.51.100.7")
	if got := d.Unmapped().Prefixes; len(got) != 1 || got[0].Survey != nil {
		t.Errorf("Expected a site that the survey does not have yet, got %+v", got)
	}
	survey := d.zone.survey
	survey.Tick(now)
	known("{State:searching Reported:0 Nearest: RTT:0}")
	measures := func(name string, rtt float64) {
		t.Helper()
		for range 100 {
			now = now.Add(10 * time.Second)
			survey.Tick(now)
			var results []surveymsg.Result
			for _, target := range survey.Work(name, d.snapshot.Load().addressesOf(name), now).Targets {
				results = append(results, surveymsg.Result{Address: target.Address, RTT: rtt, Method: surveymsg.ICMP})
			}
			if _, err := survey.Report(name, results, now); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(results, func(r surveymsg.Result) bool { return r.Address == netip.MustParseAddr("198.51.100.7") }) {
				return
			}
		}
		t.Fatalf("Expected work for %s", name)
	}
	measures("nyc1", 81.5)
	known("{State:measured Reported:1 Nearest:nyc1 RTT:81.5}")
	measures("par1", 9.25)
	known("{State:measured Reported:2 Nearest:par1 RTT:9.25}")
	page := pageOf(d.State())
	if got := rowOf(t, page, "198.51.100.0/24"); got[len(got)-1] != "● measured par1 9.2 ms, 2 nodes" {
		t.Errorf("Expected what the survey knows, got %q", got)
	}
	if got := pagetest.Texts(t, page, "span", "result"); !slices.Contains(got, "● measured 1") {
		t.Errorf("Expected the sites by state, got %q", got)
	}
}
