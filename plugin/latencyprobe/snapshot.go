package latencyprobe

import (
	"cmp"
	"slices"
	"time"
)

// Snapshot is what a server block's latencyprobe knows at one moment, as a Go
// value and as JSON.
type Snapshot struct {
	At       time.Time        `json:"at"`
	Isolated bool             `json:"isolated"` // our own network seems gone
	Targets  []TargetSnapshot `json:"targets"`  // by name, address, probe
}

// TargetSnapshot is what is known of one target. Latencies are in milliseconds;
// they are over the newest samples, 128 and 10 minutes at most, and absent
// before the first success.
type TargetSnapshot struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Probe   string    `json:"probe"`
	Source  string    `json:"source,omitempty"`
	State   string    `json:"state"` // unknown, up or down
	Since   time.Time `json:"since,omitzero"`
	Reason  string    `json:"reason,omitempty"` // why it is down or failed last
	Failing bool      `json:"failing"`          // the last failure is not confirmed

	Estimate float64 `json:"estimate_ms,omitempty"` // what it is ranked by
	Last     float64 `json:"last_ms,omitempty"`
	Min      float64 `json:"min_ms,omitempty"`
	P25      float64 `json:"p25_ms,omitempty"`
	Median   float64 `json:"median_ms,omitempty"`
	P95      float64 `json:"p95_ms,omitempty"`
	Jitter   float64 `json:"jitter_ms,omitempty"`
	Loss     float64 `json:"loss"` // share, 0 to 1

	Phases map[string]float64 `json:"phases_ms,omitempty"` // of the last success: connect, tls, first_byte, total

	Samples uint64 `json:"samples"` // since the target is known, losses included
	Lost    uint64 `json:"lost"`
}

// Snapshot returns what is known of all targets that plugins of this server
// block watch.
func (l *LatencyProbe) Snapshot() Snapshot {
	s := Snapshot{At: time.Now(), Isolated: l.Isolated(), Targets: []TargetSnapshot{}}
	seen := make(map[*target]bool)
	for _, w := range l.open() {
		w.mu.RLock()
		for _, t := range w.targets {
			seen[t] = true
		}
		w.mu.RUnlock()
	}
	for t := range seen {
		s.Targets = append(s.Targets, t.snapshot())
	}
	slices.SortFunc(s.Targets, func(a, b TargetSnapshot) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Probe, b.Probe))
	})
	return s
}

func (t *target) snapshot() TargetSnapshot {
	status, stats := t.status(), t.statistics()
	s := TargetSnapshot{
		Name: t.key.target.Name, Address: t.key.target.Addr.String(), Probe: t.key.target.Probe,
		State: status.State.String(), Since: status.Since, Reason: status.Reason, Failing: status.Failing,
		Estimate: status.Estimate.Value, Last: ms(status.Last),
		Min: ms(stats.Min), P25: ms(stats.P25), Median: ms(stats.Median), P95: ms(stats.P95), Jitter: ms(stats.Jitter),
		Loss: stats.Loss, Samples: status.Samples, Lost: status.Lost,
	}
	if t.key.source.IsValid() {
		s.Source = t.key.source.String()
	}
	t.mu.Lock()
	last := t.result
	t.mu.Unlock()
	last.phases(func(name string, took time.Duration) {
		if s.Phases == nil {
			s.Phases = make(map[string]float64)
		}
		s.Phases[name] = ms(took)
	})
	return s
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
