//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// condition is what servers do while latencies are measured.
type condition struct {
	name   string
	length time.Duration
}

// latency is what was measured of a subject in a condition, by round.
type latency struct {
	p50, p99, p999 series // ms
	sent, lost     int
	quiet          bool // it cannot do what the condition says
}

func measureLatency(o *options, s *set) {
	subjects, stop := start(o, &s.workload, s.peers)
	defer stop()
	for _, c := range s.conditions {
		all := make(map[*subject]*latency)
		for _, s := range subjects {
			all[s] = new(latency)
		}
		for round := range o.rounds {
			for _, s := range shuffled(subjects) {
				all[s].measure(s, c, o.rate)
				progress("%s, round %d of %d: %-36s p99 %.2f ms, %d lost so far", c.name, round+1, o.rounds, s.name, all[s].p99[round], all[s].lost)
			}
		}
		reportLatencies(c, o.rate, subjects, all)
		drawn := *s
		drawn.name, drawn.title = s.name+"-"+c.name, s.title+", "+c.name
		o.drawBars(&drawn, fmt.Sprintf("p99 in ms at %d queries a second: minimum, median, maximum", o.rate), subjects, func(s *subject) series { return all[s].p99 })
	}
}

func (m *latency) measure(s *subject, c condition, rate int) {
	l, err := newLoad(s)
	if err != nil {
		log.Fatal(err)
	}
	defer l.close()
	var end func() error
	if disturb := s.disturbance(c.name); disturb != nil {
		end = disturb(s)
	}
	m.quiet = end == nil && c.name != "quiet"
	took, lost := l.runAt(rate, c.length)
	if end != nil {
		if err := end(); err != nil {
			log.Fatalf("%s, %s: %v; its log: %.2000s", s.name, c.name, err, s.log())
		}
	}
	if err := l.verdict(); err != nil {
		log.Fatalf("%s, %s: %v", s.name, c.name, err)
	}
	slices.Sort(took)
	quantile := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	m.p50, m.p99, m.p999 = append(m.p50, quantile(.5)), append(m.p99, quantile(.99)), append(m.p999, quantile(.999))
	m.sent, m.lost = m.sent+len(took)+lost, m.lost+lost
}

// runAt asks at a rate, whether replies come or not. It returns how long each reply took
// from when its query was due, and how many queries had none after a second.
func (l *load) runAt(rate int, length time.Duration) (took []time.Duration, lost int) {
	interval := time.Second / time.Duration(rate)
	var due [1 << 16]time.Time // by message ID; zero: no query waits
	var reused [1 << 16]bool   // while a query waited: nobody knows which one a reply is for
	begin := time.Now()
	total := int(length / interval)
	for now, sent := begin, 0; len(took) < total && now.Before(begin.Add(length+time.Second)); now = time.Now() {
		if n := min(int(now.Sub(begin)/interval)+1, total, sent+batch) - sent; n > 0 {
			id := l.send(n)
			for i := range n {
				at := id + uint16(i) // #nosec G115 -- wraps
				reused[at] = reused[at] || !due[at].IsZero()
				due[at] = begin.Add(time.Duration(sent+i) * interval)
			}
			sent += n
		}
		_ = l.conn.SetReadDeadline(time.Now().Add(interval))
		n, err := l.packets.ReadBatch(l.in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		now = time.Now()
		for i := range n {
			reply := l.in[i].Buffers[0][:l.in[i].N]
			if id := binary.BigEndian.Uint16(reply); !reused[id] && !due[id].IsZero() {
				l.check(reply)
				took = append(took, now.Sub(due[id]))
				due[id] = time.Time{}
			}
		}
	}
	return took, total - len(took)
}

func reportLatencies(c condition, rate int, subjects []*subject, all map[*subject]*latency) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s: %d queries a second, ms\tp50\tp99\tp999\tlost\tof\n", c.name, rate)
	for _, s := range subjects {
		m, note := all[s], ""
		if m.quiet {
			note = " (quiet)"
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%d\t%d\n", s.name, note, m.p50.spread(), m.p99.spread(), m.p999.spread(), m.lost, m.sent)
	}
	fmt.Fprintln(w, "\nratio of p99 in one round")
	ratios(w, subjects, func(s *subject) series { return all[s].p99 })
	fmt.Fprintln(w)
	_ = w.Flush()
}
