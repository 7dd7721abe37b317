//go:build linux

package main

import (
	"fmt"
	"log"
	"os"
	"text/tabwriter"
)

// measureMemory measures the peak of the resident memory at saturation, while servers do
// what the conditions say.
func measureMemory(o *options, s *set) {
	subjects, stop := start(o, &s.workload, s.peers)
	defer stop()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "meanwhile\tserver\treplies/s\tpeak of RSS, MiB")
	for _, c := range s.conditions {
		rates, peaks := make(map[*subject]series), make(map[*subject]series)
		for round := range o.rounds {
			for _, s := range shuffled(subjects) {
				l, err := newLoad(s)
				if err != nil {
					log.Fatal(err)
				}
				s.resetPeak()
				s.during(c, func() { l.run(c.length) })
				l.close()
				if err := l.verdict(); err != nil {
					log.Fatalf("%s, %s: %v", s.name, c.name, err)
				}
				rates[s] = append(rates[s], float64(l.replies)/c.length.Seconds())
				peaks[s] = append(peaks[s], float64(s.peak())/(1<<20))
				progress("%s, round %d of %d: %-36s %.0f/s, at most %.0f MiB", c.name, round+1, o.rounds, s.name, rates[s][round], peaks[s][round])
			}
		}
		for _, s := range subjects {
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\n", c.name, s.name, median(rates[s]), peaks[s].spread())
		}
	}
	_ = w.Flush()
}
