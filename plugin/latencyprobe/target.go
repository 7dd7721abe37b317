package latencyprobe

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

const (
	// firstPhase bounds the random delay of the first probe, so that a start is
	// quick whatever the interval.
	firstPhase = 5 * time.Second
	// spread is by how much an interval varies, in percent, so that probes of
	// many places do not fall into step.
	spread = 10
	// maxInFlight bounds the probes of the process that run at once. At a
	// timeout of 1 s it is enough for 10,000 targets of which a tenth hangs.
	maxInFlight = 1024
)

// target is one address that is measured in one way, from one source. Its
// goroutine alone takes samples.
type target struct {
	key    targetKey
	conf   atomic.Pointer[probe] // the newest settings
	sooner chan struct{}         // capacity 1: the interval is another one
	cancel context.CancelFunc

	last    atomic.Pointer[lastProbe]
	states  atomic.Pointer[[]string] // the state files that it is kept in
	records atomic.Pointer[[]string] // the traces that its samples go to

	mu        sync.Mutex
	health    health
	estimator ranking.Estimator
	samples   samples
	result    result // of the last success
	total     uint64
	lost      uint64

	watchMu  sync.Mutex
	watchers map[*Watch]struct{}
}

// targetKey is what makes measurements the same ones.
type targetKey struct {
	target Target
	source netip.Addr
	probe  string // probe.id
}

// lastProbe is how the last probe ended.
type lastProbe struct {
	at      time.Time
	reached bool // it, or something before it, answered, be it a refusal
	down    bool // when it began
}

func (t *target) lastProbe() (at time.Time, reached, down bool) {
	if l := t.last.Load(); l != nil {
		return l.at, l.reached, l.down
	}
	return time.Time{}, false, false
}

// slots bound the probes in flight. Those that confirm a failure have their own:
// however many hang, the others go on.
var slots, doubtful = make(chan struct{}, maxInFlight), make(chan struct{}, maxInFlight)

// run probes until ctx ends. Each target waits in a goroutine of its own, so
// that a slow one delays no other.
func (t *target) run(ctx context.Context) {
	wait := rand.N(min(t.conf.Load().interval, firstPhase)) // #nosec G404 -- jitter
	timer := time.NewTimer(wait)
	defer timer.Stop()
	ended := make(chan bool)
	for {
		planned := time.Now().Add(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.sooner:
			wait = rand.N(min(t.conf.Load().interval, firstPhase)) // #nosec G404 -- jitter
			timer.Reset(wait)
			continue
		}
		began := time.Now()
		// A probe needs a larger stack than waiting does. In a goroutine of its
		// own, it has that for a moment only.
		go func() { ended <- t.probe(ctx, planned) }()
		if !<-ended {
			return
		}
		wait = t.next(time.Since(began))
		timer.Reset(wait)
	}
}

// measureBy makes these the settings.
func (t *target) measureBy(p *probe) {
	if old := t.conf.Swap(p); old == nil || old.interval == p.interval {
		return
	}
	select {
	case t.sooner <- struct{}{}:
	default:
	}
}

// next returns the pause until the next probe, after one that took so long.
func (t *target) next(took time.Duration) time.Duration {
	interval := t.conf.Load().interval
	t.mu.Lock()
	urgent := t.health.urgent()
	t.mu.Unlock()
	if urgent {
		return min(confirm, interval)
	}
	vary := interval * spread / 100
	return max(interval-vary+rand.N(2*vary+1)-took, 0) // #nosec G404 -- jitter
}

// probe takes the samples of one round and reports whether it could.
func (t *target) probe(ctx context.Context, planned time.Time) bool {
	p := t.conf.Load()
	if p.health == nil {
		got, err, ok := t.measure(ctx, p, p.rtt, planned)
		if ok {
			t.note(func() { t.sample(got, err); t.judge(err) })
		}
		return ok
	}
	_, err, ok := t.measure(ctx, p, p.health, planned)
	if !ok {
		return false
	}
	t.note(func() { t.judge(err) })
	if err != nil {
		return true // first is to be known whether it is down
	}
	got, err, ok := t.measure(ctx, p, p.rtt, time.Now().Add(perAddress))
	if ok {
		t.note(func() { t.sample(got, err) })
	}
	return ok
}

// measure measures once, as soon after the time planned as it is allowed to.
func (t *target) measure(ctx context.Context, p *probe, m method, planned time.Time) (got result, err error, ok bool) { //revive:disable-line:error-return
	if !limits.wait(ctx, t.key) {
		return result{}, nil, false
	}
	slot := slots
	if at, reached, _ := t.lastProbe(); !reached && !at.IsZero() {
		slot = doubtful
	}
	select {
	case slot <- struct{}{}:
	case <-ctx.Done():
		return result{}, nil, false
	}
	lateness.Observe(max(time.Since(planned), 0).Seconds())
	inFlight.Inc()
	probeCtx, cancel := context.WithTimeout(ctx, p.timeout)
	before := observe()
	got, err = m.measure(probeCtx, t.key.target.Addr, t.key.source)
	cancel()
	inFlight.Dec()
	<-slot
	if ctx.Err() != nil {
		return result{}, nil, false
	}
	got.late = err == nil && !got.exact && before.late(got.rtt)
	count(m, got, err)
	return got, err, true
}

// sample takes a measurement of latency. Losses never enter the estimate.
func (t *target) sample(got result, err error) {
	now := time.Now()
	t.total++
	if err != nil {
		t.lost++
		t.samples.add(now, 0, false)
		t.record(now, 0, false)
		return
	}
	if got.late && t.result.rtt > 0 {
		return // it says how busy we are, not how far away the target is
	}
	t.samples.add(now, got.rtt, true)
	t.record(now, got.rtt, true)
	t.result = got
	t.estimator.Add(now, got.rtt)
}

// judge takes a measurement of health.
func (t *target) judge(err error) {
	now := time.Now()
	why := reason(err)
	reached := why != "timeout" && why != "unreachable"
	t.last.Store(&lastProbe{at: now, reached: reached, down: t.health.state == Down})
	if reached {
		isolation.answered()
	}
	if err == nil {
		t.health.success(now)
		return
	}
	if ends := isolation.ends.Load(); t.health.isolated != ends {
		// What failed while we were isolated says nothing.
		t.health.isolated, t.health.fails, t.health.told = ends, 0, false
	}
	t.health.failure(now, err.Error(), why == "timeout", func() bool { return !reached && isolation.suspect(t.health.first) })
}

// note runs a change of what is known and tells those who watch if it shows.
func (t *target) note(change func()) {
	t.mu.Lock()
	before, first := t.health, t.total == 0
	change()
	after := t.health
	t.mu.Unlock()

	if before.state != after.state {
		t.log(before, after)
	}
	if first || before.state != after.state || before.failing() != after.failing() || before.probed != after.probed {
		t.tell()
	}
}

func (t *target) log(before, after health) {
	who := t.key.target.Name + " " + t.key.target.Addr.String()
	switch {
	case after.state == Down:
		log.Warningf("%s is down, %d failures in a row: %s", who, after.fails, after.reason)
	case before.state == Down:
		log.Infof("%s is up again after %s", who, after.since.Sub(before.since).Round(time.Second))
	}
}

func (t *target) tell() {
	t.watchMu.Lock()
	defer t.watchMu.Unlock()
	for w := range t.watchers {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (t *target) watch(w *Watch, yes bool) {
	t.watchMu.Lock()
	defer t.watchMu.Unlock()
	if yes {
		t.watchers[w] = struct{}{}
	} else {
		delete(t.watchers, w)
	}
}

func (t *target) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Status{
		State:    t.health.state,
		Since:    t.health.since,
		Reason:   t.health.reason,
		Failing:  t.health.failing(),
		Probed:   t.health.probed,
		Estimate: t.estimator.Estimate(time.Now()),
		Last:     t.result.rtt,
		LastAt:   t.estimator.Last(),
		Samples:  t.total,
		Lost:     t.lost,
	}
}

func (t *target) statistics() Statistics {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.samples.statistics(time.Now())
}
