package latencyprobe

import (
	"net/netip"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// Target is an address to measure. It is comparable.
type Target struct {
	Name  string     // of the server or node, for metrics and logs
	Addr  netip.Addr // without zone
	Probe string     // name of the probe, "" for the default one
	Check Check      // if set, replaces the methods of the probe
}

// Check is a DNS question that a target must answer with NOERROR and AA.
type Check struct {
	Port uint16
	Name string // absolute
	Type uint16
}

// State is the health of a target.
type State uint8

// The states of a target.
const (
	Unknown State = iota // no success yet, and too few failures to be Down
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

// Status describes a target.
type Status struct {
	State   State
	Since   time.Time // of the state; zero while it is Unknown
	Reason  string    // of being down or of the last failure; "" after a success
	Held    bool      // Down because it was too often, although it works again
	Failing bool      // the last probe failed, and the target is not Down, or Held
	Probed  bool      // at least one probe has ended

	Estimate   ranking.Estimate
	LastRTT    time.Duration // latency of the last success
	MeasuredAt time.Time     // when the newest sample of the estimate was taken; zero if none was

	Samples uint64 // probes of latency that have ended, losses included
	Lost    uint64 // probes of latency that failed
}

// Statistics describe the newest samples of a target: at most 128, none older
// than 10 minutes. All but Loss and Samples are of successes alone.
type Statistics struct {
	Min, P25, Median, P95 time.Duration
	Jitter                time.Duration // mean difference of successive samples (RFC 3550, without smoothing)
	Loss                  float64       // share of failed probes, 0 to 1
	Samples               int           // losses included
}
