package widearea

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// table is the output of the test: a row for each event and city.
type table struct {
	start time.Time
	rows  []*row
}

type row struct {
	event, city, resolver, node string
	deputyShare                 float64 // of the packets of the resolver to node and deputy, in percent
	answer                      string
	wrong                       bool // the answer is not the expected one
	rtt, best                   time.Duration
	reacted, allowed            time.Duration
	failed                      int

	steered
}

func (tb *table) print(t *testing.T) {
	t.Helper()
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	event := ""
	for _, r := range tb.rows {
		if r.event != event {
			event = r.event
			_ = w.Flush()
			fmt.Fprintf(w, "\n%s:\n", event)
			fmt.Fprintln(w, "  city\tresolver\tnode\tto deputy %\tanswer\tRTT ms\tbest ms\treacted s\tallowed s\tfailed")
		}
		answer, reacted := r.answer, fmt.Sprintf("%.1f", r.reacted.Seconds())
		switch {
		case r.wrong:
			answer, reacted = answer+" WRONG", "never"
		case r.reacted == 0:
			reacted = "kept"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%.0f\t%s\t%.1f\t%.1f\t%s\t%.1f\t%d\n", r.city, r.resolver, r.node, r.deputyShare, answer,
			r.rtt.Seconds()*1000, r.best.Seconds()*1000, reacted, r.allowed.Seconds(), r.failed)
	}
	_ = w.Flush()
	tb.printSteering(&out)
	fmt.Fprintf(&out, "\nTotal time: %v.\n", time.Since(tb.start).Round(time.Second))
	publish(t, out.String())
}

// publish prints the outcome of a test, and appends it to the file that
// WIDEAREA_TABLE names: go test prints the output of a package that passes only
// with -v.
func publish(t *testing.T, text string) {
	t.Helper()
	t.Log(text)
	if !testing.Verbose() && !t.Failed() {
		fmt.Fprint(os.Stdout, text)
	}
	path := os.Getenv("WIDEAREA_TABLE")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
}
