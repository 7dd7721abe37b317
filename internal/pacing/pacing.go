// Package pacing makes long computations give way to queries.
//
// The Go scheduler looks for packets when nothing else is to run, and else only every
// 10 ms. So on one processor a computation of half a second makes queries wait for 10 to
// 20 ms again and again, unless it sleeps: yielding is not enough.
package pacing

import (
	"runtime"
	"time"
)

const (
	// run is for how long a computation has the processor, and so how long a query
	// may wait for it.
	run = 250 * time.Microsecond

	// look is after how many steps it is looked at the clock, which takes longer than
	// many a step.
	look = 64

	// pause ends as soon as nothing else is to run. Where nothing is, the system
	// makes it last a millisecond.
	pause = 100 * time.Microsecond
)

// Pacer interrupts a computation. The zero value is ready; a nil Pacer never interrupts,
// for what nobody waits for, such as a start. It is for one goroutine.
type Pacer struct {
	steps uint8
	began time.Time // to run, since the last pause
}

// Step is to be called at each small step of the computation, such as a line of a file.
func (p *Pacer) Step() {
	if p != nil {
		p.step()
	}
}

func (p *Pacer) step() {
	if p.steps++; p.steps%look == 0 {
		p.pauseIfDue()
	}
}

func (p *Pacer) pauseIfDue() {
	if time.Since(p.began) >= run {
		time.Sleep(pause)
		runtime.Gosched() // what wakes up comes first, before queries that were read
		p.began = time.Now()
	}
}
