package latencyprobe

import (
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
)

// maxHours is how many targets of the process have a history of the last hour, of up to
// 1,248 bytes each: those that were measured first.
const maxHours = 10000

// hours is how many measurements have a history.
var hours atomic.Int64

// addToHour adds a sample to the history. Questions to name servers have none: they are
// many, and nothing is ranked by them. mu is locked.
func (m *measurement) addToHour(o outcome) {
	if m.hour == nil {
		if m.key.target.Check != (Check{}) || m.hasEnded() {
			return
		}
		if hours.Add(1) > maxHours {
			hours.Add(-1)
			return
		}
		m.hour = history.NewHour()
	}
	if o.err != nil {
		m.hour.AddLoss(o.ended)
	} else {
		m.hour.Add(o.ended, o.RTT)
	}
}

// dropHour drops the history of a measurement that has ended.
func (m *measurement) dropHour() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hour != nil {
		m.hour = nil
		hours.Add(-1)
	}
}

// LastHour returns the latency of a target in the last hour, in slots of 30 seconds.
// It has no slots if nothing was measured, or if too many targets have a history.
func (w *Watch) LastHour(t Target) history.Past {
	m := w.measurement(t)
	if m == nil {
		return history.Past{Slots: []history.Slot{}}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hour == nil {
		return history.Past{Slots: []history.Slot{}}
	}
	return m.hour.Past(time.Now())
}
