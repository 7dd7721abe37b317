package main

import (
	"bufio"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/plot"
)

// errNoSet says that -plot names a set that the group does not have.
var errNoSet = errors.New("no such set")

// drawFile draws one set of a group over time.
func drawFile(o options, g *group, stderr io.Writer) error {
	n := o.plot
	if n < 0 {
		most := -1
		for i, s := range g.sets {
			if c := len(g.switches(s, o.rule)); c > most {
				n, most = i, c
			}
		}
	}
	if n >= len(g.sets) {
		return fmt.Errorf("invalid -plot %d: %w, expected 0 to %d in %s", n, errNoSet, len(g.sets)-1, g.name)
	}
	f, err := os.Create(o.svg)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	g.draw(w, n, o.rule)
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s: drew set %d to %s\n", g.name, n, o.svg)
	return nil
}

// Layout of a drawing, in pixels.
const (
	width, height = 1400, 600
	left, right   = 60, 20
	top, bottom   = 50, 70
	strip         = 18 // height of the choice below the axis
)

// draw writes a set as SVG: the median latency of each server over its samples,
// and the choice of a rule as a thick line and as a strip below the axis.
func (g *group) draw(w io.Writer, n int, rule string) {
	s := g.sets[n]
	low, high := g.extent(s)
	x := func(slot int) float64 { return left + (width-left-right)*float64(slot)/float64(max(1, g.slots-1)) }
	y := func(ms float64) float64 {
		return top + (height-top-bottom)*(1-(max(low, min(high, ms))-low)/(high-low))
	}

	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(w, `<text x="%d" y="18" font-size="14">%s, set %d, rule %s: median latency (ms), choice of the rule thick and below</text>`+"\n", left, g.name, n, html.EscapeString(rule))

	// Axes.
	for _, ms := range plot.Ticks(low, high, 8) {
		fmt.Fprintf(w, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left, y(ms), width-right, left-6, y(ms)+4, ms)
	}
	span := time.Duration(g.slots) * g.step
	unit, name := time.Hour, "h"
	if span < 2*time.Hour {
		unit, name = time.Minute, "min"
	} else if span > 4*24*time.Hour {
		unit, name = 24*time.Hour, "d"
	}
	for _, v := range plot.Ticks(0, float64(span)/float64(unit), 12) {
		slot := int(v * float64(unit) / float64(g.step))
		fmt.Fprintf(w, `<path d="M%.1f %dV%d" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle">%g %s</text>`+"\n",
			x(slot), top, height-bottom, x(slot), height-bottom+strip+26, v, name)
	}

	// Samples and medians.
	for i, q := range s {
		fmt.Fprintf(w, `<path fill="none" stroke="%s" stroke-opacity="0.25" stroke-width="0.5" d="%s"/>`+"\n", plot.Color(i), line(q.visible, 0, g.slots, x, y))
		fmt.Fprintf(w, `<path fill="none" stroke="%s" stroke-width="1" d="%s"/>`+"\n", plot.Color(i), line(q.truth, 0, g.slots, x, y))
	}

	// The choice.
	events := g.switches(s, rule)
	for k, e := range events {
		end := g.slots
		if k+1 < len(events) {
			end = events[k+1].slot
		}
		fmt.Fprintf(w, `<path fill="none" stroke="%s" stroke-width="3.5" stroke-linejoin="round" d="%s"/>`+"\n", plot.Color(e.to), line(s[e.to].truth, e.slot, min(end+1, g.slots), x, y))
		fmt.Fprintf(w, `<rect x="%.1f" y="%d" width="%.2f" height="%d" fill="%s"><title>%s, %s</title></rect>`+"\n", x(e.slot), height-bottom+6,
			max(0.5, x(min(end, g.slots-1))-x(e.slot)), strip, plot.Color(e.to), html.EscapeString(s[e.to].name), e.cause)
	}

	// Legend.
	for i, q := range s {
		offset := left + 170*(i%8)
		fmt.Fprintf(w, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", offset, 28+14*(i/8), plot.Color(i), offset+17, 38+14*(i/8), html.EscapeString(q.name))
	}
	fmt.Fprintln(w, "</svg>")
}

// extent returns the range of latencies to draw: the medians without the
// highest and the lowest hundredth.
func (g *group) extent(s set) (low, high float64) {
	var all []float64
	for _, q := range s {
		for _, v := range q.truth {
			if !math.IsNaN(v) {
				all = append(all, v)
			}
		}
	}
	if len(all) == 0 {
		return 0, 1
	}
	slices.Sort(all)
	low, high = all[len(all)/100], all[len(all)-1-len(all)/100]
	margin := max(0.5, 0.05*(high-low))
	return max(0, low-margin), high + margin
}

// line returns the SVG path of the values from one slot to another, with gaps
// for lost values.
func line(v []float64, from, to int, x func(int) float64, y func(float64) float64) string {
	var b []byte
	pen := 'M'
	for t := from; t < to; t++ {
		if math.IsNaN(v[t]) {
			pen = 'M'
			continue
		}
		b = fmt.Appendf(b, "%c%.1f %.1f", pen, x(t), y(v[t]))
		pen = 'L'
	}
	if len(b) == 0 {
		return "M0 0"
	}
	return string(b)
}
