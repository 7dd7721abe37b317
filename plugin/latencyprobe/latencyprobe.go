// Package latencyprobe implements a plugin that measures how far away and how
// healthy the targets are that other plugins of the server block hand it.
//
// It answers no queries. Measurements belong to the process, not to a server
// block or a Corefile instance: those that a reload does not change go on as if
// nothing had happened.
//
// Data flows one way: a method takes a sample (icmp.go, tcp.go, tls.go, dns.go,
// http.go), the schedule of its target says when (target.go), the sample becomes
// health (health.go) and an estimate, and a Watch shows both (watch.go).
package latencyprobe

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

const pluginName = "latencyprobe"

// LatencyProbe is the plugin in one server block.
type LatencyProbe struct {
	Next plugin.Handler

	probes map[string]*probe // by name
	holder *keep.Holder      // of watches
	files  *keep.Holder
	traces *keep.Holder

	started atomic.Pointer[time.Time]
	watches watches
}

var _ plugin.Handler = (*LatencyProbe)(nil)

// blockKey is where the LatencyProbe of a server block is stored.
type blockKey struct{ index int }

// Of returns the LatencyProbe of the server block that c sets up, or nil if
// there is none. It is to be called in setup.
func Of(c *caddy.Controller) *LatencyProbe {
	l, _ := c.Get(blockKey{c.ServerBlockIndex}).(*LatencyProbe)
	return l
}

// Probes returns the names of the configured probes, sorted; the default one's
// is empty.
func (l *LatencyProbe) Probes() []string {
	names := make([]string, 0, len(l.probes))
	for name := range l.probes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// HasRTT reports whether the probe named was given an rtt line.
func (l *LatencyProbe) HasRTT(name string) bool {
	p, ok := l.probes[name]
	return ok && p.explicit
}

// Usable returns an error if this process is not allowed to measure by the probe
// named. It is to be asked at start-up by who has targets for it.
func (l *LatencyProbe) Usable(name string) error {
	p, ok := l.probes[name]
	if !ok {
		return nil
	}
	for _, m := range []method{p.rtt, p.health} {
		if _, ok := m.(icmp); ok {
			_, err := icmpSocket()
			return err
		}
	}
	return nil
}

// Isolated reports whether our own network seems gone: then states and
// estimates are frozen as they were before.
func (l *LatencyProbe) Isolated() bool { return isolation.is() }

// ServeDNS implements the plugin.Handler interface.
func (l *LatencyProbe) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure(l.Name(), l.Next, ctx, w, r)
}

// Name implements the plugin.Handler interface.
func (l *LatencyProbe) Name() string { return pluginName }

// Target is what is measured. It is comparable.
type Target struct {
	Name  string     // the server's or node's name, for metrics and logs
	Addr  netip.Addr // its address
	Probe string     // the name of the probe, empty for the default one
	Check Check      // if set, what to ask instead of using the probe's methods
}

// Check is a DNS question that a target must answer with NOERROR and AA.
type Check struct {
	Port uint16
	Name string // absolute
	Type uint16
}

// State is what is known about the health of a target.
type State uint8

// The states of a target.
const (
	Unknown State = iota // no success yet, and not enough failures
	Up
	Down
)

// String returns the name of the state in lower case.
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// Status is what is known about a target.
type Status struct {
	State   State
	Since   time.Time // of the state; zero while it is Unknown
	Reason  string    // why it is down or failed last, empty if all is well
	Failing bool      // the last probe failed, which is not confirmed as down
	Probed  bool      // at least one probe ended

	Estimate ranking.Estimate // latency over decision rounds
	Last     time.Duration    // the last success
	LastAt   time.Time        // when that was, as far as it entered the estimate; zero before

	Samples uint64 // probes that ended since the target is known, losses included
	Lost    uint64 // of them failed
}

// Statistics are those of the newest samples of a target: 128 at most, none
// older than 10 minutes. Losses count for Loss alone.
type Statistics struct {
	Min, P25, Median, P95 time.Duration
	Jitter                time.Duration // mean difference between successes in a row (RFC 3550 without its smoothing)
	Loss                  float64       // share of probes without a success, 0 to 1
	Samples               int           // of which this is made
}
