//go:build linux

// Command peers measures servers side by side: this program with the fast path and
// without, a plugin of CoreDNS that answers a constant, the file plugin, gdnsd, Knot
// DNS and PowerDNS. It measures the CPU time of a query, latencies at a fixed rate
// while something else happens, the start and the memory.
//
// It needs a network namespace in which all addresses are local, so that queries
// come from the addresses of the map: see run.sh. Servers take turns, one core is
// theirs, another one that of the load. Each reply is checked.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	rounds int
	length time.Duration // of a measurement of CPU time
	rate   int           // queries a second, of latencies
	only   string
	svg    string // directory; "": no charts
	dir    string // for files of servers
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.DurationVar(&o.length, "length", 2*time.Second, "time for each server in a round of CPU time")
	flag.IntVar(&o.rate, "rate", 20_000, "queries a second when latencies are measured")
	flag.StringVar(&o.only, "only", "", "measure the servers whose names begin with this")
	flag.StringVar(&o.svg, "svg", "", "draw charts into this directory")
	flag.StringVar(&program, "program", "./coredns-dnslb", "the program")
	names := flag.String("set", "", "the sets to measure, separated by commas; none: all of "+strings.Join(setNames(), ", "))
	recorded := flag.Bool("short", false, "compare with what is recorded, and fail if it got worse")
	constant := flag.String("constant", "", "be the server that answers a constant, by this Corefile")
	flag.Parse()
	runtime.LockOSThread() // whose end would end the servers
	if *constant != "" {
		serveConstant(*constant)
		return
	}
	var err error
	if o.dir, err = os.MkdirTemp("", "peers"); err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(o.dir)
	if *recorded {
		if !checkRecorded(&o) {
			_ = os.RemoveAll(o.dir)
			os.Exit(1)
		}
		return
	}
	printVersions()
	for _, s := range sets {
		if *names == "" || slices.Contains(strings.Split(*names, ","), s.name) {
			fmt.Printf("\n## %s: %s\n\n", s.name, s.title)
			s.run(&o, s)
		}
	}
}

// shuffled returns the subjects in a random order: none profits from its place in all
// rounds.
func shuffled(subjects []*subject) []*subject {
	order := slices.Clone(subjects)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// series are values of one thing, by round.
type series []float64

// spread returns minimum, median and maximum.
func (s series) spread() string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f/%.2f/%.2f", slices.Min(s), median(s), slices.Max(s))
}

// over returns the ratios to another series in one round each.
func (s series) over(other series) series {
	ratios := make(series, min(len(s), len(other)))
	for i := range ratios {
		ratios[i] = s[i] / other[i]
	}
	return ratios
}

func median[S ~[]T, T cmp.Ordered](values S) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
