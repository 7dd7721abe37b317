package latencyprobe

import "time"

// firstRound is how long the first probe of each target may take.
const firstRound = 10 * time.Second

// Ready implements the ready.Readiness interface: every target was probed once,
// or had the time for it.
func (l *LatencyProbe) Ready() bool {
	started := l.started.Load()
	if started == nil {
		return false
	}
	if time.Since(*started) > firstRound {
		return true
	}
	for _, w := range l.open() {
		if !w.probed() {
			return false
		}
	}
	return true
}
