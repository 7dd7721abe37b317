package widearea

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// sampled is the time between two looks at the processes.
	sampled = 500 * time.Millisecond
	// starvedFor is how long a thread of a process may wait for a core, within
	// a second, before the oracle does not judge that process any more.
	starvedFor = 600 * time.Millisecond
	// late is the same for the clock of the test itself.
	late = 500 * time.Millisecond
)

// watchStarvation notes in the world which processes got no core, until ctx
// ends: things by the process to look at.
func (w *world) watchStarvation(ctx context.Context, note func(thing string, waited time.Duration), things map[string]func() (pid int)) {
	waits := make(map[string]map[string]time.Duration) // by thing and thread
	previous := make(map[string]time.Duration)         // longest of the sample before
	tick := time.NewTicker(sampled)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if behind := now.Sub(last) - sampled; behind > late {
			w.starve(harness, last, now)
			note(harness, behind)
		}
		for thing, pid := range things {
			current := threadWaits(pid())
			longest := time.Duration(0)
			for thread, waited := range current {
				if before, ok := waits[thing][thread]; ok {
					longest = max(longest, waited-before)
				}
			}
			if waited := longest + previous[thing]; waited > starvedFor {
				w.starve(thing, last.Add(-sampled), now)
				note(thing, waited)
			}
			waits[thing], previous[thing] = current, longest
		}
		last = now
	}
}

func (w *world) starve(thing string, from, to time.Time) { w.begin(thing, starved, from)(to) }

// threadWaits returns for how long each thread of a process has waited for a
// core; none if the process has ended.
func threadWaits(pid int) map[string]time.Duration {
	waits := make(map[string]time.Duration)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return waits
	}
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, thread.Name()))
		if err != nil {
			continue
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			waits[thread.Name()] = time.Duration(waited)
		}
	}
	return waits
}
