package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

func printTable(w io.Writer, g *group, kinds []policyKind, scores []score) {
	fmt.Fprintf(w, "%s: %s\n\n", g.name, g.description)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "policy\ttruth-opt %\toptimal %\texcess ms\ttruth-exc ms\tswitches/h\t")
	for i, kind := range kinds {
		name := kind.name
		if kind.isDefault {
			name += " (default)"
		}
		m := scores[i].means()
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.3f\t%.3f\t%.3f\t\n", name, m.truthOptimal, m.optimal, m.excess, m.truthExcess, m.switches)
	}
	t.Flush()
	fmt.Fprintln(w)
}

// printResults prints the scores again in a form for scripts.
func printResults(w io.Writer, g *group, kinds []policyKind, scores []score) {
	for i, kind := range kinds {
		m := scores[i].means()
		fmt.Fprintf(w, "result policy=%s default=%t set=%s ", kind.name, kind.isDefault, g.name)
		fmt.Fprintf(w, "truth_optimal=%.2f optimal=%.2f excess_ms=%.3f truth_excess_ms=%.3f switches_per_hour=%.3f\n",
			m.truthOptimal, m.optimal, m.excess, m.truthExcess, m.switches)
	}
}

// printSwitches lists the switches of a rule in the only set of a group.
func printSwitches(w io.Writer, g *group, rule string) {
	s := g.sets[0]
	fmt.Fprintf(w, "switches by rule %s:\n\n", rule)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range g.switches(s, rule) {
		from := "-"
		if e.from >= 0 {
			from = s[e.from].name
		}
		fmt.Fprintf(t, "%s\t%s\t->\t%s\t%s\n", g.start.Add(time.Duration(e.slot)*g.step).UTC().Format(time.RFC3339), from, s[e.to].name, e.cause)
	}
	t.Flush()
	fmt.Fprintln(w)
}
