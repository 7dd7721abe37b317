//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// condition is what servers do while latencies are measured.
type condition struct {
	name   string
	length time.Duration
}

// latency is what was measured of a subject in a condition, by round.
type latency struct {
	rate           series // queries a second
	p50, p99, p999 series // ms
	sent, lost     int
	quiet          bool // it cannot do what the condition says
}

// measureLatency measures latencies at the rate of the flag.
func measureLatency(o *options, s *set) { measureLatencies(o, s, false) }

// measureAtHalf measures latencies at half of what a server answers at saturation, as it
// is found right before.
func measureAtHalf(o *options, s *set) { measureLatencies(o, s, true) }

func measureLatencies(o *options, s *set, half bool) {
	subjects, stop := start(o, &s.workload, s.peers)
	defer stop()
	for _, c := range s.conditions {
		all := make(map[*subject]*latency)
		for _, s := range subjects {
			all[s] = new(latency)
		}
		for round := range o.rounds {
			for _, s := range shuffled(subjects) {
				rate, m := o.rate, all[s]
				if half {
					rate = int(saturation(s, o.length) / 2)
				}
				m.measure(s, c, rate)
				progress("%s, round %d of %d: %-36s %d/s, p99 %.2f ms, %d lost so far", c.name, round+1, o.rounds, s.name, rate, m.p99[round], m.lost)
			}
		}
		reportLatencies(c, subjects, all)
		drawn := *s
		drawn.name, drawn.title = s.name+"-"+c.name, s.title+", "+c.name
		at := fmt.Sprintf("%d queries a second", o.rate)
		if half {
			at = "half of saturation"
		}
		o.drawBars(&drawn, "p99 in ms at "+at+": minimum, median, maximum", subjects, func(s *subject) series { return all[s].p99 })
	}
}

// saturation returns the replies a second to as many queries as a server can answer.
func saturation(s *subject, length time.Duration) float64 {
	l, err := newLoad(s)
	if err != nil {
		log.Fatal(err)
	}
	defer l.close()
	begin := time.Now()
	l.run(length)
	rate := float64(l.replies) / time.Since(begin).Seconds()
	if err := l.verdict(); err != nil {
		log.Fatalf("%s: %v", s.name, err)
	}
	time.Sleep(100 * time.Millisecond) // until nothing waits
	return rate
}

func (m *latency) measure(s *subject, c condition, rate int) {
	l, err := newLoad(s)
	if err != nil {
		log.Fatal(err)
	}
	defer l.close()
	var took []time.Duration
	var lost int
	m.quiet = !s.during(c, func() { took, lost = l.runAt(rate, c.length) }) && c.name != "quiet"
	if err := l.verdict(); err != nil {
		log.Fatalf("%s, %s: %v", s.name, c.name, err)
	}
	slices.Sort(took)
	quantile := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	m.rate = append(m.rate, float64(rate))
	m.p50, m.p99, m.p999 = append(m.p50, quantile(.5)), append(m.p99, quantile(.99)), append(m.p999, quantile(.999))
	m.sent, m.lost = m.sent+len(took)+lost, m.lost+lost
}

// during runs something while a server does what a condition says, until that is done.
// It reports whether the server can do such a thing.
func (s *subject) during(c condition, run func()) bool {
	disturb := s.disturbance(c.name)
	if disturb == nil {
		run()
		return false
	}
	end := disturb(s)
	run()
	if err := end(); err != nil {
		log.Fatalf("%s, %s: %v; its log: %.2000s", s.name, c.name, err, s.log())
	}
	return true
}

// runAt asks at a rate, whether replies come or not. It returns how long each reply took
// from when its query was due, and how many queries had none after a second. A query with
// the ID of one that still waits is not counted: a reply could be for either of them.
//
// What makes the load late counts as a slow reply. So it neither sleeps, from which timers
// wake it up to a millisecond late, nor collects garbage.
func (l *load) runAt(rate int, length time.Duration) (took []time.Duration, lost int) {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	interval := time.Second / time.Duration(rate)
	var due [1 << 16]time.Time // by message ID; zero: no query waits
	begin := time.Now()
	total, skipped := int(length/interval), 0
	took = make([]time.Duration, 0, total)
	for now, sent := begin, 0; len(took)+lost+skipped < total && now.Before(begin.Add(length+time.Second)); now = time.Now() {
		if n := min(int(now.Sub(begin)/interval)+1, total, sent+batch) - sent; n > 0 {
			id := l.send(n)
			for i := range n {
				at := id + uint16(i) // #nosec G115 -- wraps
				if !due[at].IsZero() {
					due[at] = time.Time{}
					lost++
					skipped++
					continue
				}
				due[at] = begin.Add(time.Duration(sent+i) * interval)
			}
			sent += n
		}
		n, err := l.packets.ReadBatch(l.in, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		now = time.Now()
		for i := range n {
			reply := l.in[i].Buffers[0][:l.in[i].N]
			if id := binary.BigEndian.Uint16(reply); !due[id].IsZero() {
				l.check(reply)
				took = append(took, now.Sub(due[id]))
				due[id] = time.Time{}
			}
		}
	}
	return took, total - skipped - len(took)
}

func reportLatencies(c condition, subjects []*subject, all map[*subject]*latency) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s, ms\tqueries/s\tp50\tp99\tp999\tlost\tof\n", c.name)
	for _, s := range subjects {
		m, note := all[s], ""
		if m.quiet {
			note = " (quiet)"
		}
		fmt.Fprintf(w, "%s%s\t%.0f\t%s\t%s\t%s\t%d\t%d\n", s.name, note, median(m.rate), m.p50.spread(), m.p99.spread(), m.p999.spread(), m.lost, m.sent)
	}
	fmt.Fprintln(w, "\nratio of p99 in one round")
	ratios(w, subjects, func(s *subject) series { return all[s].p99 })
	fmt.Fprintln(w)
	_ = w.Flush()
}
