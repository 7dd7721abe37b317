package main

import (
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// score adds up how well a policy chose. The first three fields are of the
// slots at which the chosen server has a sample, the next three of those at
// which it has a centered median. Latencies are in milliseconds.
type score struct {
	slots, optimal, excess                float64
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

// means are a score per slot: shares in percent, latencies in milliseconds, and
// switches per hour.
type means struct {
	truthOptimal, optimal, excess, truthExcess, switches float64
}

func (s score) means() means {
	return means{
		truthOptimal: 100 * s.truthOptimal / s.truthSlots,
		optimal:      100 * s.optimal / s.slots,
		excess:       s.excess / s.slots,
		truthExcess:  s.truthExcess / s.truthSlots,
		switches:     float64(s.switches) / s.time.Hours(),
	}
}

// replay returns the score of each kind of policy over all sets.
func (g *group) replay(kinds []policyKind, seed uint64, progress func(done, total int)) []score {
	bySet := make([][]score, len(g.sets))
	next := make(chan int)
	var mu sync.Mutex // done and the output of progress
	done := 0
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				bySet[i] = g.replaySet(g.sets[i], kinds, seed+uint64(i))
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
	total := make([]score, len(kinds))
	for _, scores := range bySet {
		for i, s := range scores {
			total[i].add(s)
		}
	}
	return total
}

func (g *group) replaySet(s set, kinds []policyKind, seed uint64) []score {
	best, bestTruth := make([]float64, g.slots), make([]float64, g.slots)
	for t := range g.slots {
		best[t], bestTruth[t] = latencyfile.Lost, latencyfile.Lost
		for _, q := range s {
			if !(best[t] <= q.rtt[t]) && !math.IsNaN(q.rtt[t]) {
				best[t] = q.rtt[t]
			}
			if !(bestTruth[t] <= q.truth[t]) && !math.IsNaN(q.truth[t]) {
				bestTruth[t] = q.truth[t]
			}
		}
	}
	scores := make([]score, len(kinds))
	for i, kind := range kinds {
		sc := &scores[i]
		sc.time = time.Duration(g.slots-warmup) * g.step
		previous := -1
		g.walk(s, kind.new(len(s), seed), func(t, choice int) {
			if t < warmup {
				return
			}
			if previous >= 0 && choice != previous {
				sc.switches++
			}
			previous = choice
			if v := s[choice].rtt[t]; !math.IsNaN(v) {
				sc.slots++
				sc.excess += v - best[t]
				if v == best[t] {
					sc.optimal++
				}
			}
			if v := s[choice].truth[t]; !math.IsNaN(v) {
				sc.truthSlots++
				sc.truthExcess += v - bestTruth[t]
				if v == bestTruth[t] {
					sc.truthOptimal++
				}
			}
		})
	}
	return scores
}

// walk calls visit with each slot and the choice for this slot, which the
// policy made of the slots before it. There is no choice for the first slot.
func (g *group) walk(s set, p policy, visit func(slot, choice int)) {
	o := observation{
		rtt:      make([]float64, len(s)),
		est:      make([]ranking.Estimate, len(s)),
		eligible: make([]bool, len(s)),
	}
	for t := range g.slots - 1 {
		for i, q := range s {
			o.rtt[i] = q.visible[t]
			o.est[i] = q.est[t]
			o.eligible[i] = q.eligible == nil || q.eligible[t]
		}
		visit(t+1, p.choose(&o))
	}
}

// switchEvent is a choice that differs from the previous one.
type switchEvent struct {
	slot     int // at which it takes effect
	from, to int // servers; from is -1 for the first choice
	cause    ranking.Cause
}

// switches returns the choices of a rule of the server.
func (g *group) switches(s set, rule string) []switchEvent {
	var events []switchEvent
	p := newServerRule(rule, len(s))
	previous := -1
	g.walk(s, p, func(t, choice int) {
		if choice != previous {
			events = append(events, switchEvent{t, previous, choice, p.cause})
			previous = choice
		}
	})
	return events
}
