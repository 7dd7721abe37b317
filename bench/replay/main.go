// Command replay runs the decision rules of internal/ranking, the very code that the server runs, over recorded latency traces, beside the policies that are
// commonly used instead.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

const usage = `replay runs the decision rules of the server over recorded latency traces, beside the policies commonly used instead, and prints how well each chose.

Usage:

	go run ./bench/replay -atlas FILE [-seattle FILE] [-loss 0.05] [-svg FILE]
	go run ./bench/replay -own FILE [-rule NAME] [-svg FILE]

All files are CSV, plain or compressed by gzip; bench/README.md describes them. At each slot a policy has seen earlier slots only. Printed are, per policy:

	truth-opt    share of slots at which the server chosen had the lowest centred median
	optimal      share of slots at which it had the lowest latency measured
	excess       latency above the lowest one measured at that slot, mean, ms
	truth-exc    centred median above the lowest one, mean, ms
	switches/h   changes of the choice per hour

Flags:

`

type options struct {
	atlas, seattle, own string
	svg                 string
	plot                int
	rule                string
	loss                float64
	seed                uint64
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "replay:", err)
			os.Exit(1)
		}
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	var o options
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.atlas, "atlas", "", "traces of single paths `FILE`; services are made of traces of similar latency")
	fs.StringVar(&o.seattle, "seattle", "", "matrix of latencies over time `FILE`; services are made of random nodes")
	fs.StringVar(&o.own, "own", "", "trace of one's own servers `FILE`")
	fs.StringVar(&o.rule, "rule", "", "rule whose changes are listed (with -own) and drawn `NAME` (default "+ranking.Rules()[0]+")")
	fs.Float64Var(&o.loss, "loss", 0, "share of the samples hidden from the policies, 0 to less than 1")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the sets, the losses and the random policy")
	fs.StringVar(&o.svg, "svg", "", "draw one set over time to `FILE`")
	fs.IntVar(&o.plot, "plot", -1, "number of the set to draw, from 0 (default the one with most changes)")
	switch err := fs.Parse(args); {
	case err != nil:
		return err
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument '%s'; files are given by -atlas, -seattle or -own", fs.Arg(0))
	case o.atlas == "" && o.seattle == "" && o.own == "":
		return errors.New("nothing to replay: give -atlas, -seattle or -own, or -h for help")
	case !(o.loss >= 0 && o.loss < 1):
		return fmt.Errorf("-loss %v is not a share from 0 to less than 1", o.loss)
	}
	if _, err := ranking.NewRanker(o.rule, 0); err != nil {
		return err
	}
	if o.rule == "" {
		o.rule = ranking.Rules()[0]
	}

	var groups []*group
	for _, source := range []struct {
		file string
		load func(string, options) (*group, error)
	}{{o.atlas, loadAtlas}, {o.seattle, loadSeattle}, {o.own, loadOwn}} {
		if source.file == "" {
			continue
		}
		g, err := source.load(source.file, o)
		if err != nil {
			return err
		}
		groups = append(groups, g)
	}

	policies := policies()
	all := make([][]score, len(groups))
	for i, g := range groups {
		fmt.Fprintf(stderr, "%s: %s\n", g.name, g.about)
		all[i] = g.replay(policies, o.seed, progress(stderr, g.name))
		printTable(stdout, g, policies, all[i])
	}
	if o.own != "" {
		groups[len(groups)-1].printChanges(stdout, o.rule)
	}
	if o.svg != "" {
		if err := drawFile(o, groups[0], stderr); err != nil {
			return err
		}
	}
	for i, g := range groups {
		printResults(stdout, g, policies, all[i])
	}
	return nil
}

// progress returns a function that says now and then how far the work has come.
func progress(w io.Writer, name string) func(done, of int) {
	last := time.Now()
	return func(done, of int) {
		if time.Since(last) > 2*time.Second && done < of {
			last = time.Now()
			fmt.Fprintf(w, "%s: %d of %d sets\n", name, done, of)
		}
	}
}
