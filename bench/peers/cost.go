//go:build linux

package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// cost is what was measured of a subject, by round.
type cost struct {
	cpu  series // µs a query
	rate series // replies a second
	rss  int    // bytes, after all rounds

	replies int // in all rounds, to warm up too
}

func measureCost(o *options, s *set) {
	subjects, stop := start(o, &s.workload, s.peers)
	defer stop()
	costs := costsOf(subjects, o.rounds, o.length)
	reportCosts(subjects, costs)
	o.drawBars(s, "CPU µs a query: minimum, median, maximum", subjects, func(s *subject) series { return costs[s].cpu })
}

func costsOf(subjects []*subject, rounds int, length time.Duration) map[*subject]*cost {
	costs := make(map[*subject]*cost)
	for _, s := range subjects {
		costs[s] = new(cost)
	}
	for round := range rounds {
		for _, s := range shuffled(subjects) {
			l, err := newLoad(s)
			if err != nil {
				log.Fatal(err)
			}
			l.run(length / 4) // to warm up
			c := costs[s]
			c.replies += l.replies
			l.replies = 0
			before, _ := s.usage()
			begin := time.Now()
			l.run(length)
			after, rss := s.usage()
			took := time.Since(begin)
			l.close()
			if err := l.verdict(); err != nil {
				log.Fatalf("%s: %v; its log: %.2000s", s.name, err, s.log())
			}
			c.replies += l.replies
			c.cpu = append(c.cpu, float64((after-before).Microseconds())/float64(l.replies))
			c.rate = append(c.rate, float64(l.replies)/took.Seconds())
			c.rss = rss
			progress("round %d of %d: %-36s %.2f µs, %.0f/s", round+1, rounds, s.name, c.cpu[round], c.rate[round])
		}
	}
	return costs
}

func reportCosts(subjects []*subject, costs map[*subject]*cost) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\tCPU µs a query\treplies/s\tstart s\tits CPU s\tRSS MiB then\tafter load")
	for _, s := range subjects {
		c := costs[s]
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.2f\t%.2f\t%d\t%d\n", s.name, c.cpu.spread(), median(c.rate), s.started.Seconds(), s.process.cpu.Seconds(), s.process.rss>>20, c.rss>>20)
	}
	fmt.Fprintln(w, "\nratio of CPU in one round")
	ratios(w, subjects, func(s *subject) series { return costs[s].cpu })
	_ = w.Flush()
}

// ratios prints those of each subject of this program to all that follow.
func ratios(w *tabwriter.Writer, subjects []*subject, of func(*subject) series) {
	for i, s := range subjects {
		if !strings.HasPrefix(s.name, "dns") {
			continue
		}
		for _, other := range subjects[i+1:] {
			fmt.Fprintf(w, "%s / %s\t%s\n", s.name, other.name, of(s).over(of(other)).spread())
		}
	}
}
