package latencyprobe

import (
	"cmp"
	"slices"
	"time"
)

// Report describes the targets of a server block at one moment, as a Go value
// and as JSON.
type Report struct {
	At       time.Time      `json:"at"`
	Isolated bool           `json:"isolated"` // this machine's own network seems to have failed
	Targets  []TargetReport `json:"targets"`  // sorted by name, address, probe
}

// TargetReport describes one target. Latencies are in milliseconds, of the
// newest samples: at most 128, none older than 10 minutes. They are absent
// before the first success.
type TargetReport struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Probe   string    `json:"probe"`
	Source  string    `json:"source,omitempty"`
	State   string    `json:"state"` // unknown, up or down
	Since   time.Time `json:"since,omitzero"`
	Reason  string    `json:"reason,omitempty"` // of being down or of the last failure
	Failing bool      `json:"failing"`          // the last probe failed, and the target is not down

	Estimate float64 `json:"estimate_ms,omitempty"` // the latency to rank by
	Last     float64 `json:"last_ms,omitempty"`
	Min      float64 `json:"min_ms,omitempty"`
	P25      float64 `json:"p25_ms,omitempty"`
	Median   float64 `json:"median_ms,omitempty"`
	P95      float64 `json:"p95_ms,omitempty"`
	Jitter   float64 `json:"jitter_ms,omitempty"`
	Loss     float64 `json:"loss"` // share, 0 to 1

	Phases map[string]float64 `json:"phases_ms,omitempty"` // of the last success: connect, tls, first_byte, total

	Samples uint64 `json:"samples"` // probes of latency that have ended, losses included
	Lost    uint64 `json:"lost"`
}

// Report describes all targets that plugins of this server block watch.
func (l *LatencyProbe) Report() Report {
	watched := make(map[*measurement]bool)
	for _, w := range l.openWatches() {
		w.mu.RLock()
		for _, m := range w.targets {
			watched[m] = true
		}
		w.mu.RUnlock()
	}
	r := Report{At: time.Now(), Isolated: l.Isolated(), Targets: make([]TargetReport, 0, len(watched))}
	for m := range watched {
		r.Targets = append(r.Targets, m.report())
	}
	slices.SortFunc(r.Targets, func(a, b TargetReport) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Probe, b.Probe))
	})
	return r
}

func (m *measurement) report() TargetReport {
	status, stats := m.status(), m.statistics()
	r := TargetReport{
		Name: m.key.target.Name, Address: m.key.target.Addr.String(), Probe: m.key.target.Probe,
		State: status.State.String(), Since: status.Since, Reason: status.Reason, Failing: status.Failing,
		Estimate: status.Estimate.Value, Last: milliseconds(status.LastRTT),
		Min: milliseconds(stats.Min), P25: milliseconds(stats.P25), Median: milliseconds(stats.Median), P95: milliseconds(stats.P95),
		Jitter: milliseconds(stats.Jitter), Loss: stats.Loss, Samples: status.Samples, Lost: status.Lost,
	}
	if m.key.source.IsValid() {
		r.Source = m.key.source.String()
	}
	m.mu.Lock()
	last := m.last
	m.mu.Unlock()
	for phase, took := range last.Phases() {
		if r.Phases == nil {
			r.Phases = make(map[string]float64)
		}
		r.Phases[phase] = milliseconds(took)
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
