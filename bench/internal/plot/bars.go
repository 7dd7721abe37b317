package plot

import (
	"fmt"
	"html"
	"strings"
)

// Bars is a chart of horizontal bars from zero.
type Bars struct {
	Title, Axis string
	Bars        []Bar
}

// Bar is one of them: it ends at Middle, and a line goes from Low to High.
type Bar struct {
	Label             string
	Low, Middle, High float64
}

// Layout of a chart, in pixels.
const (
	barWidth, labelWidth, valueWidth = 900, 280, 60
	barTop, barStep, barHeight       = 50, 28, 16
)

// SVG draws the chart.
func (c Bars) SVG() string {
	high := 1e-9
	for _, b := range c.Bars {
		high = max(high, b.High)
	}
	x := func(v float64) float64 { return labelWidth + v/high*(barWidth-labelWidth-valueWidth) }
	bottom := barTop + barStep*len(c.Bars)
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", barWidth, bottom+50)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="white"/>`+"\n"+`<text x="10" y="25" font-size="15">%s</text>`+"\n", html.EscapeString(c.Title))
	for _, v := range Ticks(0, high, 6) {
		fmt.Fprintf(&out, `<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%[1]f" y="%[4]d" text-anchor="middle">%[5]g</text>`+"\n", x(v), barTop-5, bottom, bottom+16, v)
	}
	for i, b := range c.Bars {
		y := barTop + barStep*i
		middle := float64(y) + barHeight/2
		fmt.Fprintf(&out, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`, labelWidth-8, middle+5, html.EscapeString(b.Label))
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s" fill-opacity=".6"/>`, labelWidth, y, x(b.Middle)-labelWidth, barHeight, Color(i))
		fmt.Fprintf(&out, `<path d="M%.1f %.1fH%.1f" stroke="black" stroke-width="1.5"/>`, x(b.Low), middle, x(b.High))
		fmt.Fprintf(&out, `<text x="%.1f" y="%.0f">%.3g</text>`+"\n", x(b.High)+6, middle+5, b.Middle)
	}
	fmt.Fprintf(&out, `<text x="%d" y="%d">%s</text>`+"\n</svg>\n", labelWidth, bottom+38, html.EscapeString(c.Axis))
	return out.String()
}
