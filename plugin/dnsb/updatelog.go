package dnsb

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

const (
	// updateHour is for how long updates are remembered, and updateSlot how exact
	// that is.
	updateHour = time.Hour
	updateSlot = 5 * time.Minute
	slots      = int64(updateHour / updateSlot)

	// maxUpdateEvents is how many kinds of events are remembered. Each takes at most
	// some 700 bytes.
	maxUpdateEvents = 500
)

// updateLog counts the UPDATEs of the last hour, and remembers what was registered
// and refused, all of a kind as one event. The zero value is ready.
type updateLog struct {
	mu       sync.Mutex
	outcomes map[registry.Outcome]*hourCount
	events   map[updateKind]*updateEvent
}

// updateKind is what events are the same by. Senders cannot make any number of
// kinds: keys are those of *tsig*, the node is "" unless an 'accept' line has it, and
// both are "" if the signature is not right, for one of a few reasons.
type updateKind struct {
	node, key string
	outcome   registry.Outcome
	reason    string
}

type updateEvent struct {
	count hourCount
	last  time.Time
	text  string // of the last one
}

// hourCount counts events by slots of time.
type hourCount struct {
	slot  [slots]int64
	count [slots]uint64
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(updateSlot/time.Second) }

func (h *hourCount) add(now time.Time) {
	slot := slotOf(now)
	i := slot % slots
	if h.slot[i] != slot {
		h.slot[i], h.count[i] = slot, 0
	}
	h.count[i]++
}

// total returns how many events were in the last hour.
func (h *hourCount) total(now time.Time) (total uint64) {
	for i, slot := range h.slot {
		if slot > slotOf(now)-slots {
			total += h.count[i]
		}
	}
	return total
}

// count counts an UPDATE.
func (u *updateLog) count(outcome registry.Outcome) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.outcomes == nil {
		u.outcomes = make(map[registry.Outcome]*hourCount)
	}
	if u.outcomes[outcome] == nil {
		u.outcomes[outcome] = new(hourCount)
	}
	u.outcomes[outcome].add(time.Now())
}

// note remembers an event. The text may have parts that a sender has chosen.
func (u *updateLog) note(kind updateKind, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	e := u.events[kind]
	if e == nil {
		if u.events == nil {
			u.events = make(map[updateKind]*updateEvent)
		}
		if len(u.events) >= maxUpdateEvents {
			u.forget(now)
		}
		e = new(updateEvent)
		u.events[kind] = e
	}
	e.count.add(now)
	e.last, e.text = now, strings.Clone(clip(text))
}

// forget removes the events of which there was none in the last hour, or the oldest
// one. mu is locked.
func (u *updateLog) forget(now time.Time) {
	var oldest updateKind
	for kind, e := range u.events {
		switch before := u.events[oldest]; {
		case e.count.total(now) == 0:
			delete(u.events, kind)
		case before == nil || e.last.Before(before.last):
			oldest = kind
		}
	}
	if len(u.events) >= maxUpdateEvents {
		delete(u.events, oldest)
	}
}

// Updates are the UPDATEs of the last hour, as a Go value and as JSON.
type Updates struct {
	Outcomes []UpdateCount `json:"outcomes"` // that there were, as in the metric
	Events   []UpdateEvent `json:"events"`   // registrations that changed something, withdrawals, refusals: the latest first, at most 500
}

// UpdateCount is how often an UPDATE had a result.
type UpdateCount struct {
	Result string `json:"result"`
	Count  uint64 `json:"count"`
}

// UpdateEvent are all UPDATEs of one kind.
type UpdateEvent struct {
	Last   time.Time `json:"last"`
	Result string    `json:"result"`
	Node   string    `json:"node,omitempty"` // absent: of no node that may register
	Key    string    `json:"key,omitempty"`  // absent: the signature is not right
	Count  uint64    `json:"count"`          // in the last hour
	Text   string    `json:"text"`           // of the last one, at most 300 bytes
}

// lastHour returns the UPDATEs of the last hour.
func (u *updateLog) lastHour() Updates {
	u.mu.Lock()
	defer u.mu.Unlock()
	now, out := time.Now(), Updates{Outcomes: []UpdateCount{}, Events: []UpdateEvent{}}
	for _, outcome := range outcomes {
		if h := u.outcomes[outcome]; h != nil && h.total(now) > 0 {
			out.Outcomes = append(out.Outcomes, UpdateCount{string(outcome), h.total(now)})
		}
	}
	for kind, e := range u.events {
		if n := e.count.total(now); n > 0 {
			out.Events = append(out.Events, UpdateEvent{e.last, string(kind.outcome), kind.node, kind.key, n, e.text})
		}
	}
	slices.SortFunc(out.Events, func(a, b UpdateEvent) int {
		return cmp.Or(b.Last.Compare(a.Last), strings.Compare(a.Node, b.Node), strings.Compare(a.Key, b.Key), strings.Compare(a.Result, b.Result))
	})
	return out
}
