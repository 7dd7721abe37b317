// Package plot draws latencies of the past as SVG for a page, whose style has the
// colors. It is pure.
package plot

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
)

// height is that of the drawing. Its width is the number of slots: the page stretches
// both, so that lines must not scale and texts are outside.
const height = 200

// Plot is what to draw.
type Plot struct {
	Of      string // whose latency, for those who do not see the drawing
	Past    history.Past
	Now     time.Time
	Span    time.Duration // from the left end until Now
	Columns int           // 0: as many as there are slots in the span; each has several else
	Lost    string        // what a loss is, such as "probes were lost"
	Marks   []Mark
	Periods []Period // in which something was the case, at the bottom
	Axis    bool     // the time is below, else the page says it
}

// Mark is a moment.
type Mark struct {
	At    time.Time
	Class string // of its line
	Text  string
}

// Period is a time.
type Period struct{ From, To time.Time }

// HTML returns the drawing with its axes.
func (p Plot) HTML() template.HTML {
	columns := p.columns()
	var measured []history.Slot
	for _, c := range columns {
		if c.All > 0 {
			measured = append(measured, c)
		}
	}
	if len(measured) == 0 {
		return template.HTML(`<p class="plot-empty">nothing measured in the last ` + span(p.Span) + `</p>`) // #nosec G203 -- words of this file
	}
	top := scale(measured)
	var b strings.Builder
	labels := []float64{top, 0}
	if p.Axis {
		labels = []float64{top, top / 2, 0}
	}
	b.WriteString(`<figure class="plot"><div class="ys" aria-hidden="true">`)
	for _, ms := range labels {
		switch {
		case top == 0:
		case ms == 0:
			b.WriteString(`<span>0</span>`)
		default:
			b.WriteString(`<span>` + milliseconds(ms) + `</span>`)
		}
	}
	fmt.Fprintf(&b, `</div><svg role="img" viewBox="0 0 %d %d" preserveAspectRatio="none"><title>%s</title>`,
		len(columns), height, template.HTMLEscapeString(p.describe(measured)))
	p.draw(&b, columns, top)
	b.WriteString(`</svg>`)
	if p.Axis {
		b.WriteString(`<div class="xs" aria-hidden="true">`)
		for i := range 5 {
			b.WriteString(`<span>` + ticks(p.Span*time.Duration(4-i)/4) + `</span>`)
		}
		b.WriteString(`</div>`)
	}
	b.WriteString(`</figure>`)
	return template.HTML(b.String()) // #nosec G203 -- numbers, words of this file and escaped texts
}

// columns returns the slots of the span, oldest first, those before the past empty.
func (p Plot) columns() []history.Slot {
	width := time.Duration(p.Past.Width * float64(time.Second))
	if width == 0 {
		return nil
	}
	slots := make([]history.Slot, p.Span/width)
	copy(slots[max(0, len(slots)-len(p.Past.Slots)):], p.Past.Slots[max(0, len(p.Past.Slots)-len(slots)):])
	if p.Columns == 0 || p.Columns >= len(slots) {
		return slots
	}
	columns := make([]history.Slot, 0, p.Columns)
	for part := range slices.Chunk(slots, len(slots)/p.Columns) {
		columns = append(columns, merge(part))
	}
	return columns
}

// merge returns one slot for several ones. Its median is that of theirs.
func merge(part []history.Slot) (out history.Slot) {
	var medians []float64
	for _, s := range part {
		out.Lost += s.Lost
		out.All += s.All
		if s.Median == 0 {
			continue
		}
		if medians = append(medians, s.Median); out.Min == 0 || s.Min < out.Min {
			out.Min = s.Min
		}
		out.Max = max(out.Max, s.Max)
	}
	if slices.Sort(medians); len(medians) > 0 {
		out.Median = medians[len(medians)/2]
	}
	return out
}

// scale returns the upper end of the axis: round, above all medians, and above the
// highest values of all slots but the worst twentieth, which would flatten the rest. It
// is 0 if there is no latency.
func scale(measured []history.Slot) float64 {
	var highest float64
	var maxima []float64
	for _, s := range measured {
		if s.Median > 0 {
			highest = max(highest, s.Median)
			maxima = append(maxima, s.Max)
		}
	}
	if len(maxima) == 0 {
		return 0
	}
	slices.Sort(maxima)
	highest = max(1.1*highest, maxima[len(maxima)-1-len(maxima)/20])
	power := math.Pow(10, math.Floor(math.Log10(highest)))
	for _, step := range []float64{1, 2, 3, 4, 5, 6, 8} {
		if highest <= step*power {
			return step * power
		}
	}
	return 10 * power
}

// draw draws columns: what is lost, from the lowest to the highest latency, the median.
func (p Plot) draw(b *strings.Builder, columns []history.Slot, top float64) {
	y := func(ms float64) int { return int(math.Round(height * (1 - min(ms/top, 1)))) }
	if from := p.x(p.Past.From, len(columns)); from > 0.5 {
		fmt.Fprintf(b, `<rect class="before" width="%s" height="%d"/>`, number(from), height)
	}
	fmt.Fprintf(b, `<path class="grid" d="M0 0H%dM0 %dH%d"/>`, len(columns), height/2, len(columns))
	for i, c := range columns {
		if c.Lost > 0 {
			fmt.Fprintf(b, `<rect class="lost" x="%d" width="1" height="%d"/>`, i, max(height*c.Lost/c.All, height/20))
		}
	}
	var band, line strings.Builder
	for i := 0; i < len(columns); i++ {
		begin := i
		for i < len(columns) && columns[i].Median > 0 {
			i++
		}
		run := columns[begin:i]
		if len(run) == 0 {
			continue
		}
		// Each column is a step, so that a single one is seen, too.
		fmt.Fprintf(&band, "M%d %d", begin, y(run[0].Max))
		fmt.Fprintf(&line, "M%d %d", begin, y(run[0].Median))
		for _, c := range run {
			fmt.Fprintf(&band, "V%dh1", y(c.Max))
			fmt.Fprintf(&line, "V%dh1", y(c.Median))
		}
		for _, c := range slices.Backward(run) {
			fmt.Fprintf(&band, "V%dh-1", y(c.Min))
		}
		band.WriteString("z")
	}
	fmt.Fprintf(b, `<path class="band" d="%s"/><path class="line" d="%s"/>`, band.String(), line.String())
	for _, period := range p.Periods {
		from, to := max(p.x(period.From, len(columns)), 0), min(p.x(period.To, len(columns)), float64(len(columns)))
		if from < to {
			fmt.Fprintf(b, `<rect class="period" x="%s" y="%d" width="%s" height="%d"/>`, number(from), height-height/16, number(to-from), height/16)
		}
	}
	for _, m := range p.Marks {
		if x := p.x(m.At, len(columns)); x >= 0 {
			fmt.Fprintf(b, `<path class="mark %s" d="M%s 0V%d"><title>%s</title></path>`, template.HTMLEscapeString(m.Class), number(x), height, template.HTMLEscapeString(m.Text))
		}
	}
}

// x returns where a time is between the left end, 0, and the right one.
func (p Plot) x(t time.Time, columns int) float64 {
	return float64(columns) * (1 - float64(p.Now.Sub(t))/float64(p.Span))
}

// describe tells what the drawing shows.
func (p Plot) describe(measured []history.Slot) string {
	all := merge(measured)
	var b strings.Builder
	b.WriteString("Latency of " + p.Of + " in the last " + span(p.Span))
	if all.Median > 0 {
		fmt.Fprintf(&b, ": lowest %s, usually %s, highest %s", milliseconds(all.Min), milliseconds(all.Median), milliseconds(all.Max))
	}
	if all.Lost > 0 {
		fmt.Fprintf(&b, "; %d of %d %s", all.Lost, all.All, p.Lost)
	}
	for _, m := range p.Marks {
		if p.Now.Sub(m.At) <= p.Span {
			b.WriteString("; " + m.Text)
		}
	}
	return b.String()
}

// milliseconds returns a latency with its unit.
func milliseconds(ms float64) string {
	switch {
	case ms < 10:
		return strconv.FormatFloat(math.Round(ms*100)/100, 'f', -1, 64) + " ms"
	case ms < 100:
		return strconv.FormatFloat(math.Round(ms*10)/10, 'f', -1, 64) + " ms"
	case ms < 10000:
		return strconv.Itoa(int(ms+0.5)) + " ms"
	}
	return strconv.Itoa(int(ms/1000+0.5)) + " s"
}

func span(d time.Duration) string {
	if d <= time.Hour {
		return strconv.Itoa(int(d.Minutes())) + " minutes"
	}
	return strconv.Itoa(int(d.Hours())) + " hours"
}

// ticks returns the label of a time before now.
func ticks(ago time.Duration) string {
	switch {
	case ago == 0:
		return "now"
	case ago < 2*time.Hour:
		return "−" + strconv.Itoa(int(ago.Minutes())) + " min"
	}
	return "−" + strconv.Itoa(int(ago.Hours())) + " h"
}

func number(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) }
