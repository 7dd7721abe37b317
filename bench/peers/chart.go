//go:build linux

package main

import (
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/plot"
)

// drawBars draws one value of all subjects, if charts are wanted.
func (o *options) drawBars(s *set, axis string, subjects []*subject, of func(*subject) series) {
	if o.svg == "" {
		return
	}
	chart := plot.Bars{Title: s.title, Axis: axis}
	for _, s := range subjects {
		values := of(s)
		chart.Bars = append(chart.Bars, plot.Bar{Label: s.name, Low: slices.Min(values), Middle: median(values), High: slices.Max(values)})
	}
	path := filepath.Join(o.svg, s.name+".svg")
	if err := os.WriteFile(path, []byte(chart.SVG()), 0o644); err != nil { // #nosec G306 -- it is to be published
		log.Fatal(err)
	}
	progress("drew %s", path)
}
