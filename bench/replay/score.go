package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// score adds up how well a policy chose.
type score struct {
	slots, optimal, excess                float64 // slots at which the server chosen has a measurement
	truthSlots, truthOptimal, truthExcess float64
	switches                              int
	time                                  time.Duration
}

func (s *score) add(t score) {
	s.slots += t.slots
	s.optimal += t.optimal
	s.excess += t.excess
	s.truthSlots += t.truthSlots
	s.truthOptimal += t.truthOptimal
	s.truthExcess += t.truthExcess
	s.switches += t.switches
	s.time += t.time
}

// change is a choice that differs from the one before.
type change struct {
	slot     int // at which it takes effect
	from, to int
	cause    ranking.Cause
}

// replay returns the scores of the policies over all sets.
func (g *group) replay(policies []named, seed uint64, progress func(done, of int)) []score {
	bySet := make([][]score, len(g.sets))
	next := make(chan int)
	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				bySet[i] = g.replaySet(g.sets[i], policies, seed+uint64(i))
				mu.Lock()
				done++
				progress(done, len(g.sets))
				mu.Unlock()
			}
		})
	}
	for i := range g.sets {
		next <- i
	}
	close(next)
	wg.Wait()
	total := make([]score, len(policies))
	for _, scores := range bySet {
		for i, s := range scores {
			total[i].add(s)
		}
	}
	return total
}

func (g *group) replaySet(s set, policies []named, seed uint64) []score {
	best, truth := make([]float64, g.slots), make([]float64, g.slots)
	for t := range g.slots {
		best[t], truth[t] = lost, lost
		for _, q := range s {
			if !(best[t] <= q.rtt[t]) && !math.IsNaN(q.rtt[t]) {
				best[t] = q.rtt[t]
			}
			if !(truth[t] <= q.truth[t]) && !math.IsNaN(q.truth[t]) {
				truth[t] = q.truth[t]
			}
		}
	}
	scores := make([]score, len(policies))
	for i, n := range policies {
		sc := &scores[i]
		sc.time = time.Duration(g.slots-warmup) * g.step
		before := -1
		g.walk(s, n.new(len(s), seed), func(t, choice int) {
			if t < warmup {
				return
			}
			if before >= 0 && choice != before {
				sc.switches++
			}
			before = choice
			if v := s[choice].rtt[t]; !math.IsNaN(v) {
				sc.slots++
				sc.excess += v - best[t]
				if v == best[t] {
					sc.optimal++
				}
			}
			if v := s[choice].truth[t]; !math.IsNaN(v) {
				sc.truthSlots++
				sc.truthExcess += v - truth[t]
				if v == truth[t] {
					sc.truthOptimal++
				}
			}
		})
	}
	return scores
}

// walk calls at with each slot and the choice that was made for it before it began. There is no choice for the first one.
func (g *group) walk(s set, p policy, at func(slot, choice int)) {
	o := observation{
		rtt:      make([]float64, len(s)),
		est:      make([]ranking.Estimate, len(s)),
		eligible: make([]bool, len(s)),
	}
	for t := range g.slots - 1 {
		for i, q := range s {
			o.rtt[i] = q.seen[t]
			o.est[i] = q.est[t]
			o.eligible[i] = q.up == nil || q.up[t]
		}
		at(t+1, p.choose(&o))
	}
}

// changes returns how a rule of the server changed its choice.
func (g *group) changes(s set, rule string) []change {
	var out []change
	p := newRuled(rule, len(s))
	before := -1
	g.walk(s, p, func(t, choice int) {
		if choice != before {
			out = append(out, change{t, before, choice, p.cause})
			before = choice
		}
	})
	return out
}

func printTable(w io.Writer, g *group, policies []named, scores []score) {
	fmt.Fprintf(w, "%s: %s\n\n", g.name, g.about)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "policy\ttruth-opt %\toptimal %\texcess ms\ttruth-exc ms\tswitches/h\t")
	for i, n := range policies {
		name := n.name
		if n.isDefault {
			name += " (default)"
		}
		s := scores[i]
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.3f\t%.3f\t%.3f\t\n", name, 100*s.truthOptimal/s.truthSlots, 100*s.optimal/s.slots, s.excess/s.slots, s.truthExcess/s.truthSlots,
			float64(s.switches)/s.time.Hours())
	}
	t.Flush()
	fmt.Fprintln(w)
}

func printResults(w io.Writer, g *group, policies []named, scores []score) {
	for i, n := range policies {
		s := scores[i]
		fmt.Fprintf(w, "result policy=%s default=%t set=%s truth_optimal=%.2f optimal=%.2f excess_ms=%.3f truth_excess_ms=%.3f switches_per_hour=%.3f\n",
			n.name, n.isDefault, g.name, 100*s.truthOptimal/s.truthSlots, 100*s.optimal/s.slots, s.excess/s.slots, s.truthExcess/s.truthSlots, float64(s.switches)/s.time.Hours())
	}
}

// printChanges lists what a rule did with the only set of a group.
func (g *group) printChanges(w io.Writer, rule string) {
	s := g.sets[0]
	fmt.Fprintf(w, "changes by rule %s:\n\n", rule)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range g.changes(s, rule) {
		from := "-"
		if c.from >= 0 {
			from = s[c.from].name
		}
		fmt.Fprintf(t, "%s\t%s\t->\t%s\t%s\n", g.start.Add(time.Duration(c.slot)*g.step).UTC().Format(time.RFC3339), from, s[c.to].name, c.cause)
	}
	t.Flush()
	fmt.Fprintln(w)
}
