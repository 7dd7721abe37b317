// Command survey runs the search of internal/survey over measured latencies
// between hosts, and compares it with other ways to find a server for a site.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
)

const usage = `survey makes some hosts of a latency matrix nodes and servers, and lets each way find a server for
each of the other hosts.

Usage:

	go run ./bench/survey -matrix FILE [-nodes 40] [-servers 5] [-draws 100] [-svg FILE]

The file is CSV, plain or compressed by gzip; bench/README.md describes it. Printed for each way,
with servers beside nodes and with servers elsewhere, are:

	probes     measurements of a site, mean
	optimal    share of sites that got the server with the lowest latency
	near       share of sites whose server is within 5 ms or 10 % of it
	excess     mean latency above the lowest one, ms
	p95        that is not exceeded for 95 % of the sites, ms

Flags:

`

type options struct {
	matrix, svg           string // names of files, or empty
	without               string // names of hosts
	nodes, servers, draws int
	seed                  uint64
	jitter                float64 // mean of what a packet takes longer, ms
	silent                float64 // share of the sites
	age                   bool    // sites are measured in the first slice, and asked for in the last
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "survey:", err)
			os.Exit(1)
		}
	}
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("survey", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.matrix, "matrix", "", "`FILE` with latencies between hosts")
	fs.StringVar(&o.without, "without", "", "`NAMES` of hosts to leave out, separated by commas")
	fs.IntVar(&o.nodes, "nodes", 40, "number of nodes")
	fs.IntVar(&o.servers, "servers", 5, "number of servers")
	fs.IntVar(&o.draws, "draws", 100, "how often nodes and servers are drawn")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the draws, the jitter and the silent sites")
	fs.Float64Var(&o.jitter, "jitter", 0, "mean `MS` that a packet takes longer (exponential); a measurement is the least of 3 packets")
	fs.Float64Var(&o.silent, "silent", 0, "`SHARE` of the sites that answer nothing, 0 to 1")
	fs.BoolVar(&o.age, "age", false, "measure sites in the first slice and ask for servers in the last (default: medians of all slices)")
	fs.StringVar(&o.svg, "svg", "", "`FILE` to draw optimal and excess over the number of probes to")
	switch err := fs.Parse(args); {
	case err != nil:
		return o, err
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument '%s': name the file with -matrix", fs.Arg(0))
	case o.matrix == "":
		return o, errors.New("nothing to survey: add -matrix, or -h for help")
	case o.nodes < 1 || o.servers < 1 || o.draws < 1:
		return o, errors.New("-nodes, -servers and -draws must be at least 1")
	case o.servers > o.nodes:
		return o, fmt.Errorf("%d servers beside %d nodes: expected at least as many -nodes as -servers", o.servers, o.nodes)
	case !(o.jitter >= 0 && o.jitter <= 1000):
		return o, fmt.Errorf("invalid -jitter %v: expected 0 to 1000 milliseconds", o.jitter)
	case !(o.silent >= 0 && o.silent <= 1):
		return o, fmt.Errorf("invalid -silent %v: expected a share from 0 to 1", o.silent)
	}
	return o, nil
}

func run(args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	m, err := latencyfile.Read(o.matrix, latencyfile.ReadMatrix)
	if err != nil {
		return err
	}
	f, err := newField(m, o)
	if err != nil {
		return fmt.Errorf("%s: %w", o.matrix, err)
	}
	name, _, _ := strings.Cut(filepath.Base(o.matrix), ".")
	fmt.Fprintf(stderr, "%s: %d hosts, %d slices; %d nodes and %d servers, drawn %d times\n", name, f.count, m.Slices, o.nodes, o.servers, o.draws)
	var results []*result
	for _, p := range placements {
		results = append(results, f.survey(p, o, progress(stderr, p.name))...)
	}
	printTable(stdout, results)
	if o.svg != "" {
		if err := drawFile(o.svg, name, results); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "%s: drew %s\n", name, o.svg)
	}
	printResults(stdout, name, o, results)
	return nil
}

// progress returns a function that prints the state of the work every 2 s.
func progress(w io.Writer, name string) func(done, total int) {
	last := time.Now()
	return func(done, total int) {
		if time.Since(last) > 2*time.Second && done < total {
			last = time.Now()
			fmt.Fprintf(w, "servers %s: %d of %d draws\n", name, done, total)
		}
	}
}
