package latencyprobe

import (
	"container/heap"
	"sync"
	"time"
)

// alarms begins the rounds of all measurements of the process when they are planned. One
// timer counts at a time, so that it is one goroutine that wakes, also when the process
// did not run for a while and thousands of them are due.
var alarms alarmClock

// alarmClock is a heap of measurements by the time of their alarm.
type alarmClock struct {
	mu    sync.Mutex     // taken with that of a schedule held
	all   []*measurement // the first one first
	armed time.Time      // when the timer fires; zero: it does not run
}

// alarm is that of a measurement. The lock of the alarmClock guards it.
type alarm struct {
	at    time.Time
	index int // in the heap, from 1; 0: it is not set
}

// set sets the alarm of a measurement, or sets it to another time.
func (c *alarmClock) set(m *measurement, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.alarm.at = at
	if m.alarm.index == 0 {
		heap.Push(c, m)
	} else {
		heap.Fix(c, m.alarm.index-1)
	}
	c.arm()
}

func (c *alarmClock) cancel(m *measurement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.alarm.index > 0 {
		heap.Remove(c, m.alarm.index-1)
	}
}

// arm starts a timer for the first alarm, unless there is one. A later timer stays until
// it fires, which is within the longest interval, an hour: outside of a bubble of
// synctest, a timer of the bubble cannot be stopped.
func (c *alarmClock) arm() {
	if len(c.all) == 0 {
		return
	}
	if at := c.all[0].alarm.at; c.armed.IsZero() || at.Before(c.armed) {
		c.armed = at
		time.AfterFunc(time.Until(at), func() { c.fire(at) })
	}
}

// fire begins the rounds that are due. A timer that was started before an earlier one
// does nothing.
func (c *alarmClock) fire(armed time.Time) {
	c.mu.Lock()
	if armed != c.armed {
		c.mu.Unlock()
		return
	}
	var due []*measurement
	for now := time.Now(); len(c.all) > 0 && !c.all[0].alarm.at.After(now); {
		due = append(due, heap.Pop(c).(*measurement))
	}
	c.armed = time.Time{}
	c.arm()
	c.mu.Unlock()
	for _, m := range due {
		m.begin()
	}
}

// Len, Less, Swap, Push and Pop implement heap.Interface.

func (c *alarmClock) Len() int { return len(c.all) }

func (c *alarmClock) Less(i, j int) bool { return c.all[i].alarm.at.Before(c.all[j].alarm.at) }

func (c *alarmClock) Swap(i, j int) {
	c.all[i], c.all[j] = c.all[j], c.all[i]
	c.all[i].alarm.index, c.all[j].alarm.index = i+1, j+1
}

func (c *alarmClock) Push(m any) {
	c.all = append(c.all, m.(*measurement))
	m.(*measurement).alarm.index = len(c.all)
}

func (c *alarmClock) Pop() any {
	last := len(c.all) - 1
	m := c.all[last]
	c.all[last] = nil
	c.all = c.all[:last]
	m.alarm.index = 0
	return m
}
