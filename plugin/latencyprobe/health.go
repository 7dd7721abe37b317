package latencyprobe

import "time"

const (
	// fall is how many failures in a row make a target down, if it or something
	// before it has said so: refused, unreachable, a wrong answer.
	fall = 4
	// silence is how many it takes if nothing came back at all. At 5 % loss, 4
	// were wrong once in 9 days, 5 are once in half a year.
	silence = 5
	// rise is how many successes in a row make it up again.
	rise = 2
	// confirm is how long after a failure, or after the first success of a
	// target that is down, it is probed again. With a timeout of 1 s, 5 silent
	// probes take 7 s; perAddress keeps those apart that fail at once.
	confirm = 500 * time.Millisecond

	// A target that goes down again within flapTime of going down before is held
	// down for at least minHold, and twice as long each time.
	flapTime = 10 * time.Minute
	minHold  = 5 * time.Second
	maxHold  = 5 * time.Minute
)

// health is the state machine of one target. It is pure: time is passed in.
type health struct {
	state  State
	since  time.Time // of the state
	reason string    // of the last failure, "" after a success
	probed bool
	fails  int  // in a row
	told   bool // one of these was no silence
	oks    int  // in a row

	first    time.Time // when the failures in a row began
	downAt   time.Time // when it last went down
	hold     time.Duration
	isolated uint64 // the end of isolation after which fails began to count
}

// success takes a probe that succeeded.
func (h *health) success(now time.Time) {
	h.probed, h.reason, h.fails, h.told = true, "", 0, false
	h.oks++
	switch {
	case h.state == Up:
	case h.state == Unknown, h.oks >= rise && now.Sub(h.downAt) >= h.hold:
		h.state, h.since = Up, now
	}
}

// failure takes a probe that failed; silent if nothing came back. frozen is
// asked before the target goes down and may forbid that.
func (h *health) failure(now time.Time, reason string, silent bool, frozen func() bool) {
	h.probed, h.reason, h.oks = true, reason, 0
	if h.fails == 0 {
		h.first = now
	}
	h.fails++
	h.told = h.told || !silent
	if h.state == Down || h.fails < h.enough() || frozen() {
		return
	}
	switch {
	case h.downAt.IsZero() || now.Sub(h.downAt) > flapTime:
		h.hold = 0
	default:
		h.hold = min(max(2*h.hold, minHold), maxHold)
	}
	h.state, h.since, h.downAt = Down, now, now
}

// enough is how many failures in a row make the target down.
func (h *health) enough() int {
	if h.told {
		return fall
	}
	return silence
}

// failing reports whether the last probe failed and that is not confirmed.
func (h *health) failing() bool { return h.fails > 0 && h.state != Down }

// urgent reports whether the next probe is to confirm the last one.
func (h *health) urgent() bool {
	if h.state == Down {
		return h.oks > 0 && h.oks < rise
	}
	return h.fails > 0 && h.fails < h.enough()
}
