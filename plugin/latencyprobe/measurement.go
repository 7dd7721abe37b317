package latencyprobe

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/trace"
)

// measurement is the continuous measurement of one target, by one probe from
// one source. The goroutine of its schedule alone takes samples.
type measurement struct {
	key        measurementKey
	settings   atomic.Pointer[settings] // nil: it has not started
	endpoint   *endpoint                // nil: the target has no Check
	alarm      alarm                    // for its next round
	schedule   schedule
	lastProbe  atomic.Pointer[probeEnd] // nil: none has ended
	localInRow int                      // owned by the goroutine, see countLocal

	mu        sync.Mutex
	health    health
	estimator ranking.Estimator
	samples   samples
	hour      *history.Series // nil: there is no sample yet, or it is not recorded
	last      prober.Result   // of the last success
	total     uint64          // probes of latency that have ended
	lost      uint64          // probes of latency that failed
	traces    []*trace.Recorder

	watchesMu sync.Mutex
	watches   []*Watch
}

// measurementKey identifies a measurement.
type measurementKey struct {
	target  Target
	source  netip.Addr
	probeID string // settings.id
}

// probeEnd is how a probe ended, as far as isolation needs to know.
type probeEnd struct {
	ended   time.Time
	reached bool // the target answered, or something in front of it
	replied bool // the target answered
	wasUp   bool // the target was up before the probe ended
}

// outcome is how one probe ended.
type outcome struct {
	prober.Result
	err        error
	ended      time.Time
	delayed    bool // by this process, so that RTT is too long
	impossible bool // RTT is not above 0, or beyond the timeout
	local      bool // err is a failure of this machine, which says nothing about the target
}

// measurements owns the measurements of the process. Each goes on as long as a
// Watch has its target, with the settings of the youngest one.
var measurements reload.Owner[measurementKey, *measurement, *settings]

// init is needed since a measurement that goes down counts the others: a cycle.
func init() {
	measurements.New = newMeasurement
	measurements.Configure = func(m *measurement, s *settings) error { m.configure(s); return nil }
	measurements.Close = func(_ measurementKey, m *measurement) { m.end(); m.endpoint.leave(m); m.dropHour() }
}

func newMeasurement(key measurementKey) *measurement {
	m := &measurement{key: key}
	m.endpoint = joinEndpoint(m)
	return m
}

// configure applies settings. The first ones also restore the state of m from
// the state file and start its schedule. Earlier files stay: another server
// block may name them.
func (m *measurement) configure(s *settings) {
	previous := m.settings.Swap(s)
	if s.stateFile != nil {
		if saved := s.stateFile.add(m); saved != nil && previous == nil {
			m.restore(saved)
		}
	}
	if s.trace != nil {
		m.recordTo(s.trace)
	}
	switch {
	case previous == nil:
		m.start()
	case previous.interval != s.interval:
		m.changeInterval()
	}
}

func (m *measurement) recordTo(r *trace.Recorder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.traces = slices.DeleteFunc(m.traces, (*trace.Recorder).Closed)
	if !slices.Contains(m.traces, r) {
		m.traces = append(m.traces, r)
	}
}

// apply adds outcomes of probes, of latency, of health or of both, and wakes
// the watches if their view has changed.
func (m *measurement) apply(latency, health *outcome) {
	m.mu.Lock()
	before, first := m.current(), m.total == 0
	if latency != nil {
		m.addLatency(*latency)
	}
	if health != nil {
		m.addHealth(*health)
	}
	after := m.current()
	m.mu.Unlock()

	if before.state != after.state {
		m.logChange(before, after)
	}
	if first || before.state != after.state || before.held != after.held || before.failing() != after.failing() || before.probed != after.probed {
		m.wakeWatches()
	}
}

// addLatency adds a sample. Losses never enter the estimate.
func (m *measurement) addLatency(o outcome) {
	m.total++
	if o.err == nil && (o.impossible || o.delayed && m.last.RTT > 0) {
		return // it shows how busy this process is, or nothing, but not how far the target is
	}
	for _, r := range m.traces {
		r.Record(trace.Sample{At: o.ended, Name: m.key.target.Name, Addr: m.key.target.Addr, RTT: o.RTT, Lost: o.err != nil})
	}
	m.addToHour(o)
	if o.err != nil {
		m.lost++
		m.samples.addLoss(o.ended)
		return
	}
	m.samples.add(o.ended, o.RTT)
	m.estimator.Add(o.ended, o.RTT)
	m.last = o.Result
}

// addHealth adds a probe that shows whether the target is up.
func (m *measurement) addHealth(o outcome) {
	reached, replied := prober.Reached(o.err), prober.Replied(o.err)
	m.lastProbe.Store(&probeEnd{o.ended, reached, replied, m.current().state == Up})
	if reached {
		isolation.recheck()
	}
	if replied {
		m.endpoint.success(o.ended)
	}
	if o.err == nil {
		m.health.success(o.ended)
		m.endpoint.note(m, m.health.state == Down)
		return
	}
	reason, silent := remotetext.Clean(o.err.Error()), !reached && prober.ReasonOf(o.err) == prober.Timeout
	isolated := func(first time.Time) bool { return !reached && isolation.detect(first) }
	if !replied && m.endpoint.failure(m, o.ended, reason, silent, isolated) {
		m.health.probed = true
		return
	}
	m.health.forgetFailures(isolation.ended.Load() + m.endpoint.recoveries())
	m.health.failure(o.ended, reason, silent, func() bool { return isolated(m.health.firstFailure) })
	m.endpoint.note(m, m.health.state == Down)
}

// current returns the health of the target: that of its endpoint if that is down.
// mu is locked.
func (m *measurement) current() health {
	h, _ := m.endpoint.of(m.health)
	return h
}

func (m *measurement) logChange(before, after health) {
	switch t := m.key.target; {
	case after.state == Down:
		log.Warningf("Target %q at %s is down after %s in a row: %s", t.Name, t.Addr, plural.Of(after.failures, "failure"), after.reason)
	case before.state == Down:
		log.Infof("Target %q at %s is up again after %s", t.Name, t.Addr, after.since.Sub(before.since).Round(time.Second))
	}
}

func (m *measurement) wakeWatches() {
	m.watchesMu.Lock()
	defer m.watchesMu.Unlock()
	for _, w := range m.watches {
		w.wake(m.key.target)
	}
}

func (m *measurement) addWatch(w *Watch) {
	m.watchesMu.Lock()
	defer m.watchesMu.Unlock()
	if !slices.Contains(m.watches, w) {
		m.watches = append(m.watches, w)
	}
}

func (m *measurement) removeWatch(w *Watch) {
	m.watchesMu.Lock()
	defer m.watchesMu.Unlock()
	m.watches = slices.DeleteFunc(m.watches, func(other *Watch) bool { return other == w })
}

func (m *measurement) status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.current()
	if h.held && h.reason == "" {
		h.reason = heldReason
	}
	return Status{
		State:      h.state,
		Since:      h.since,
		Reason:     h.reason,
		Held:       h.held,
		Failing:    h.failing(),
		Probed:     m.health.probed,
		Estimate:   m.estimator.Estimate(time.Now()),
		LastRTT:    m.last.RTT,
		MeasuredAt: m.estimator.Last(),
		Samples:    m.total,
		Lost:       m.lost,
	}
}

func (m *measurement) statistics() Statistics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.samples.statistics(time.Now())
}
