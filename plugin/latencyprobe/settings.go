package latencyprobe

import (
	"net/netip"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/trace"
)

const (
	defaultInterval = 5 * time.Second
	defaultTimeout  = time.Second
	// minInterval is the pause that an address has in any case.
	minInterval = addressPause
	minTimeout  = 10 * time.Millisecond
)

// settings are those of one probe: one latencyprobe block of the Corefile. They
// do not change after startup.
type settings struct {
	name     string
	rttGiven bool          // there is an rtt line
	rtt      prober.Prober // measures the latency to rank by
	health   prober.Prober // decides whether a target is up; nil: rtt does
	interval time.Duration
	timeout  time.Duration
	source4  netip.Addr
	source6  netip.Addr
	unlisted bool // the targets have no metrics of their own

	statePath string     // absolute, "": none
	stateFile *stateFile // open from startup on
	tracePath string     // absolute, "": none
	trace     *trace.Recorder
}

// forTarget returns the settings for measuring a target.
func (s *settings) forTarget(t Target) *settings {
	if t.Check == (Check{}) {
		return s
	}
	check := *s
	check.rtt = prober.DNS{Port: t.Check.Port, Name: t.Check.Name, Type: t.Check.Type, Authoritative: true}
	check.health = nil
	return &check
}

// source returns the source address of probes to addr, invalid if the kernel
// chooses.
func (s *settings) source(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return s.source4
	}
	return s.source6
}

// id tells apart the probes whose measurements do not compare. State files
// contain it.
func (s *settings) id() string {
	health := "<nil><nil>"
	if s.health != nil {
		health = pluginName + "." + s.health.ID()
	}
	return pluginName + "." + s.rtt.ID() + " " + health
}
