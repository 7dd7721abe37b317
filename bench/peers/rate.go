//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"
)

// latencies are what was measured of a subject at a fixed rate, by round.
type latencies struct {
	p50, p99, p999 []float64 // ms
	sent, lost     int
}

// measureLatency asks all subjects at a rate, in turns.
func measureLatency(subjects []*subject, clients []uint32, rounds int, length time.Duration, rate int) map[*subject]*latencies {
	all := make(map[*subject]*latencies)
	for round := range rounds {
		for _, s := range shuffled(subjects) {
			l, err := newLoad(s, clients)
			if err != nil {
				log.Fatal(err)
			}
			took, lost := l.runAt(rate, length)
			l.close()
			if l.wrong > 0 || len(took) == 0 {
				log.Fatalf("%s: %d replies, %d of them wrong, such as %x", s.name, l.replies, l.wrong, l.example)
			}
			if all[s] == nil {
				all[s] = new(latencies)
			}
			slices.Sort(took)
			quantile := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
			m := all[s]
			m.p50, m.p99, m.p999 = append(m.p50, quantile(.5)), append(m.p99, quantile(.99)), append(m.p999, quantile(.999))
			m.sent, m.lost = m.sent+len(took)+lost, m.lost+lost
			fmt.Fprintf(os.Stderr, "round %d of %d: %-28s p99 %.2f ms, %d lost\n", round+1, rounds, s.name, m.p99[round], lost)
		}
	}
	return all
}

// runAt asks at a rate, whether replies come or not. It returns how long each reply took
// from when its query was due, and how many queries had none after a second.
func (l *load) runAt(rate int, length time.Duration) (took []time.Duration, lost int) {
	interval := time.Second / time.Duration(rate)
	var due [1 << 16]time.Time // by message ID; zero: no query waits
	begin := time.Now()
	end, sent := begin.Add(length), 0
	for now := begin; now.Before(end.Add(time.Second)); now = time.Now() {
		for at := begin.Add(time.Duration(sent) * interval); !at.After(now) && at.Before(end); at = at.Add(interval) {
			id := l.prepare(0)
			if due[id].IsZero() {
				due[id] = at
			}
			if _, err := l.packets.WriteBatch(l.out[:1], 0); err != nil {
				log.Fatal(err)
			}
			sent++
		}
		_ = l.conn.SetReadDeadline(time.Now().Add(interval))
		n, err := l.packets.ReadBatch(l.in, 0)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				log.Fatal(err)
			}
			if now.After(end) && len(took) == sent {
				break
			}
			continue
		}
		now = time.Now()
		for i := range n {
			reply := l.in[i].Buffers[0][:l.in[i].N]
			l.check(reply)
			if id := binary.BigEndian.Uint16(reply); !due[id].IsZero() {
				took = append(took, now.Sub(due[id]))
				due[id] = time.Time{}
			}
		}
	}
	return took, sent - len(took)
}

// reportLatency prints latencies as minimum, median and maximum of the rounds, and the
// ratios to the constant in one round.
func reportLatency(subjects []*subject, all map[*subject]*latencies) {
	fmt.Printf("%-28s %20s %20s %20s %8s\n", "ms, min/median/max", "p50", "p99", "p999", "lost")
	for _, s := range subjects {
		m := all[s]
		fmt.Printf("%-28s %20s %20s %20s %7.2f%%\n", s.name, spread(m.p50), spread(m.p99), spread(m.p999), 100*float64(m.lost)/float64(m.sent))
	}
	for _, s := range subjects {
		kind, _, _ := strings.Cut(s.name, " ")
		i := slices.IndexFunc(subjects, func(other *subject) bool { return strings.HasPrefix(other.name, kind+" constant") })
		if constant := subjects[i]; s != constant {
			ratios := make([]float64, len(all[s].p99))
			for round := range ratios {
				ratios[round] = all[s].p99[round] / all[constant].p99[round]
			}
			fmt.Printf("p99 of %s / %s: %s\n", s.name, constant.name, spread(ratios))
		}
	}
}
