package main

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"os"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/plot"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
)

// maxSteps is the number of probes that are drawn.
const maxSteps = survey.Most

func drawFile(file, matrix string, results []*result) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	drawPanels(w, matrix, results)
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Layout of a panel, in pixels.
const (
	width, height = 560, 400
	left, right   = 60, 20
	top, bottom   = 60, 50
)

// drawPanels draws two panels side by side: the share of optimal servers, and the mean
// excess, over the number of probes. Methods without steps are a level line.
func drawPanels(w io.Writer, matrix string, results []*result) {
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", 2*width, height+90, 2*width, height+90)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="white"/>`+"\n", 2*width, height+90)
	fmt.Fprintf(w, `<text x="%d" y="22" font-size="14">%s: servers found, over the number of probes of a site</text>`+"\n", left, html.EscapeString(matrix))
	panel(w, 0, "optimal, %", results, func(s *score) float64 { return s.share(s.optimal) })
	panel(w, width, "mean excess, ms", results, (*score).mean)
	for i, r := range results {
		x, y := left+240*(i%4), height+20+20*(i/4)
		fmt.Fprintf(w, `<path d="M%d %dh24" stroke="%s" stroke-width="2"%s/><text x="%d" y="%d">%s, servers %s</text>`+"\n",
			x, y-4, plot.Color(i%len(methods)), dash(r), x+30, y, r.method.name, r.placement.name)
	}
	fmt.Fprintln(w, "</svg>")
}

// dash marks the servers that stand elsewhere.
func dash(r *result) string {
	if r.beside {
		return ""
	}
	return ` stroke-dasharray="5 3"`
}

func panel(w io.Writer, offset int, title string, results []*result, value func(*score) float64) {
	highest := 1.0
	for _, r := range results {
		highest = max(highest, value(&r.score))
		for i := range r.steps {
			highest = max(highest, value(&r.steps[i]))
		}
	}
	x := func(probes int) float64 {
		return float64(offset+left) + float64(width-left-right)*float64(probes-1)/float64(maxSteps-1)
	}
	y := func(v float64) float64 { return top + (height-top-bottom)*(1-v/highest) }
	fmt.Fprintf(w, `<text x="%d" y="%d">%s</text>`+"\n", offset+left, top-12, title)
	for _, v := range plot.Ticks(0, highest, 8) {
		fmt.Fprintf(w, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", offset+left, y(v), width-left-right, offset+left-6, y(v)+4, v)
	}
	for p := 1; p <= maxSteps; p++ {
		fmt.Fprintf(w, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(p), height-bottom+18, p)
	}
	for i, r := range results {
		path := fmt.Sprintf("M%.1f %.1fH%.1f", x(1), y(value(&r.score)), x(maxSteps))
		for s := range r.steps {
			verb := "L"
			if s == 0 {
				path, verb = "", "M"
			}
			path += fmt.Sprintf("%s%.1f %.1f", verb, x(s+1), y(value(&r.steps[s])))
		}
		fmt.Fprintf(w, `<path fill="none" stroke="%s" stroke-width="2"%s d="%s"><title>%s, servers %s</title></path>`+"\n",
			plot.Color(i%len(methods)), dash(r), path, r.method.name, r.placement.name)
	}
}
