package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/operator"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb"
)

// printTable prints rows with aligned columns.
func printTable(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = inputfile.Printable(strings.ReplaceAll(cell, "\t", " ")); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(table, strings.TrimRight(strings.Join(cells, "\t"), " "))
	}
	return table.Flush()
}

// decode returns the value of an object. One that is not of this form is left zero: the
// server may be of another version.
func decode[T any](o explain.Object) (value T) {
	_ = json.Unmarshal(o.Value, &value)
	return value
}

// nodeTable returns the nodes of a DNS-B as a table.
func nodeTable(a operator.Answer) [][]string {
	rows := [][]string{{"NODE", "STATE", "LEASE LEFT", "PREFIXES", "CUTS", "OVERRIDES OF SERVERS", "NOTE"}}
	for _, o := range a.Objects {
		if o.Kind != "node" {
			continue
		}
		n := decode[dnsb.NodeStatus](o)
		lease := "static"
		if !n.Static {
			lease = "ended"
			if left := time.Until(n.Lease); left > 0 {
				lease = left.Round(time.Second).String()
			}
		}
		notes := []string{}
		if n.Why != "" {
			notes = append(notes, n.Why)
		}
		for _, c := range n.DeadCuts {
			notes = append(notes, fmt.Sprintf("dead for %s (%s)", c.Cut, c.Why))
		}
		if n.ClientSubnets {
			notes = append(notes, "client-subnets")
		}
		rows = append(rows, []string{n.Node, n.State, lease, strconv.Itoa(n.Prefixes), strings.Join(n.Cuts, " "), overridesOf(n), strings.Join(notes, "; ")})
	}
	return rows
}

// overridesOf tells whether a node has the overrides of servers of its DNS-B.
func overridesOf(n dnsb.NodeStatus) string {
	switch {
	case n.Overrides == 0 && (n.OverridesCurrent || n.Static):
		return ""
	case n.OverridesCurrent:
		return fmt.Sprintf("fetched (%d)", n.Overrides)
	case n.Static:
		return "not fetched: static"
	case n.OverridesFetched.IsZero():
		return "not fetched"
	}
	return "older, of " + n.OverridesFetched.Local().Format(time.TimeOnly)
}

// statusTable returns the state of several servers as a table.
func statusTable(answers []operator.Answer) [][]string {
	rows := [][]string{{"SERVER", "NAME", "STATE", "SERVERS", "REGISTERED", "OVERRIDES"}}
	for _, a := range answers {
		if a.Problem != "" {
			rows = append(rows, []string{a.Server, a.Node, "failed", "", "", ""})
		}
		for _, o := range a.Objects {
			switch {
			case o.Kind == "status" && o.Plugin == "dnsb":
				s := decode[dnsb.Status](o)
				rows = append(rows, []string{a.Server, o.Zone, s.NodeCounts(), "", "", strconv.Itoa(len(s.Overrides))})
			case o.Kind == "status":
				rows = append(rows, nodeRow(a, decode[dnslb.Status](o).Summary))
			}
		}
	}
	return rows
}

// nodeRow returns the row of a node, or of another DNS-LB.
func nodeRow(a operator.Answer, s dnslb.Summary) []string {
	state := "ready"
	switch {
	case !s.Ready:
		state = "not ready"
	case s.Isolated:
		state = "isolated"
	case s.AllDownCount > 0:
		state = plural.Of(s.AllDownCount, "service") + " all down"
	}
	registered := 0
	for _, r := range s.Registrations {
		if r.Up {
			registered++
		}
	}
	servers := fmt.Sprintf("%d up, %d down", s.Up, s.Down)
	if s.Unknown > 0 {
		servers += fmt.Sprintf(", %d unknown", s.Unknown)
	}
	overrides := strconv.Itoa(len(s.Overrides))
	if n := len(s.IdleOverrides); n > 0 {
		overrides += fmt.Sprintf(", %d without effect", n)
	}
	return []string{a.Server, s.Node, state, servers, fmt.Sprintf("%d of %d", registered, len(s.Registrations)), overrides}
}

// statusLines returns the state of a server as text.
func statusLines(a operator.Answer) []string {
	var lines []string
	for _, o := range a.Objects {
		switch {
		case o.Kind == explain.KindError:
			lines = append(lines, decode[string](o))
		case o.Kind == "status" && o.Plugin == "dnsb":
			lines = slices.Concat(lines, decode[dnsb.Status](o).Lines())
		case o.Kind == "status":
			lines = slices.Concat(lines, decode[dnslb.Status](o).Summary.Lines())
		}
	}
	return lines
}
