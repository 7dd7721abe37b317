package dnslb

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
)

// from returns lasting overrides of a DNS-B; "": of the admin file of the node.
func from(t *testing.T, dnsb string, lines ...string) []serverOverride {
	t.Helper()
	overrides := lasting(t, lines...)
	for i := range overrides {
		overrides[i].Action.DNSB = dnsb
		if dnsb != "" {
			overrides[i].Text += " (from DNS-B " + dnsb + ")"
		}
	}
	return overrides
}

// TestOverridesOfSeveralFiles checks what a server is under if the node and its DNS-Bs
// have overrides, and which of them have no effect and why.
func TestOverridesOfSeveralFiles(t *testing.T) {
	for _, tc := range []struct {
		name          string
		node, b1, b2  []string
		want          verb
		first         string // the text that is shown
		inForce, idle int
		why           string // of the first idle one
	}{
		{"one DNS-B", nil, []string{"down fra"}, nil, serveroverride.Down, "(from DNS-B b1)", 1, 0, ""},
		{"DNS-Bs with the same", nil, []string{"down fra"}, []string{"down fra"}, serveroverride.Down, "(from DNS-B b1)", 2, 0, ""},
		{"the stronger one", nil, []string{"up fra"}, []string{"drain fra"}, serveroverride.Drain, "(from DNS-B b2)", 1, 1, "overruled by 'drain fra"},
		{"the stronger one first", nil, []string{"down fra"}, []string{"drain fra"}, serveroverride.Down, "(from DNS-B b1)", 1, 1, "overruled by 'down fra"},
		{"the first line of each", nil, []string{"up fra"}, []string{"up fra", "down fra"}, serveroverride.Up, "b1", 2, 1, "earlier overrides cover"},
		{"the node", []string{"up fra"}, []string{"down fra"}, []string{"down fra"}, serveroverride.Up, "disk", 1, 2, "overruled by 'up fra"},
		{"the node with the same", []string{"down fra"}, []string{"down fra"}, nil, serveroverride.Down, "disk", 2, 0, ""},
		{"the node for another service", []string{"up fra for ftp.*"}, []string{"down fra"}, nil, serveroverride.Down, "b1", 1, 1, "no service has"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			active := append(from(t, "", tc.node...), append(from(t, "b1", tc.b1...), from(t, "b2", tc.b2...)...)...)
			x := newOverrideIndex(active)
			x.addTarget("fra", netip.MustParseAddr("192.0.2.1"))
			got := x.of("www."+testZone, 0)
			if got.verb != tc.want || !strings.Contains(got.text, tc.first) {
				t.Errorf("Expected '%s' by %q, got '%s' by %q", tc.want, tc.first, got.verb, got.text)
			}
			inForce, idle := x.effects()
			if len(inForce) != tc.inForce || len(idle) != tc.idle || tc.idle > 0 && !strings.HasPrefix(idle[0].why, tc.why) {
				t.Errorf("Expected %d in force and %d idle (%s), got %v and %+v", tc.inForce, tc.idle, tc.why, inForce, idle)
			}
		})
	}
}

// TestOverridesOfDNSBsAreFollowed checks that overrides from DNS-Bs come and go at once
// beside those of the admin file, and by themselves at their end.
func TestOverridesOfDNSBsAreFollowed(t *testing.T) {
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSources(&config{
			Zones: []string{testZone}, Node: "par1", probes: []string{""},
			inventory: inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + testZone, servers: labelsOf("a"), options: options{answers: 1}}}},
		})
		var overrides []serverOverride
		s.fromDNSBs = func() []serverOverride { return overrides }
		s.snapshot()
		log.Lines()
		ctx, cancel := context.WithCancel(t.Context())
		snapshots, done, fetched := make(chan *snapshot), make(chan struct{}), make(chan struct{})
		go func() { defer close(done); s.follow(ctx, snapshots, fetched, func() {}) }()
		take := func(next ...serverOverride) verb {
			synctest.Wait()
			overrides = next
			fetched <- struct{}{}
			return (<-snapshots).pools[0].members[0].override.verb
		}
		begin := time.Now()
		ending := from(t, "b1", "down a")[0]
		ending.Until = begin.Add(10*time.Second + 500*time.Millisecond)
		elsewhere := from(t, "b1", "down a for www.svc.example.net")[0]
		if got := take(elsewhere, ending); got != serveroverride.Down || time.Since(begin) > 0 {
			t.Errorf("Expected the server to be down at once, got '%s' after %s", got, time.Since(begin))
		}
		log.Expect(t, "par1: Override in force: down a until 2100-01-01T00:00:00Z reason new disk (from DNS-B b1)")
		if got := (<-snapshots).pools[0].members[0].override.verb; got != serveroverride.None || time.Since(begin) != ending.Until.Sub(begin) {
			t.Errorf("Expected the override to end at %s, got '%s' after %s", ending.Until.Sub(begin), got, time.Since(begin))
		}
		log.Expect(t, "par1: Override ended: down a until")
		if got := take(from(t, "b1", "drain a")...); got != serveroverride.Drain {
			t.Errorf("Expected the server to be drained, got '%s'", got)
		}
		if got := take(); got != serveroverride.None {
			t.Errorf("Expected no override any more, got '%s'", got)
		}
		cancel()
		<-done
	})
}

// TestBadAdminFileKeepsOnlyItsOverrides checks that overrides of a DNS-B do not become
// those of an admin file with an error.
func TestBadAdminFileKeepsOnlyItsOverrides(t *testing.T) {
	logtest.Capture(t)
	conf := &config{Zones: []string{testZone}, probes: []string{""}, admin: newAdminFile(t.TempDir(), testZone)} // a directory
	if err := conf.admin.Load(); err == nil {
		t.Fatal("Expected an error")
	}
	s := newSources(conf)
	previous := append(from(t, "", "drain a"), from(t, "b1", "down a")...)
	s.resume(instanceSnapshot{&DNSLB{}, &snapshot{overrides: previous}})
	if got := s.admin.Value(); len(got) != 1 || got[0].Action.DNSB != "" {
		t.Errorf("Expected the override of the file alone, got %v", got)
	}
}
