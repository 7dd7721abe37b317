// Package latencyprobe implements a plugin that measures the latency and the
// health of the targets that other plugins of the server block give it. It
// answers no queries.
//
// Measurements belong to the process, not to a server block or to a Corefile
// instance: a reload continues those that it does not change.
//
// A sample travels one way:
//
//   - A prober (package prober) takes it when the schedule of the target says so
//     (schedule.go, alarm.go), within the rate of its address (limiter.go), and unless the
//     Go scheduler delays it (delay.go).
//   - It becomes part of the measurement of the target (measurement.go): of the
//     health (health.go), which isolation.go freezes and endpoint.go shares among the
//     questions at one address, and of the estimate and the statistics
//     (internal/ranking, samples.go).
//   - A Watch wakes the plugin that has the target, and shows it the status
//     (watch.go, status.go). ready.go, metrics.go and report.go show it too.
//
// State files preserve measurements over a restart (statefile.go, stateformat.go,
// savedtarget.go), traces record samples (package trace). setup.go and settings.go
// read the Corefile, files.go opens what it names.
package latencyprobe

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

const pluginName = "latencyprobe"

// LatencyProbe is the plugin in one server block.
type LatencyProbe struct {
	Next plugin.Handler

	probes      map[string]*settings // by name
	stateHolder *reload.Holder       // of state files
	traceHolder *reload.Holder       // of traces

	started atomic.Pointer[time.Time]

	mu      sync.Mutex
	watches map[*Watch]bool // the open ones
}

var _ plugin.Handler = (*LatencyProbe)(nil)

// blockKey is the key of the LatencyProbe of a server block.
type blockKey struct{ index int }

// ForServerBlock returns the LatencyProbe of the server block that c sets up,
// or nil if there is none. It is to be called in a setup function.
func ForServerBlock(c *caddy.Controller) *LatencyProbe {
	l, _ := c.Get(blockKey{c.ServerBlockIndex}).(*LatencyProbe)
	return l
}

// ProbeNames returns the names of the configured probes, sorted; the default
// one's is empty.
func (l *LatencyProbe) ProbeNames() []string {
	return slices.Sorted(maps.Keys(l.probes))
}

// HasRTT reports whether the probe has an rtt line.
func (l *LatencyProbe) HasRTT(probe string) bool {
	s, ok := l.probes[probe]
	return ok && s.rttGiven
}

// Sources returns the source addresses of the default probe for IPv4 and IPv6,
// invalid where the kernel chooses.
func (l *LatencyProbe) Sources() (four, six netip.Addr) {
	if s, ok := l.probes[""]; ok {
		return s.source4, s.source6
	}
	return four, six
}

// CheckPermission returns an error if this process is not allowed to measure by
// the probe. Plugins that have targets for the probe call it at startup.
func (l *LatencyProbe) CheckPermission(probe string) error {
	s, ok := l.probes[probe]
	if ok && (s.rtt == prober.ICMP{} || s.health == prober.ICMP{}) {
		return prober.ICMPAllowed()
	}
	return nil
}

// Isolated reports whether this machine's own network seems to have failed.
// States and estimates are frozen until that ends.
func (l *LatencyProbe) Isolated() bool { return isolation.active() }

// ServeDNS implements the plugin.Handler interface.
func (l *LatencyProbe) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure(l.Name(), l.Next, ctx, w, r)
}

// Name implements the plugin.Handler interface.
func (l *LatencyProbe) Name() string { return pluginName }
