package latencyprobe

import "time"

// maxFirstRound is how long the plugin waits for the first probe of each
// target.
const maxFirstRound = 10 * time.Second

// Ready implements the ready.Readiness interface: every target was probed once,
// or had the time for it.
func (l *LatencyProbe) Ready() bool {
	started := l.started.Load()
	if started == nil {
		return false
	}
	if time.Since(*started) > maxFirstRound {
		return true
	}
	for _, w := range l.openWatches() {
		if !w.probed() {
			return false
		}
	}
	return true
}
