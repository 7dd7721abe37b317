package latencyprobe

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

const (
	// maxFirstDelay bounds the random delay of the first probe: a start is quick
	// whatever the interval.
	maxFirstDelay = 5 * time.Second
	// intervalVariation is by how many percent an interval varies, so that the
	// probes of many machines do not fall into step.
	intervalVariation = 10
	// maxPauseShift limits the pause between attempts to confirm: 8.5 minutes.
	maxPauseShift = 10
	// maxInFlight bounds the probes of the process that run at the same time.
	// At a timeout of 1 s it is enough for 10,000 targets of which a tenth
	// hangs.
	maxInFlight = 1024
	// maxStall is how long after its timeout a silent probe may end. Later, this
	// process did not run meanwhile, and may not have sent or read anything.
	maxStall = 250 * time.Millisecond
)

// Slots bound the probes in flight. Targets that were silent when last probed
// have their own: however many of them hang, the others are probed.
var (
	slots       = make(chan struct{}, maxInFlight)
	silentSlots = make(chan struct{}, maxInFlight)
)

// run probes until m ends. Each measurement has its goroutine, so that a slow
// target delays no other.
func (m *measurement) run() {
	s := m.settings.Load() // others have the same methods
	for _, p := range []prober.Prober{s.rtt, s.health} {
		if sharer, ok := p.(prober.Sharer); ok {
			defer sharer.Hold(m.key.target.Addr, m.key.source)()
		}
	}
	pause := firstDelay(s.interval)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	ended := make(chan bool)
	for {
		planned := time.Now().Add(pause)
		select {
		case <-m.ctx.Done():
			return
		case <-timer.C:
			start := time.Now()
			// A probe needs a larger stack than waiting does. A separate
			// goroutine has it for a moment only.
			go func() { ended <- m.round(planned) }()
			if !<-ended {
				return
			}
			pause = m.nextPause(time.Since(start))
		case <-m.due:
			pause = 0
		case <-m.rescheduled:
			pause = firstDelay(m.settings.Load().interval)
		}
		timer.Reset(pause)
	}
}

func firstDelay(interval time.Duration) time.Duration {
	return rand.N(min(interval, maxFirstDelay)) // #nosec G404 -- jitter
}

// nextPause returns the pause after a round that took so long. While this machine
// fails to probe, the pauses before a confirmation double up to the interval: more
// attempts would keep it busy with what it lacks.
func (m *measurement) nextPause(took time.Duration) time.Duration {
	interval := m.settings.Load().interval
	if pause := confirmPause << min(m.localInRow, maxPauseShift); m.unconfirmed() && pause < interval {
		return pause
	}
	variation := interval * intervalVariation / 100
	return max(interval-variation+rand.N(2*variation+1)-took, 0) // #nosec G404 -- jitter
}

// unconfirmed reports whether the next probe is to confirm the last one.
func (m *measurement) unconfirmed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.current()
	return h.unconfirmed()
}

// round probes once, or by two methods, and reports whether it could before m
// ended.
func (m *measurement) round(planned time.Time) bool {
	s := m.settings.Load()
	if s.health == nil {
		o, ok := m.probe(s.rtt, s.timeout, planned)
		m.countLocal(o)
		if ok && !o.local {
			m.apply(&o, &o)
		}
		return ok
	}
	health, ok := m.probe(s.health, s.timeout, planned)
	m.countLocal(health)
	if !ok || health.local {
		return ok
	}
	m.apply(nil, &health)
	if health.err != nil {
		return true // confirm the failure before anything else
	}
	latency, ok := m.probe(s.rtt, s.timeout, time.Now().Add(addressPause))
	if ok && !latency.local {
		m.apply(&latency, nil)
	}
	return ok
}

// countLocal counts the probes of health in a row that this machine could not send.
func (m *measurement) countLocal(o outcome) {
	if o.local {
		m.localInRow++
	} else {
		m.localInRow = 0
	}
}

// probe probes once, as soon after the planned time as the limits allow, and
// reports whether it could before m ended.
func (m *measurement) probe(p prober.Prober, timeout time.Duration, planned time.Time) (outcome, bool) {
	last := m.lastProbe.Load()
	first := last != nil && last.replied && m.unconfirmed()
	if !addressLimiter.wait(m.ctx, addressPair{m.key.source, m.key.target.Addr}, m.key.target.Name, first) {
		return outcome{}, false
	}
	free := slots
	if last != nil && !last.reached {
		free = silentSlots
	}
	select {
	case free <- struct{}{}:
	case <-m.ctx.Done():
		return outcome{}, false
	}
	startDelay.Observe(max(time.Since(planned), 0).Seconds())
	inFlight.Inc()
	ctx, cancel := context.WithTimeout(m.ctx, timeout)
	before, began := readSchedulerLatency(), time.Now()
	result, err := p.Probe(ctx, m.key.target.Addr, m.key.source)
	cancel()
	took := time.Since(began)
	inFlight.Dec()
	<-free
	if m.ctx.Err() != nil {
		return outcome{}, false
	}
	o := outcome{Result: result, err: err, ended: time.Now()}
	o.impossible = err == nil && (result.RTT <= 0 || result.RTT > timeout)
	o.delayed = err == nil && !result.KernelTimed && delayedBetween(before, readSchedulerLatency(), result.RTT)
	reason := prober.LocalReasonOf(err)
	if reason == "" && took > timeout+maxStall && !prober.Reached(err) {
		reason = prober.LocalStalled
	}
	if reason != "" {
		o.local = true
		m.reportLocal(p.Method(), reason, err)
		return o, true
	}
	o.count(p.Method())
	return o, true
}

// localFailures decides which failures of this machine are logged.
var localFailures reminder.Keyed

// reportLocal logs and counts a probe that this machine could not send.
func (m *measurement) reportLocal(method string, reason prober.LocalReason, err error) {
	localErrors.WithLabelValues(method, string(reason)).Inc()
	if localFailures.Failed(method+" "+m.key.source.String(), string(reason)) {
		log.Errorf("Failed to probe %q at %s by %s because of this machine, keeping states and rankings: %s",
			m.key.target.Name, m.key.target.Addr, method, remotetext.Clean(err.Error()))
	}
}
