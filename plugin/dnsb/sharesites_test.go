package dnsb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// surveyed returns a DNS-B whose nodes have measured resolvers.
func surveyed(t *testing.T, latencies map[string]map[string]float64) *DNSB {
	t.Helper()
	d := started(t, "default n1\naccept k1 n1 any survey\naccept k1 n2 any survey\naccept k1 n3 any survey\naccept k1 n4 any survey\nsurvey", nil)
	for i := range 4 {
		registers(t, d, nodeAt(fmt.Sprintf("n%d", i+1), fmt.Sprintf("192.0.2.%d", i+1)))
	}
	measured(t, d, latencies)
	return d
}

func TestSharedSites(t *testing.T) {
	d := surveyed(t, map[string]map[string]float64{
		"n1": {"198.51.100.7": 9.04, "2001:db8:1::1": 70}, "n2": {"198.51.100.7": 5}, "n3": {"198.51.100.7": 7, "2001:db8:1::1": 7}, "n4": {"198.51.100.7": 30},
	})
	s := d.snapshot.Load()
	shared := s.share()
	table, err := nodemaptest.Read(t, "svc."+testZone, shared.lists, shared.nodes["svc."+testZone]...)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"198.51.100.200":   "n2=5.0 n3=7.0 n1=9.0 n4=30.0 survey=n2 survey=n3 survey=n1 default=n1",
		"2001:db8:1:99::1": "n3=7.0 n1=70.0 survey=n3 survey=n1",
		"198.51.101.1":     "default=n1",
	} {
		c, site, _ := table.LookupSite(netip.MustParseAddr(addr))
		var words []string
		if site != nodemap.NoSite {
			_, latencies := table.Site(site)
			for _, l := range latencies {
				words = append(words, fmt.Sprintf("%s=%.1f", table.Measuring[l.Node], l.RTT))
				if age := time.Since(time.Unix(int64(l.At), 0)); age < -time.Minute || age > time.Minute {
					t.Errorf("Expected the time of the measurement, got %s ago", age)
				}
			}
		}
		for i, id := range c.Nodes {
			words = append(words, c.Layers[i]+"="+table.Names[id])
		}
		if got := strings.Join(words, " "); got != strings.Replace(want, " survey=n1 default=n1", " survey=n1", 1) {
			t.Errorf("Expected %q for %s, got %q", want, addr, got)
		}
	}
}

// TestMapOfLikeSitesIsNotSharedAgain checks for which measurements nodes get another
// version of the map before an hour has passed.
func TestMapOfLikeSitesIsNotSharedAgain(t *testing.T) {
	site := func(n1, n2 float64) map[string]map[string]float64 {
		return map[string]map[string]float64{"n1": {"198.51.100.7": n1}, "n2": {"198.51.100.7": n2, "203.0.113.7": 3}}
	}
	more := site(10, 50)
	more["n3"] = map[string]float64{"203.0.113.7": 40}
	less := site(10, 50)
	delete(less["n2"], "203.0.113.7")
	table := func(latencies map[string]map[string]float64) *sitesurvey.Table {
		return surveyed(t, latencies).snapshot.Load().sites
	}
	first, now := table(site(10, 50)), time.Now()
	shared := &sharedMap{sites: first, made: now.Add(-sitesRest / 2)}
	for name, tc := range map[string]struct {
		sites *sitesurvey.Table
		want  bool
	}{
		"the same":        {first, true},
		"much the same":   {table(site(11.5, 46)), true},
		"slower":          {table(site(12.5, 50)), false},
		"faster":          {table(site(10, 44)), false},
		"another node":    {table(more), false},
		"a site less":     {table(less), false},
		"no survey":       {nil, false},
		"the same places": {table(site(10, 50)), true},
	} {
		if got := shared.has(tc.sites, now); got != tc.want {
			t.Errorf("%s: Expected that the map has them: %v, got %v", name, tc.want, got)
		}
		if got, same := shared.has(tc.sites, now.Add(sitesRest)), tc.sites == first; got != same {
			t.Errorf("%s: Expected another version after an hour: %v, got %v", name, !same, !got)
		}
	}
	if (*sharedMap)(nil).has(first, now) {
		t.Error("Expected the first version to be made")
	}
}

func TestNodesBesideServersOfAllNodes(t *testing.T) {
	d := started(t, "accept k1 par1 any\naccept k1 lon1 any", nil)
	par, lon := nodeAt("par1", "192.0.2.53"), nodeAt("lon1", "192.0.2.54")
	par.Beside, lon.Beside = [][]string{{"lon1", "par1"}, {"fra1"}}, [][]string{{"fra1"}, {"fra1", "lon1"}}
	registers(t, d, par)
	registers(t, d, lon)
	if got, want := fmt.Sprint(d.snapshot.Load().besideServers()), "[[fra1] [fra1 lon1] [lon1 par1]]"; got != want {
		t.Errorf("Expected each set once, %s, got %s", want, got)
	}
	par.Beside = nil
	registers(t, d, par)
	if got, want := fmt.Sprint(d.snapshot.Load().besideServers()), "[[fra1] [fra1 lon1]]"; got != want {
		t.Errorf("Expected those of the other node, %s, got %s", want, got)
	}
}
