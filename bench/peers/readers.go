//go:build linux

package main

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// measureReaders measures how many more queries two readers of the fast path answer
// than one. Load and server share both cores.
func measureReaders(o *options, s *set) {
	var peers []*peer
	for readers := 1; readers <= 2; readers++ {
		p := coreDNS("dnsb", "prometheus")
		command := p.command
		p.name = fmt.Sprintf("dnsb fast path, readers: %d", readers)
		p.cores = "0,1"
		p.command = func(w *workload, dir string, at netip.AddrPort) []string {
			return append([]string{"env", fmt.Sprint("GOMAXPROCS=", readers)}, command(w, dir, at)...)
		}
		peers = append(peers, p)
	}
	subjects, stop := start(o, &s.workload, peers)
	defer stop()
	rates := make(map[*subject]series)
	for round := range o.rounds {
		for _, s := range shuffled(subjects) {
			rates[s] = append(rates[s], rateOnBothCores(s, o.length))
			progress("round %d of %d: %-36s %.0f/s", round+1, o.rounds, s.name, rates[s][round])
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\treplies/s")
	for _, s := range subjects {
		fmt.Fprintf(w, "%s\t%s\n", s.name, rates[s].spread())
	}
	if len(subjects) == 2 {
		fmt.Fprintf(w, "two readers / one\t%s\n", rates[subjects[1]].over(rates[subjects[0]]).spread())
	}
	_ = w.Flush()
}

// rateOnBothCores returns the replies a second to a load on each core.
func rateOnBothCores(s *subject, length time.Duration) float64 {
	var loads [2]*load
	var running sync.WaitGroup
	begin := time.Now()
	for core := range loads {
		l, err := newLoad(s)
		if err != nil {
			log.Fatal(err)
		}
		loads[core] = l
		running.Go(func() {
			runtime.LockOSThread() // and not unlocked: the thread ends with its affinity
			var cores unix.CPUSet
			cores.Set(core)
			if err := unix.SchedSetaffinity(0, &cores); err != nil {
				log.Fatal(err)
			}
			l.run(length)
		})
	}
	running.Wait()
	took, replies := time.Since(begin), 0
	for _, l := range loads {
		if err := l.verdict(); err != nil {
			log.Fatalf("%s: %v", s.name, err)
		}
		replies += l.replies
		l.close()
	}
	return float64(replies) / took.Seconds()
}
