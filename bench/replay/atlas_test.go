package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// atlas returns five traces: a has 10 ms until slot 2500 and 30 ms from then
// on, b has 20 ms, and the others have 100 ms and more.
func atlas() string {
	var b strings.Builder
	b.WriteString("trace,epoch_s,rtt_ms,changepoint\n")
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		for t := range atlasMinSamples {
			rtt := 100 + 10*i
			switch {
			case name == "a" && t < 2500:
				rtt = 10
			case name == "a":
				rtt = 30
			case name == "b":
				rtt = 20
			}
			fmt.Fprintf(&b, "%s,%d,%d,0\n", name, 1000000000+240*t, rtt)
		}
	}
	return b.String()
}

func FuzzReadTraces(f *testing.F) {
	f.Add([]byte("trace,epoch_s,rtt_ms,changepoint\n1,100,10.5,0\n1,340,,0\n2,100,7,1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := readTraces(bytes.NewReader(b))
		if err == nil && (len(tr.paths) == 0 || tr.step <= 0) {
			t.Errorf("Expected paths and a step, got %+v", tr)
		}
	})
}
