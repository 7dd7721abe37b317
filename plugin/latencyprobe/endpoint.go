package latencyprobe

import (
	"net/netip"
	"sync"
	"time"
)

// endpoint is an address and port of a server or node that is asked several
// questions (Target.Check), each by a measurement. A reply says something of its
// question only. Without a reply, it is the address that fails, and that counts
// for all questions: the more there are, the less often each is asked.
//
// Its methods are also for nil: the target has no Check.
type endpoint struct {
	key endpointKey

	mu        sync.Mutex            // taken with that of a measurement held
	asking    map[*measurement]bool // true: down by itself
	unreplied map[*measurement]bool // those without a reply in this row of failures
	health    health                // a reply of whatever kind is a success
	recovered uint64                // how often
}

type endpointKey struct {
	name         string
	addr, source netip.Addr
	port         uint16
}

// endpoints are those of the measurements of the process.
var (
	endpointsMu sync.Mutex
	endpoints   = make(map[endpointKey]*endpoint)
)

// joinEndpoint returns the endpoint that m asks, nil if its target has no Check.
func joinEndpoint(m *measurement) *endpoint {
	t := m.key.target
	if t.Check == (Check{}) {
		return nil
	}
	endpointsMu.Lock()
	defer endpointsMu.Unlock()
	key := endpointKey{t.Name, t.Addr, m.key.source, t.Check.Port}
	e, ok := endpoints[key]
	if !ok {
		e = &endpoint{key: key, asking: make(map[*measurement]bool), unreplied: make(map[*measurement]bool)}
		endpoints[key] = e
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking[m] = false
	return e
}

// leave ends that m asks the endpoint.
func (e *endpoint) leave(m *measurement) {
	if e == nil {
		return
	}
	endpointsMu.Lock()
	defer endpointsMu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.asking, m)
	delete(e.unreplied, m)
	if len(e.asking) == 0 {
		delete(endpoints, e.key)
	}
}

// success adds a reply, also one that is a failure of its question.
func (e *endpoint) success(now time.Time) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.health
	e.health.success(now)
	if before.state == Down && e.health.state == Up {
		e.recovered++
	}
	if before.state != e.health.state || before.held != e.health.held {
		e.wakeWatches()
	}
}

// failure adds a probe of m without a reply, with the arguments of health.failure,
// and reports whether the endpoint is down: then the failure is none of m itself.
//
// It goes down when as many questions as it takes failures, or all if these are
// fewer, had no reply in a row. A question that is down by itself does not count,
// and after the first failure all others are asked.
func (e *endpoint) failure(m *measurement, now time.Time, reason string, silent bool, isolated func(first time.Time) bool) bool {
	if e == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if down, asking := e.asking[m]; e.health.state != Down && (down || !asking) {
		return false
	}
	before := e.health
	e.health.forgetFailures(isolation.ended.Load())
	if e.health.failures == 0 {
		clear(e.unreplied)
		for other := range e.asking {
			if other != m {
				other.probeNow()
			}
		}
	}
	e.unreplied[m] = true
	e.health.failure(now, reason, silent, func() bool {
		return len(e.unreplied) < min(e.health.failuresToDown(), e.up()) || isolated(e.health.firstFailure)
	})
	if before.state != e.health.state || before.held != e.health.held {
		e.wakeWatches()
	}
	return e.health.state == Down
}

// up returns how many questions are not down by themselves.
func (e *endpoint) up() int {
	n := 0
	for _, down := range e.asking {
		if !down {
			n++
		}
	}
	return n
}

func (e *endpoint) wakeWatches() {
	for m := range e.asking {
		m.wakeWatches()
	}
}

// note notes whether m is down by itself.
func (e *endpoint) note(m *measurement, down bool) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, asking := e.asking[m]; asking {
		e.asking[m] = down
	}
}

// recoveries returns how often the endpoint has come up again. Failures from
// before do not count.
func (e *endpoint) recoveries() uint64 {
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.recovered
}

// of returns the health of a question, given what it is by itself, and whether it
// is that of the endpoint.
func (e *endpoint) of(h health) (of health, shared bool) {
	if e == nil {
		return h, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.health.state == Down:
		of = e.health
		of.held = of.held && (h.state != Down || h.held)
		return of, true
	case h.state == Up && h.since.Before(e.health.since):
		h.since = e.health.since
	}
	return h, false
}

// restore makes the endpoint have a health that was saved, unless it has one.
func (e *endpoint) restore(h health) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.health.probed {
		e.health = h
	}
}
