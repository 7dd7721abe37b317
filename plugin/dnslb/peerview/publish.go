package peerview

import (
	"math"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

const (
	// publishInterval is the longest time between two views, so that a deputy
	// that was restarted has one soon: until then it answers by its own
	// measurements.
	publishInterval = 20 * time.Second
	// minPublishInterval is the shortest time between two views: a decision round,
	// less the jitter of its timer.
	minPublishInterval = ranking.Round - 500*time.Millisecond
	// minChange is the change of an estimate, in milliseconds, from which on it is
	// worth another view, as it may change a ranking.
	minChange = 1
)

// Findings are what a node has to share.
type Findings struct {
	Targets  []latencyprobe.Target
	Ranked   []latencyprobe.Status                         // by target: what the rankings are made of
	Status   func(latencyprobe.Target) latencyprobe.Status // of this moment
	Rankings func() map[Service]Ranking
	Switched bool // a pool answers other servers than in the last view
}

// Publish makes a view of the findings and notifies the deputies of it, if
// there is something new or the last view is old. It reports whether it did.
func (s *Sharing) Publish(now time.Time, f Findings) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	last := s.published.Load()
	if last != nil && now.Sub(last.Made) < minPublishInterval {
		return false
	}
	if last != nil && now.Sub(last.Made) < publishInterval &&
		slices.Equal(last.Deputies, s.settings.Deputies) && last.AllNodes == s.settings.AllNodes && !f.Switched && !last.differs(f.Targets, f.Ranked) {
		return false
	}
	v := &View{
		Node: s.settings.Node, Made: now, Deputies: s.settings.Deputies, AllNodes: s.settings.AllNodes,
		Serial:   uint32(now.Unix()), // #nosec G115 -- serial arithmetic (RFC 1982)
		Targets:  make(map[Target]Measurement, len(f.Targets)),
		Rankings: f.Rankings(),
	}
	if last != nil && int32(v.Serial-last.Serial) <= 0 { // #nosec G115 -- serial arithmetic (RFC 1982)
		v.Serial = last.Serial + 1
	}
	for _, t := range f.Targets {
		st := f.Status(t)
		v.Targets[Target{t.Addr, t.Probe}] = Measurement{t.Name, st.Estimate, st.MeasuredAt, st.State}
	}
	s.published.Store(v)
	for _, n := range s.notifiers {
		n.woken.Set()
	}
	return true
}

// differs reports whether a node has learned enough since the view was made to
// make another one.
func (v *View) differs(targets []latencyprobe.Target, ranked []latencyprobe.Status) bool {
	for i, t := range targets {
		old, ok := v.Targets[Target{t.Addr, t.Probe}]
		e := ranked[i].Estimate
		if !ok || old.State != ranked[i].State || old.Estimate.Measured() != e.Measured() ||
			math.Abs(e.Value-old.Estimate.Value) > max(minChange, e.Noise) {
			return true
		}
	}
	return len(v.Targets) > len(targets)
}
