//go:build linux

package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// settled is how long after the start the memory of a server is that of every day.
const settled = time.Minute

// measureStart measures the start and the memory of servers that nobody asks.
func measureStart(o *options, s *set) {
	subjects, stop := start(o, &s.workload, s.peers)
	defer stop()
	progress("waiting for %v", settled)
	time.Sleep(settled)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "server\tstart s\tits CPU s\tRSS MiB then\tafter %v\tat most\tCPU cores since\n", settled)
	for _, s := range subjects {
		cpu, rss := s.usage()
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%d\t%d\t%d\t%.2f\n", s.name, s.started.Seconds(), s.process.cpu.Seconds(), s.process.rss>>20, rss>>20, s.peak()>>20,
			(cpu-s.process.cpu).Seconds()/settled.Seconds())
	}
	_ = w.Flush()
}
