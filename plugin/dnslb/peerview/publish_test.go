package peerview

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

func noRankings() map[Service]Ranking { return nil }

func TestPublishWhatIsNew(t *testing.T) {
	now := time.Now()
	target := latencyprobe.Target{Name: "fra", Addr: addr("192.0.2.1")}
	status := func(value, noise float64, state latencyprobe.State) latencyprobe.Status {
		return latencyprobe.Status{State: state, Estimate: ranking.Estimate{Round: 1, Value: value, Noise: noise}}
	}
	first := status(10, 0.2, latencyprobe.Up)
	tests := []struct {
		name     string
		after    time.Duration
		status   latencyprobe.Status
		targets  []latencyprobe.Target
		switched bool
		want     bool
	}{
		{"nothing new", 10 * time.Second, first, nil, false, false},
		{"nothing new for long", publishInterval, first, nil, false, true},
		{"a little slower", 10 * time.Second, status(10.9, 0.2, latencyprobe.Up), nil, false, false},
		{"slower", 10 * time.Second, status(11.1, 0.2, latencyprobe.Up), nil, false, true},
		{"slower, but within the noise", 10 * time.Second, status(12, 3, latencyprobe.Up), nil, false, false},
		{"another first server", 10 * time.Second, first, nil, true, true},
		{"down", 10 * time.Second, status(10, 0.2, latencyprobe.Down), nil, false, true},
		{"too soon", minPublishInterval / 2, status(10, 0.2, latencyprobe.Down), nil, true, false},
		{"no longer measured", 10 * time.Second, latencyprobe.Status{State: latencyprobe.Up}, nil, false, true},
		{"another server", 10 * time.Second, first, []latencyprobe.Target{{Name: "iad", Addr: addr("192.0.2.2")}}, false, true},
		{"no server", 10 * time.Second, first, []latencyprobe.Target{}, false, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := New(unreachable, noTargets)
			defer s.Close()
			publish := func(at time.Time, st latencyprobe.Status, targets []latencyprobe.Target, switched bool) bool {
				known := []latencyprobe.Status{st}
				return s.Publish(at, Findings{targets, known, func(latencyprobe.Target) latencyprobe.Status { return st }, noRankings, switched})
			}
			if tc.targets == nil {
				tc.targets = []latencyprobe.Target{target}
			}
			publish(now, first, []latencyprobe.Target{target}, true)
			before := s.published.Load()
			did := publish(now.Add(tc.after), tc.status, tc.targets, tc.switched)
			after := s.published.Load()
			if (after != before) != tc.want || did != tc.want {
				t.Errorf("Expected another view: %v, got %v, reported %v", tc.want, after != before, did)
			}
			if after != before && int32(after.Serial-before.Serial) <= 0 {
				t.Errorf("Expected a larger serial than %d, got %d", before.Serial, after.Serial)
			}
		})
	}
}

func TestNodeWithoutDeputyHasNoView(t *testing.T) {
	s := New(unreachable, noTargets)
	defer s.Close()
	settings := Settings{Cut: testCut, Node: "par1", Key: viewKey(t, testSecret)}
	s.Configure(settings)
	s.published.Store(new(View))
	s.Configure(settings)
	if s.published.Load() != nil {
		t.Error("Expected the view to be deleted")
	}
}

// TestEachDeputyHasOneGoroutine checks that it ends when a reload takes the
// deputy away.
func TestEachDeputyHasOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan string, 100)
		s := New(func(_ context.Context, node string) ([]netip.Addr, error) {
			asked <- node
			return nil, registrar.ErrNotRegistered
		}, noTargets)
		settings := Settings{Cut: testCut, Node: "par1", Key: viewKey(t, testSecret)}
		for _, deputies := range []string{"lon1", "lon1", "fra1", ""} {
			settings.Deputies = strings.Fields(deputies)
			s.Configure(settings)
			s.Publish(time.Now(), Findings{Rankings: noRankings})
			time.Sleep(publishInterval)
			synctest.Wait()
			notified := make(map[string]bool)
			for len(asked) > 0 {
				notified[<-asked] = true
			}
			if got := slices.Collect(maps.Keys(notified)); !slices.Equal(got, settings.Deputies) {
				t.Errorf("Expected %v to be notified, got %v", settings.Deputies, got)
			}
		}
		s.Close() // the bubble fails if a goroutine is left
	})
}
