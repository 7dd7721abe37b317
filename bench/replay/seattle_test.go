package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/latencyfile"
)

// matrixCSV returns 700 slices between 7 nodes. The latency to node j is
// 100*(j+1), with runs.
func matrixCSV() string {
	var b strings.Builder
	b.WriteString("i,j,runs(start_slice:rtt_ms separated by space)\n")
	for i := range 7 {
		for j := range 7 {
			if i != j {
				fmt.Fprintf(&b, "%d,%d,1:%d 500:%d 700:%d\n", i, j, 100*(j+1), 100*(j+1)+5, 100*(j+1))
			}
		}
	}
	return b.String()
}

func TestSeattleTakesEverySeventhSlice(t *testing.T) {
	got := results(t, "-seattle", write(t, matrixCSV(), false), "-loss", "0.1")
	want := "truth_optimal=100.00 optimal=100.00 excess_ms=0.000 truth_excess_ms=0.000 switches_per_hour=0.000"
	if got["seattle evidence"] != want {
		t.Errorf("Expected %s, got %s", want, got["seattle evidence"])
	}
	m, err := latencyfile.ReadMatrix(strings.NewReader("i,j,runs\n0,1,2:10 5:20 9:30\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(pathOf(m, 0, 1, 2).rtt); got != "[NaN 10 20 20 30]" {
		t.Errorf("Expected every second slice, got %s", got)
	}
	if pathOf(m, 1, 0, 1) != nil {
		t.Error("Expected no path that is not in the file")
	}
}
