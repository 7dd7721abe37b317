package dnslb

import (
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestManyServicesSaveSpace checks that space is saved while the instances have many
// services together.
func TestManyServicesSaveSpace(t *testing.T) {
	one, two := new(DNSLB), new(DNSLB)
	type step struct {
		instance *DNSLB
		services int
		want     bool
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"the limit", []step{{one, saveAbove, false}, {one, saveAbove + 1, true}, {one, saveAbove, false}}},
		{"two instances", []step{{one, 6_000, false}, {two, 6_000, true}, {two, 7_000, true}, {one, 0, false}, {two, saveAbove + 1, true}, {two, 0, false}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s serviceSavings
			for _, step := range tc.steps {
				s.set(step.instance, step.services)
				if got := s.end != nil; got != step.want {
					t.Errorf("Expected %v with %d services, got %v", step.want, step.services, got)
				}
			}
			if s.end != nil {
				s.end()
			}
			if len(s.services) > 1 {
				t.Errorf("Expected no instance that has ended, got %d", len(s.services))
			}
		})
	}
}

// TestServicesOfInstanceCountUntilItEnds checks that instances tell how many services
// they have.
func TestServicesOfInstanceCountUntilItEnds(t *testing.T) {
	noted := func(d *DNSLB) int {
		savings.mu.Lock()
		defer savings.mu.Unlock()
		return savings.services[d]
	}
	d := newDNSLB(config{Zones: []string{testZone}, inventory: inventoryOf(3), ttlLow: 20, ttlHigh: 60, admin: noAdminFile()}, new(latencyprobe.LatencyProbe))
	d.state = newBlockState()
	t.Cleanup(d.state.close)
	d.configureBlock = func() {}
	d.start(t.Context())
	if got := noted(d); got != 3 {
		t.Errorf("Expected 3 services, got %d", got)
	}
	d.stop()
	if got := noted(d); got != 0 {
		t.Errorf("Expected no services after the end, got %d", got)
	}
}
