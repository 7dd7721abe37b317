package dnslb

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const later = " until 2100-01-01T00:00:00Z reason new disk"

// lasting returns overrides that do not end soon.
func lasting(t *testing.T, lines ...string) []serverOverride {
	t.Helper()
	var out []serverOverride
	for _, line := range lines {
		o, err := serveroverride.Grammar.Parse(strings.Fields(line + later))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

func TestFirstOverrideThatMatchesCounts(t *testing.T) {
	tests := []struct {
		name      string
		overrides []string
		want      verb
	}{
		{"none", nil, serveroverride.None},
		{"by name", []string{"down fra-1"}, serveroverride.Down},
		{"in any case", []string{"down FRA-1 for WWW.svc.gslb.Example.org."}, serveroverride.Down},
		{"by address", []string{"drain 192.0.2.1"}, serveroverride.Drain},
		{"address in another form", []string{"down ::ffff:192.0.2.1"}, serveroverride.Down},
		{"other address", []string{"drain 192.0.2.10"}, serveroverride.None},
		{"name is no prefix", []string{"down fra"}, serveroverride.None},
		{"glob", []string{"up fra-*"}, serveroverride.Up},
		{"glob of addresses", []string{"down 192.0.2.*"}, serveroverride.Down},
		{"one character", []string{"down fra-?"}, serveroverride.Down},
		{"for this service", []string{"down fra-1 for www.svc.gslb.example.org"}, serveroverride.Down},
		{"for services", []string{"down fra-1 for *.example.org"}, serveroverride.Down},
		{"for another service", []string{"down fra-1 for ftp.svc.gslb.example.org"}, serveroverride.None},
		{"the first line", []string{"up iad", "drain fra-1 for ftp.*", "up fra-1", "down fra-1"}, serveroverride.Up},
	}
	for _, tc := range tests {
		x := newOverrideIndex(lasting(t, tc.overrides...))
		x.addTarget("fra-1", netip.MustParseAddr("192.0.2.1"))
		if got := x.of("www."+testZone, 0); got.verb != tc.want || (got.text != "") != (tc.want != serveroverride.None) {
			t.Errorf("%s: expected '%s', got '%s' by %q", tc.name, tc.want, got.verb, got.text)
		}
	}
}

func TestOverridesInAnswers(t *testing.T) {
	tests := []struct {
		name      string
		overrides []string
		ms        []float64 // negative: down
		want      string
		allDown   bool
	}{
		{"none", nil, []float64{10, 20, 30}, "1", false},
		{"down", []string{"down a"}, []float64{10, 20, 30}, "2", false},
		{"down for another service", []string{"down a for ftp.*"}, []float64{10, 20, 30}, "1", false},
		{"drain", []string{"drain 192.0.2.1"}, []float64{10, 20, 30}, "2", false},
		{"drained, but the only one up", []string{"drain a"}, []float64{10, -1, -1}, "1", false},
		{"down, although the only one up", []string{"down a"}, []float64{10, -1, -1}, "2", true},
		{"all down by override", []string{"down *"}, []float64{10, 20, 30}, "1", true},
		{"up, although its probe fails", []string{"up c"}, []float64{-1, -1, -1}, "3", false},
		{"up does not make it faster", []string{"up c"}, []float64{10, 20, 30}, "1", false},
	}
	for _, tc := range tests {
		d := service4(options{answers: 1}, make([]settings, 3), tc.ms)
		status := d.snapshot.Load().observed.status
		snap := build(&d.config, d.sources.inventory(), nil, lasting(t, tc.overrides...))
		snap.observed = observations{status: status}
		r := testRanker(d, snap, snap.observed)
		r.rankPools(snap.pools)
		a := snap.pools[0].answer.Load()
		if got := fmt.Sprint(a.addrs[0].As4()[3]); got != tc.want || a.allDown != tc.allDown {
			t.Errorf("%s: expected server %s, all down %v; got %s, %v", tc.name, tc.want, tc.allDown, got, a.allDown)
		}
	}
}

// TestAdminFileIsFollowed checks that overrides come and go while the server
// runs: with the file within seconds, by themselves at their end, and that an
// error changes nothing.
func TestAdminFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSources(&config{
			Zones: []string{testZone}, admin: newAdminFile(path, testZone), Node: "admin", probes: []string{""},
			inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + testZone, servers: labelsOf("a"), options: options{answers: 1}}}},
		})
		if got := s.snapshot(); len(got.overrides) != 0 {
			t.Fatalf("Expected no overrides without the file, got %v", got.overrides)
		}
		log.Lines()
		ctx, cancel := context.WithCancel(t.Context())
		snapshots, done := make(chan *snapshot), make(chan struct{})
		go func() { defer close(done); s.follow(ctx, snapshots, nil, func() {}) }()
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// next waits for a snapshot for so long.
		next := func(wait time.Duration) *snapshot {
			select {
			case snap := <-snapshots:
				return snap
			case <-time.After(wait):
				return nil
			}
		}
		const noticed = filewatch.Interval + filewatch.SettleTime + time.Second
		begin := time.Now()
		write("down a until 2000-01-01T00:00:00Z reason fan\ndown a until " + begin.Add(time.Minute).UTC().Format(time.RFC3339) + " reason fan\ndrain a until " + begin.Add(time.Hour).UTC().Format(time.RFC3339) + " reason disk\n")
		got := next(noticed)
		if got == nil || len(got.overrides) != 2 || got.pools[0].members[0].override.verb != serveroverride.Down {
			t.Fatalf("Expected two overrides, of which the first counts, got %+v", got)
		}
		log.Expect(t, "Override has no effect, it has ended already: down a until 2000-01-01T00:00:00Z reason fan", "Override in force: down a until",
			"Override has no effect, earlier overrides cover all of its servers: drain a until")

		errors := testutil.ToFloat64(reloads.WithLabelValues(testZone, "admin", "error"))
		write("down a\n")
		if got := next(2 * noticed); got != nil {
			t.Errorf("Expected an error to change nothing, got overrides %v", got.overrides)
		}
		log.Expect(t, "Failed to reload admin file \""+path+"\", keeping the previous version: "+path+":1 - 'down a' has no reason")
		write("down a   \n")
		if got := next(2 * noticed); got != nil {
			t.Errorf("Expected an error to change nothing, got overrides %v", got.overrides)
		}
		log.Expect(t, "Failed to reload admin file \""+path+"\", keeping the previous version: "+path+":1 - 'down a' has no reason") // also the second time: somebody has edited it
		if got := testutil.ToFloat64(reloads.WithLabelValues(testZone, "admin", "error")) - errors; got != 2 {
			t.Errorf("Expected two errors to be counted, got %v", got)
		}

		got = next(time.Minute)
		if at := time.Since(begin); got == nil || len(got.overrides) != 1 || at != time.Minute {
			t.Fatalf("Expected the first override to end by itself after a minute, got %+v after %s", got, at)
		}
		if got.pools[0].members[0].override.verb != serveroverride.Drain {
			t.Error("Expected the second override to count now")
		}
		log.Expect(t, "Override ended: down a until", "Override in force: drain a until")

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if got = next(noticed); got == nil || len(got.overrides) != 0 {
			t.Fatalf("Expected no overrides without the file, got %+v", got)
		}
		log.Expect(t, "Override ended: drain a until")
		cancel()
		<-done
	})
}

// TestBadAdminFileKeepsOverridesOverReload checks that an admin file with an error
// leaves the overrides of the previous instance in force.
func TestBadAdminFileKeepsOverridesOverReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	if err := os.WriteFile(path, []byte("oops\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := logtest.Capture(t)
	conf := &config{Zones: []string{testZone}, probes: []string{""}, inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + testZone, servers: labelsOf("a"), options: options{answers: 1}}}}}
	conf.admin = newAdminFile(path, testZone)
	if err := conf.admin.Load(); err == nil {
		t.Fatal("Expected an error")
	}
	s := newSources(conf)
	s.resume(instanceSnapshot{&DNSLB{}, &snapshot{overrides: lasting(t, "drain a"), inForce: lasting(t, "drain a")}})
	if got := s.snapshot(); len(got.overrides) != 1 {
		t.Errorf("Expected the previous override, got %v", got.overrides)
	}
	log.Expect(t)

	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !pollTwice(s) || len(s.overrides.Active()) != 0 {
		t.Errorf("Expected the corrected file to count, got %v", s.overrides.Active())
	}
	log.Expect(t, "Override ended: drain a")
}

// TestIdleOverrides checks that an override without effect is logged once: its
// server is probably misspelled.
func TestIdleOverrides(t *testing.T) {
	c := &config{
		Zones: []string{testZone}, probes: []string{""},
		inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1", "2001:db8::1"), "spare": machine("192.0.2.2")}, []serviceConfig{{name: "www." + testZone, servers: labelsOf("a"), options: options{answers: 1}}}},
	}
	const unknown, hidden = "no service has such a server", "earlier overrides cover all of its servers"
	tests := []struct{ override, idle string }{
		{"down a", ""},
		{"down 2001:db8:0::1", ""},
		{"down *", ""},
		{"drain a for www.*", ""},
		{"down b", unknown},
		{"down 192.0.2.3", unknown},
		{"down spare", unknown}, // no service has it
		{"down a for ftp." + testZone, unknown},
		{"drain 2001:db8::1", hidden},
	}
	log := logtest.Capture(t)
	for _, tc := range tests {
		s := newSources(c)
		earlier := "up 192.0.2.1"
		if tc.idle == hidden {
			earlier = "up a"
		}
		s.overrides.Resume(lasting(t, earlier, tc.override))
		want := []string{"Override in force: " + earlier, "Override in force: " + tc.override}
		if tc.idle != "" {
			want[1] = "Override has no effect, " + tc.idle + ": " + tc.override
		}
		for range 2 {
			s.build()
		}
		log.Expect(t, want...)
		if got := len(s.build().inForce); got != strings.Count(strings.Join(want, ""), "in force") {
			t.Errorf("%s: expected %q, got %d overrides in force", tc.override, want, got)
		}
	}
}

// TestReport checks that what one event does to many services is one line with
// their number.
func TestReport(t *testing.T) {
	const many = 1000
	c := config{Zones: []string{testZone}, inventory: inventory{servers: map[string]serverConfig{"a": machine("192.0.2.1")}}, ttlLow: 20, ttlHigh: 60, Node: "report"}
	backup := machine("192.0.2.2")
	backup.tier = 2
	c.inventory.servers["b"] = backup
	for i := range many {
		// Each has a server of its own, so that it has its own pool.
		own := fmt.Sprintf("own%d", i)
		c.inventory.servers[own] = serverConfig{[]netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, settings{weight: 1, tier: 3}}
		c.inventory.services = append(c.inventory.services, serviceConfig{name: fmt.Sprintf("s%d.%s", i, testZone), servers: labelsOf("a", "b", own), options: options{answers: 1}})
	}
	d := newDNSLB(c, nil)
	d.state = newBlockState()
	d.ready.Store(true)
	snap := d.sources.snapshot()
	if len(snap.pools) != many {
		t.Fatalf("Expected %d pools, got %d", many, len(snap.pools))
	}
	log := logtest.Capture(t)
	round := uint64(0)
	rank := func(cause ranking.Cause, want float64, down ...string) {
		t.Helper()
		before := testutil.ToFloat64(switches.WithLabelValues(testZone, "report", "report", string(cause)))
		round++
		for i, target := range snap.targets {
			snap.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: round, RTT: 10, Value: 10}}
			for _, name := range down {
				if strings.HasPrefix(target.Name, name) {
					snap.observed.status[i].State, snap.observed.status[i].Reason = latencyprobe.Down, "timeout"
				}
			}
		}
		r := testRanker(d, snap, snap.observed)
		r.rankPools(snap.pools)
		if got := testutil.ToFloat64(switches.WithLabelValues(testZone, "report", "report", string(cause))) - before; got != want {
			t.Errorf("%s: expected %v switches, got %v", cause, want, got)
		}
	}
	use := func(lines ...string) {
		next := build(&d.config, d.sources.inventory(), nil, lasting(t, lines...))
		d.state.setSnapshot(snap, d)
		d.state.setSnapshot(next, d)
		snap = next
	}

	rank(ranking.Unchanged, 0)
	log.Expect(t)
	rank(ranking.Down, many, "a")
	log.Expect(t, "report: Switched 1000 services (such as s0.svc.gslb.example.org. A) to b 192.0.2.2 (10.0 ms) from a 192.0.2.1 (down: timeout): down")
	rank(Tier, many)
	log.Expect(t, "Switched 1000 services (such as s0.svc.gslb.example.org. A) to a 192.0.2.1 (10.0 ms) from b 192.0.2.2 (10.0 ms): tier")
	rank(AllDown, many, "")
	log.Expect(t, "All servers of 1000 services (such as s0.svc.gslb.example.org. A) are down, answering with the last ranking")
	rank(ranking.Up, many)
	log.Expect(t, "Server a 192.0.2.1 (10.0 ms) of 1000 services (such as s0.svc.gslb.example.org. A) is up again")
	use("down a")
	rank(Override, many)
	log.Expect(t, "Switched 1000 services (such as s0.svc.gslb.example.org. A) to b 192.0.2.2 (10.0 ms) from a 192.0.2.1 (down: down a until 2100-01-01T00:00:00Z reason new disk): override")
	use()
	rank(Override, many)
	log.Expect(t, "Switched 1000 services (such as s0.svc.gslb.example.org. A) to a 192.0.2.1 (10.0 ms) from b 192.0.2.2 (10.0 ms): override")
	use("drain a")
	rank(Override, many)
	log.Expect(t, "Switched 1000 services (such as s0.svc.gslb.example.org. A) to b 192.0.2.2 (10.0 ms) from a 192.0.2.1 (10.0 ms; drain a until 2100-01-01T00:00:00Z reason new disk): override")
	use()
	rank(Override, many)
	log.Expect(t, "A) to a 192.0.2.1 (10.0 ms) from b 192.0.2.2 (10.0 ms): override")

	// An override that changes nothing is no cause of what comes later.
	rank(ranking.Down, many, "a")
	log.Expect(t, ": down")
	use("up b")
	rank(Override, 0, "a")
	log.Expect(t)
	rank(Tier, many)
	log.Expect(t, ": tier")
	rank(AllDown, 0, "") // b counts as up
	log.Expect(t, "A) to b 192.0.2.2 (10.0 ms; up b until 2100-01-01T00:00:00Z reason new disk) from a 192.0.2.1 (down: timeout): down")
	use()
	rank(AllDown, many, "")
	log.Expect(t, "All servers of 1000 services")
	use("drain a")
	rank(Override, many, "")
	log.Expect(t, "A) to b 192.0.2.2 (down: timeout) from a 192.0.2.1 (down: timeout; drain a until 2100-01-01T00:00:00Z reason new disk): override")
	use()
	rank(Override, many, "")
	log.Expect(t, "A) to a 192.0.2.1 (down: timeout) from b 192.0.2.2 (down: timeout): override")
	rank(Override, 0, "")
	log.Expect(t)
	use("up b")
	rank(Override, many, "")
	log.Expect(t, "A) to b 192.0.2.2 (10.0 ms; up b until 2100-01-01T00:00:00Z reason new disk) from a 192.0.2.1 (down: timeout): override")
	use()
	rank(Override, many)
	log.Expect(t, "A) to a 192.0.2.1 (10.0 ms) from b 192.0.2.2 (10.0 ms): override")
	drained := d.inventory.servers["a"]
	drained.drain = true
	d.inventory.servers["a"] = drained
	use()
	rank(Drained, many)
	log.Expect(t, "Switched 1000 services (such as s0.svc.gslb.example.org. A) to b 192.0.2.2 (10.0 ms) from a 192.0.2.1 (10.0 ms): drain")
	for i := range d.inventory.services {
		d.inventory.services[i].servers = slices.Delete(d.inventory.services[i].servers, 1, 2)
	}
	use()
	rank(Removed, many)
	log.Expect(t, "Switched 1000 services (such as s0.svc.gslb.example.org. A) to own0 10.0.0.0 (10.0 ms) from b 192.0.2.2 (removed): removed")
	rank(Removed, 0)
	log.Expect(t)

	// The same while all are down.
	rank(AllDown, many, "")
	log.Expect(t, "All servers of 1000 services")
	for i := range d.inventory.services {
		d.inventory.services[i].servers = labelsOf("a")
	}
	use()
	rank(Removed, 1, "")
	log.Expect(t, "Switched s0.svc.gslb.example.org. and 999 more services A to a 192.0.2.1 (down: timeout) from own0 10.0.0.0 (removed): removed")
	rank(Removed, 0, "")
	log.Expect(t)
}

// TestAllDownDescribed checks that the log tells what each type of record gets.
func TestAllDownDescribed(t *testing.T) {
	four, both := allDown{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.99")}}, allDown{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8::99")}}
	a, aaaa := []uint16{dns.TypeA}, []uint16{dns.TypeAAAA}
	tests := []struct {
		allDown allDown
		qtypes  []uint16
		want    string
	}{
		{allDown{}, a, "the last ranking"},
		{allDown{refuse: true}, a, "REFUSED"},
		{four, a, "192.0.2.99"},
		{four, aaaa, "no AAAA record"},
		{four, slices.Concat(a, aaaa), "192.0.2.99, no AAAA record"},
		{both, aaaa, "2001:db8::99"},
		{both, slices.Concat(a, aaaa), "192.0.2.99, 2001:db8::99"},
	}
	for _, tc := range tests {
		if got := tc.allDown.describe(tc.qtypes); got != tc.want {
			t.Errorf("%+v for %v: expected %q, got %q", tc.allDown, tc.qtypes, tc.want, got)
		}
	}
}

// TestReportOneEvent checks that an event is one line also when each of the
// services that it touches had a first server of its own.
func TestReportOneEvent(t *testing.T) {
	const many = 100
	c := config{Zones: []string{testZone}, inventory: inventory{servers: map[string]serverConfig{"y": machine("192.0.2.1")}}, ttlLow: 20, ttlHigh: 60, Node: "event"}
	for i := range many {
		own := fmt.Sprintf("own%d", i)
		c.inventory.servers[own] = machine(fmt.Sprintf("10.0.0.%d", i+1))
		c.inventory.services = append(c.inventory.services, serviceConfig{name: fmt.Sprintf("s%02d.%s", i, testZone), servers: labelsOf("y", own), options: options{answers: 1}})
	}
	d := newDNSLB(c, nil)
	d.state = newBlockState()
	d.ready.Store(true)
	f := newFakeMeasurements()
	r := newRanker(d, f)
	measure := func(y, others float64) {
		f.say("y", y)
		for i := range many {
			f.say(fmt.Sprintf("own%d", i), others)
		}
	}
	rounds := func(y, others float64) {
		for range 20 { // as many as the rule may want
			measure(y, others)
			r.rank(true)
		}
	}
	measure(50, 10)
	r.setSnapshot(d.sources.snapshot())
	log := logtest.Capture(t)
	rounds(5, 10)
	log.Expect(t, "event: Switched 100 services (such as s00."+testZone+" A) to y 192.0.2.1 (5.0 ms) from own0 10.0.0.1 (10.0 ms): lower")
	rounds(50, 10)
	log.Expect(t, "event: Switched 100 services (such as s00."+testZone+" A) to own0 10.0.0.1 (10.0 ms) from y 192.0.2.1 (50.0 ms): lower")
	use := func(lines ...string) {
		r.setSnapshot(build(&d.config, d.sources.inventory(), nil, lasting(t, lines...)))
	}
	use("drain own*")
	log.Expect(t, "event: Switched 100 services (such as s00."+testZone+" A) to y 192.0.2.1 (50.0 ms) from own0 10.0.0.1 (10.0 ms; drain own* until 2100-01-01T00:00:00Z reason new disk): override")
	use()
	rounds(50, 10)
	log.Expect(t, "event: Switched 100 services (such as s00."+testZone+" A) to own0 10.0.0.1 (10.0 ms) from y 192.0.2.1 (50.0 ms)")
}

// TestServerAfterOverride checks when a server is answered first again whose override
// is taken back: at once if what was measured meanwhile says so, else by the rule.
func TestServerAfterOverride(t *testing.T) {
	for _, tc := range []struct {
		name, override string
		a              float64 // latency, in milliseconds; b has 60
		rounds         int     // while the override is in force
		died           bool    // a was down meanwhile, and is up again
		atOnce         bool    // a is first again
		later          bool    // after 20 rounds
	}{
		{"down", "down a", 10, 3, false, true, true},
		{"drained", "drain a", 10, 3, false, true, true},
		{"too short to tell", "down a", 10, 1, false, false, true},
		{"slower meanwhile", "down a", 90, 3, false, false, false},
		{"down meanwhile", "down a", 10, 3, true, false, true},
		{"no other was ordered", "down z", 10, 3, false, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := logtest.Capture(t)
			d := service4(options{answers: 1}, make([]settings, 2), make([]float64, 2))
			f := newFakeMeasurements()
			r := newRanker(d, f)
			round := func(a float64) {
				f.say("a", a)
				f.say("b", 60)
				r.rank(true)
			}
			use := func(lines ...string) {
				r.setSnapshot(build(&d.config, d.sources.inventory(), nil, lasting(t, lines...)))
			}
			first := func() string { return d.snapshot.Load().pools[0].answer.Load().addrs[0].String() }
			f.say("a", 10)
			f.say("b", 60)
			use()
			for range 3 {
				round(10)
			}
			use(tc.override)
			for range tc.rounds {
				round(tc.a)
			}
			if tc.died {
				f.mu.Lock()
				f.by["a"] = latencyprobe.Status{State: latencyprobe.Down, Probed: true, Estimate: f.by["a"].Estimate}
				f.mu.Unlock()
				r.rank(true)
				round(tc.a)
			}
			use()
			if got := first() == "192.0.2.1"; got != tc.atOnce {
				t.Errorf("Expected a to be first at once: %v, got %v", tc.atOnce, got)
			}
			if tc.atOnce && tc.override != "down z" && !strings.HasSuffix(strings.Join(log.Lines(), "\n"), "to a 192.0.2.1 (10.0 ms) from b 192.0.2.2 (60.0 ms): override") {
				t.Errorf("Expected a switch by the end of the override, got %q", log.Lines())
			}
			for range 20 {
				round(tc.a)
			}
			if got := first() == "192.0.2.1"; got != tc.later {
				t.Errorf("Expected a to be first later: %v, got %v", tc.later, got)
			}
		})
	}
}
