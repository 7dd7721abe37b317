// Command replay runs the decision rules of internal/ranking, the code that the
// server runs, over recorded latency traces, and compares them with the
// policies that are commonly used.
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

const usage = `replay runs the decision rules of the server, and the policies that are commonly used,
over recorded latency traces and prints how well each of them chose.

Usage:

	go run ./bench/replay -atlas FILE [-seattle FILE] [-loss 0.05] [-svg FILE]
	go run ./bench/replay -own FILE [-rule NAME] [-svg FILE]

All files are CSV, plain or compressed by gzip; bench/README.md describes them. At each slot a
policy knows earlier slots only. Printed for each policy are:

	truth-opt    share of slots at which the chosen server had the lowest centered median
	optimal      share of slots at which it had the lowest measured latency
	excess       mean latency above the lowest measured latency of the slot, ms
	truth-exc    mean centered median above the lowest one, ms
	switches/h   changes of the choice per hour

Flags:

`

type options struct {
	atlas, seattle, own string  // names of files, or empty
	svg                 string  // name of the drawing, or empty
	plot                int     // number of the drawn set; negative: the set with most switches
	rule                string  // listed and drawn
	loss                float64 // hidden share of the samples
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

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.atlas, "atlas", "", "`FILE` with traces of single paths; services are made of traces of similar latency")
	fs.StringVar(&o.seattle, "seattle", "", "`FILE` with a matrix of latencies over time; services are made of random nodes")
	fs.StringVar(&o.own, "own", "", "`FILE` with a trace of your servers")
	fs.StringVar(&o.rule, "rule", "", "`NAME` of the rule whose switches are listed (with -own) and drawn (default "+ranking.Rules()[0]+")")
	fs.Float64Var(&o.loss, "loss", 0, "share of the samples to hide from the policies, 0 to less than 1")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the sets, the losses and the random policy")
	fs.StringVar(&o.svg, "svg", "", "`FILE` to draw one set to")
	fs.IntVar(&o.plot, "plot", -1, "number of the set to draw, from 0 (default the set with most switches)")
	switch err := fs.Parse(args); {
	case err != nil:
		return o, err
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument '%s': name files with -atlas, -seattle or -own", fs.Arg(0))
	case o.atlas == "" && o.seattle == "" && o.own == "":
		return o, errors.New("nothing to replay: add -atlas, -seattle or -own, or -h for help")
	case !(o.loss >= 0 && o.loss < 1):
		return o, fmt.Errorf("invalid -loss %v: expected a share from 0 to less than 1", o.loss)
	}
	if _, err := ranking.NewRanker(o.rule, 0); err != nil {
		return o, err
	}
	if o.rule == "" {
		o.rule = ranking.Rules()[0]
	}
	return o, nil
}

func run(args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
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

	kinds := policyKinds()
	scores := make([][]score, len(groups))
	for i, g := range groups {
		fmt.Fprintf(stderr, "%s: %s\n", g.name, g.description)
		scores[i] = g.replay(kinds, o.seed, progress(stderr, g.name))
		printTable(stdout, g, kinds, scores[i])
	}
	if o.own != "" {
		printSwitches(stdout, groups[len(groups)-1], o.rule)
	}
	if o.svg != "" {
		if err := drawFile(o, groups[0], stderr); err != nil {
			return err
		}
	}
	for i, g := range groups {
		printResults(stdout, g, kinds, scores[i])
	}
	return nil
}

// progress returns a function that prints the state of the work every 2 s.
func progress(w io.Writer, name string) func(done, total int) {
	last := time.Now()
	return func(done, total int) {
		if time.Since(last) > 2*time.Second && done < total {
			last = time.Now()
			fmt.Fprintf(w, "%s: %d of %d sets\n", name, done, total)
		}
	}
}
