package latencyprobe

import "time"

const (
	// downAfter is how many failures in a row make a target down if one of them
	// came with a reply: refused, unreachable, a wrong answer.
	downAfter = 4
	// downAfterSilent is how many it takes if nothing came back. At 5 % loss, 4
	// would be wrong once in 9 days, 5 are once in half a year.
	downAfterSilent = 5
	// upAfter is how many successes in a row make it up again.
	upAfter = 2
	// confirmPause is the pause between a failure, or the first success of a
	// target that is down, and the probe that confirms it. With a timeout of 1 s
	// 5 silent probes take 7 s. Failures without delay are addressPause apart.
	confirmPause = 500 * time.Millisecond

	// A target that goes down again within flapWindow of going down before is
	// held down for at least minHoldDown, and twice as long each time.
	flapWindow  = 10 * time.Minute
	minHoldDown = 5 * time.Second
	maxHoldDown = 5 * time.Minute

	// heldReason is why a target is down that works again.
	heldReason = "it works again, but is held down since it went down several times"
)

// health is the state machine of one target. It is pure: time is passed in.
type health struct {
	state  State
	since  time.Time // of the state
	reason string    // of the last failure, as remotetext.Clean returns it; "" after a success
	probed bool

	successes    int       // in a row
	failures     int       // in a row
	replied      bool      // one of the failures in a row came with a reply
	firstFailure time.Time // of those in a row

	wentDown time.Time // for the last time
	holdDown time.Duration
	held     bool // down because of the hold-down alone

	isolations uint64 // isolation.ended when the failures in a row began
}

// success adds a probe that succeeded.
func (h *health) success(now time.Time) {
	h.probed, h.reason, h.failures, h.replied = true, "", 0, false
	h.successes++
	if h.state == Down {
		h.held = h.held || h.successes >= upAfter
	}
	if h.state == Unknown || h.held && h.successes >= upAfter && now.Sub(h.wentDown) >= h.holdDown {
		h.state, h.since, h.held = Up, now, false
	}
}

// failure adds a probe that failed; silent if nothing came back. frozen is
// asked before the target goes down, and prevents that. What is held down ceases
// to be by as many failures as make a target down.
func (h *health) failure(now time.Time, reason string, silent bool, frozen func() bool) {
	h.probed, h.reason, h.successes = true, reason, 0
	if h.failures == 0 {
		h.firstFailure = now
	}
	h.failures++
	h.replied = h.replied || !silent
	if h.state == Down && !h.held || h.failures < h.failuresToDown() || frozen() {
		return
	}
	if h.held {
		h.held = false
		return
	}
	if h.wentDown.IsZero() || now.Sub(h.wentDown) > flapWindow {
		h.holdDown = 0
	} else {
		h.holdDown = min(max(2*h.holdDown, minHoldDown), maxHoldDown)
	}
	h.state, h.since, h.wentDown = Down, now, now
}

// forgetFailures drops the failures in a row if an isolation has ended since
// they began: they say nothing about the target.
func (h *health) forgetFailures(isolations uint64) {
	if h.isolations != isolations {
		h.isolations, h.failures, h.replied = isolations, 0, false
	}
}

func (h *health) failuresToDown() int {
	if h.replied {
		return downAfter
	}
	return downAfterSilent
}

// failing reports whether the last probe failed and the target is not down, or
// is held down.
func (h *health) failing() bool { return h.failures > 0 && (h.state != Down || h.held) }

// unconfirmed reports whether the next probe is to confirm the last one.
func (h *health) unconfirmed() bool {
	if h.state == Down && !h.held {
		return h.successes > 0 && h.successes < upAfter
	}
	return h.failures > 0 && h.failures < h.failuresToDown()
}
