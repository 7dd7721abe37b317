package latencyprobe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
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

// Gates bound the probes in flight. Targets that were silent when last probed
// have their own: however many of them hang, the others are probed.
var inTime, silent gate

// gate bounds the probes that run. Those that wait need no goroutine.
type gate struct {
	mu      sync.Mutex
	running int
	waiting []*measurement // the next one first
}

// enter has a measurement probe as soon as the bound allows it.
func (g *gate) enter(m *measurement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running == maxInFlight {
		g.waiting = append(g.waiting, m)
		return
	}
	g.running++
	go g.run(m)
}

// run has a measurement probe, and then those that have come to wait meanwhile.
func (g *gate) run(m *measurement) {
	for {
		m.probeOnce()
		g.mu.Lock()
		if len(g.waiting) == 0 {
			g.running--
			g.mu.Unlock()
			return
		}
		m, g.waiting[0] = g.waiting[0], nil
		g.waiting = g.waiting[1:]
		g.mu.Unlock()
	}
}

// schedule says when a measurement probes. Until it does, a measurement has an alarm, or
// a place in a queue, and neither a goroutine nor a context: there are many targets. Its
// probes run in a goroutine of their own, so that a slow target delays no other.
type schedule struct {
	mu      sync.Mutex // taken with those of the measurement and of its endpoint held
	started bool
	planned time.Time          // of the next probe
	round   time.Time          // when the last round began
	busy    bool               // a round has begun and not ended
	latency bool               // the next probe of the round is the one of latency alone
	turn    *turn              // nil: the address may be probed
	running context.CancelFunc // ends the probe that runs; nil: none does
	due     bool               // another round is due when this one has ended
	changed bool               // the interval has changed meanwhile
	ended   bool
	release []func() // what the probes share
}

// start begins to probe.
func (m *measurement) start() {
	s := m.settings.Load() // others have the same methods
	var release []func()
	for _, p := range []prober.Prober{s.rtt, s.health} {
		if sharer, ok := p.(prober.Sharer); ok {
			release = append(release, sharer.Hold(m.key.target.Addr, m.key.source))
		}
	}
	m.schedule.mu.Lock()
	m.schedule.release = release
	m.schedule.mu.Unlock()
	m.rest(firstDelay(s.interval))
}

// end ends all probes, and with them the measurement. Whoever finds that no probe will
// begin any more releases what they share.
func (m *measurement) end() {
	s := &m.schedule
	s.mu.Lock()
	s.ended = true
	switch {
	case s.running != nil:
		s.running()
		s.mu.Unlock()
	case s.busy && (s.turn == nil || !addressLimiter.cancel(m.addresses(), m.key.target.Name, s.turn)):
		s.mu.Unlock() // its turn has come
	default:
		alarms.cancel(m)
		s.unlockAndRelease()
	}
}

func (m *measurement) hasEnded() bool {
	m.schedule.mu.Lock()
	defer m.schedule.mu.Unlock()
	return m.schedule.ended
}

// unlockAndRelease releases what the probes share: none will begin any more.
func (s *schedule) unlockAndRelease() {
	release := s.release
	s.release = nil
	s.mu.Unlock()
	for _, f := range release {
		f()
	}
}

// probeNow makes the next probe due now.
func (m *measurement) probeNow() { m.reschedule(&m.schedule.due, 0) }

// changeInterval begins the interval that the settings have now.
func (m *measurement) changeInterval() {
	m.reschedule(&m.schedule.changed, firstDelay(m.settings.Load().interval))
}

// reschedule replaces the pause until the next round or, during one, notes why it will.
func (m *measurement) reschedule(why *bool, pause time.Duration) {
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
	case !s.started || s.busy:
		*why = true
	default:
		s.planned = time.Now().Add(pause)
		alarms.set(m, s.planned)
	}
}

// begin begins a round of one probe, or of two by different methods, unless another one
// was planned or has begun since the alarm went off.
func (m *measurement) begin() {
	s := &m.schedule
	s.mu.Lock()
	now := time.Now()
	if s.ended || s.busy || now.Before(s.planned) {
		s.mu.Unlock()
		return
	}
	s.busy, s.latency, s.round = true, false, now
	s.mu.Unlock()
	m.await()
}

func (m *measurement) addresses() addressPair { return addressPair{m.key.source, m.key.target.Addr} }

// await has the next probe of the round begin when its address may be probed.
func (m *measurement) await() {
	last := m.lastProbe.Load()
	first := last != nil && last.replied && m.unconfirmed()
	s := &m.schedule
	s.mu.Lock()
	if s.ended {
		s.unlockAndRelease()
		return
	}
	s.turn = addressLimiter.enter(m.addresses(), m.key.target.Name, first, m.enter)
	now := s.turn == nil
	s.mu.Unlock()
	if now {
		m.enter()
	}
}

// enter has the next probe begin when there are not too many others.
func (m *measurement) enter() {
	m.schedule.mu.Lock()
	m.schedule.turn = nil
	m.schedule.mu.Unlock()
	if last := m.lastProbe.Load(); last != nil && !last.reached {
		silent.enter(m)
	} else {
		inTime.enter(m)
	}
}

// probeOnce does the next probe of the round.
func (m *measurement) probeOnce() {
	s := &m.schedule
	s.mu.Lock()
	if s.ended {
		s.unlockAndRelease()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.running = cancel
	planned, latency, round := s.planned, s.latency, s.round
	s.mu.Unlock()
	another := !latency && m.probeHealth(ctx, planned)
	if latency {
		m.probeLatency(ctx, planned)
	}
	if !another {
		m.rest(m.nextPause(time.Since(round)))
		return
	}
	s.mu.Lock()
	s.running, s.latency, s.planned = nil, true, time.Now().Add(addressPause)
	s.mu.Unlock()
	m.await()
}

// rest plans the next round after a pause, unless the measurement has ended.
func (m *measurement) rest(pause time.Duration) {
	s := &m.schedule
	s.mu.Lock()
	if s.ended {
		s.unlockAndRelease()
		return
	}
	defer s.mu.Unlock()
	switch {
	case s.due:
		pause = 0
	case s.changed:
		pause = firstDelay(m.settings.Load().interval)
	}
	s.started, s.running, s.busy, s.changed, s.due = true, nil, false, false, false
	s.planned = time.Now().Add(pause)
	alarms.set(m, s.planned)
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

// probeHealth does the first probe of a round, and reports whether one of latency is to
// follow.
func (m *measurement) probeHealth(ctx context.Context, planned time.Time) (another bool) {
	s := m.settings.Load()
	p := s.health
	if p == nil {
		p = s.rtt
	}
	o, ok := m.probe(ctx, p, s.timeout, planned)
	m.countLocal(o)
	switch {
	case !ok || o.local:
		return false
	case s.health == nil:
		m.apply(&o, &o)
		return false
	}
	m.apply(nil, &o)
	return o.err == nil // else confirm the failure before anything else
}

// probeLatency does the second probe of a round.
func (m *measurement) probeLatency(ctx context.Context, planned time.Time) {
	s := m.settings.Load()
	if o, ok := m.probe(ctx, s.rtt, s.timeout, planned); ok && !o.local {
		m.apply(&o, nil)
	}
}

// countLocal counts the probes of health in a row that this machine could not send.
func (m *measurement) countLocal(o outcome) {
	if o.local {
		m.localInRow++
	} else {
		m.localInRow = 0
	}
}

// probe probes once, now, and reports whether it did before the context ended.
func (m *measurement) probe(ctx context.Context, p prober.Prober, timeout time.Duration, planned time.Time) (outcome, bool) {
	startDelay.Observe(max(time.Since(planned), 0).Seconds())
	inFlight.Inc()
	limited, cancel := context.WithTimeout(ctx, timeout)
	readings := latencyReadings.Get().(*readings)
	defer latencyReadings.Put(readings)
	before, began := readSchedulerLatency(&readings.before), time.Now()
	result, err := p.Probe(limited, m.key.target.Addr, m.key.source)
	cancel()
	took := time.Since(began)
	inFlight.Dec()
	if ctx.Err() != nil {
		return outcome{}, false
	}
	o := outcome{Result: result, err: err, ended: time.Now()}
	o.impossible = err == nil && (result.RTT <= 0 || result.RTT > timeout)
	o.delayed = err == nil && !result.KernelTimed && delayedBetween(before, readSchedulerLatency(&readings.after), result.RTT)
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
		if reason == prober.LocalStalled { // it looks like silence of the target
			err = fmt.Errorf("this process did not run for a while: %w", err)
		}
		log.Errorf("Failed to probe %q at %s by %s because of this machine, keeping states and rankings: %s",
			m.key.target.Name, m.key.target.Addr, method, remotetext.Clean(err.Error()))
	}
}
