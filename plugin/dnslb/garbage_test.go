package dnslb

import (
	"runtime/debug"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestManyServicesSaveMemory checks that the collector leaves less space to garbage while
// the instances have many services together, unless somebody else says how much.
func TestManyServicesSaveMemory(t *testing.T) {
	t.Setenv("GOGC", "")
	initial := debug.SetGCPercent(defaultPercent)
	t.Cleanup(func() { debug.SetGCPercent(initial) })
	one, two := new(DNSLB), new(DNSLB)
	type step struct {
		instance *DNSLB
		services int
		want     uint64
	}
	for _, tc := range []struct {
		name  string
		gogc  string
		set   int // by the rest of the program
		steps []step
	}{
		{"the limit", "", 100, []step{{one, saveAbove, 100}, {one, saveAbove + 1, 25}, {one, saveAbove, 100}}},
		{"two instances", "", 100, []step{{one, 6_000, 100}, {two, 6_000, 25}, {two, 7_000, 25}, {one, 0, 100}, {two, saveAbove + 1, 25}, {two, 0, 100}}},
		{"environment", "100", 100, []step{{one, saveAbove + 1, 100}, {one, 0, 100}}},
		{"the program", "", 50, []step{{one, saveAbove + 1, 50}, {one, 0, 50}}},
		{"the program, the same", "", 25, []step{{one, saveAbove + 1, 25}, {one, 0, 25}}},
		{"off", "", -1, []step{{one, saveAbove + 1, gcOff}, {one, 0, gcOff}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("GOGC", tc.gogc)
			debug.SetGCPercent(tc.set)
			var c collector
			for _, s := range tc.steps {
				c.set(s.instance, s.services)
				if got := gcPercent(); got != s.want {
					t.Errorf("Expected %d %% with %d services, got %d", s.want, s.services, got)
				}
			}
			if len(c.services) > 1 {
				t.Errorf("Expected no instance that has ended, got %d", len(c.services))
			}
		})
	}
	t.Run("the program, later", func(t *testing.T) {
		debug.SetGCPercent(defaultPercent)
		var c collector
		c.set(one, saveAbove+1)
		debug.SetGCPercent(50)
		c.set(one, 0)
		if got := gcPercent(); got != 50 {
			t.Errorf("Expected the 50 %% of the program, got %d", got)
		}
	})
}

// gcOff is gcPercent without a collector.
const gcOff = ^uint64(0)

// TestServicesOfInstanceCountUntilItEnds checks that instances tell how many services
// they have.
func TestServicesOfInstanceCountUntilItEnds(t *testing.T) {
	noted := func(d *DNSLB) int {
		garbage.mu.Lock()
		defer garbage.mu.Unlock()
		return garbage.services[d]
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
