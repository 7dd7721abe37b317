package plot

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
)

// now is a time of the tests.
var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// hourOf returns a past of an hour whose slots end with these.
func hourOf(slots ...history.Slot) history.Past {
	return history.Past{From: now.Add(-time.Duration(len(slots)) * 30 * time.Second), Width: 30, Slots: slots}
}

// element is an element of a drawing.
type element struct {
	name string
	attr map[string]string
	text string
}

// elementsOf returns the elements of a drawing, which has to be well-formed, by class.
func elementsOf(t *testing.T, drawing template.HTML) map[string][]element {
	t.Helper()
	all := make(map[string][]element)
	var open []element
	d := xml.NewDecoder(strings.NewReader(string(drawing)))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("Expected a well-formed drawing, got %v in %s", err, drawing)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{token.Name.Local, make(map[string]string), ""}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			open = append(open, e)
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(token)
			}
		case xml.EndElement:
			e := open[len(open)-1]
			open = open[:len(open)-1]
			class := e.attr["class"]
			if class == "" {
				class = e.name
			}
			all[class] = append(all[class], e)
		}
	}
}

// texts joins the texts of elements.
func texts(elements []element) string {
	all := make([]string, 0, len(elements))
	for _, e := range elements {
		all = append(all, e.text)
	}
	return strings.Join(all, "|")
}

func TestPlot(t *testing.T) {
	slot := func(low, median, high float64) history.Slot {
		return history.Slot{Min: low, Median: median, Max: high, All: 6}
	}
	p := Plot{Of: "fra 192.0.2.80", Now: now, Span: 2 * time.Minute, Lost: "probes were lost", Axis: true}

	p.Past = hourOf(slot(1, 2, 3), history.Slot{}, slot(2, 4, 8), history.Slot{Lost: 6, All: 6})
	p.Marks = []Mark{{now.Add(-time.Minute), "in", "11:59:00 became first"}, {now.Add(-time.Hour), "out", "long ago"}}
	p.Periods = []Period{{now.Add(-time.Minute), now}, {now.Add(-2 * time.Hour), now.Add(-time.Hour)}}
	got := elementsOf(t, p.HTML())
	for class, want := range map[string]string{
		"line": "M0 150V150h1M2 100V100h1", "band": "M0 125V125h1V175h-1zM2 0V0h1V150h-1z", "mark in": "M2.0 0V200", "grid": "M0 0H4M0 100H4",
	} {
		if e := got[class]; len(e) != 1 || e[0].attr["d"] != want {
			t.Errorf("Expected one %s %q, got %v", class, want, e)
		}
	}
	if e := got["lost"]; len(e) != 1 || e[0].attr["x"] != "3" || e[0].attr["height"] != "200" {
		t.Errorf("Expected the lost slot over the full height, got %v", e)
	}
	if e := got["period"]; len(e) != 1 || e[0].attr["x"] != "2.0" || e[0].attr["width"] != "2.0" {
		t.Errorf("Expected one period, over the right half, got %v", e)
	}
	if len(got["before"])+len(got["mark out"]) != 0 {
		t.Errorf("Expected nothing before the record and no mark of an hour ago, got %v %v", got["before"], got["mark out"])
	}
	if axis, want := texts(got["span"]), "8 ms|4 ms|0|−2 min|−1 min|−1 min|−0 min|now"; axis != want {
		t.Errorf("Expected the axes %q, got %q", want, axis)
	}
	want := "Latency of fra 192.0.2.80 in the last 2 minutes: lowest 1 ms, usually 4 ms, highest 8 ms; 6 of 18 probes were lost; 11:59:00 became first"
	if title := texts(got["title"]); title != want+"|11:59:00 became first" && title != "11:59:00 became first|"+want {
		t.Errorf("Expected the title %q, got %q", want, title)
	}
	if svg := got["svg"]; len(svg) != 1 || svg[0].attr["role"] != "img" || svg[0].attr["viewBox"] != "0 0 4 200" {
		t.Errorf("Expected an image of four columns, got %v", svg)
	}

	p.Past, p.Marks, p.Periods, p.Axis = hourOf(slot(5, 5, 5)), nil, nil, false
	got = elementsOf(t, p.HTML())
	if e := got["before"]; len(e) != 1 || e[0].attr["width"] != "3.0" || got["line"][0].attr["d"] != "M3 33V33h1" || texts(got["span"]) != "6 ms|0" {
		t.Errorf("Expected one slot at the right end, nothing before and short axes, got %v", got)
	}
	p.Past = hourOf(history.Slot{Lost: 2, All: 2})
	if got := elementsOf(t, p.HTML()); len(got["lost"]) != 1 || len(got["span"]) != 0 {
		t.Errorf("Expected losses without an axis of latency, got %v", got)
	}
	for _, past := range []history.Past{{}, hourOf(), hourOf(history.Slot{}, history.Slot{})} {
		p.Past = past
		if got := elementsOf(t, p.HTML()); texts(got["plot-empty"]) != "nothing measured in the last 2 minutes" {
			t.Errorf("Expected a note instead of a drawing, got %v", got)
		}
	}
}

// TestScale checks that outliers do not flatten a drawing, and that the axis is round.
func TestScale(t *testing.T) {
	flat := func(n int, ms float64, maxima ...float64) (slots []history.Slot) {
		for range n {
			slots = append(slots, history.Slot{Min: ms, Median: ms, Max: ms, All: 1})
		}
		for i, m := range maxima {
			slots[i].Max = m
		}
		return slots
	}
	for _, tc := range []struct {
		slots []history.Slot
		want  float64
	}{
		{flat(100, 0.43), 0.5}, {flat(100, 9), 10}, {flat(100, 9.9), 20}, {flat(100, 11.8), 20}, {flat(100, 11.8, 900, 1000, 500), 20}, {flat(10, 11.8, 49, 49, 49), 50},
		{flat(100, 70), 80}, {flat(1, 230), 300}, {flat(3, 0.01), 0.02}, {[]history.Slot{{Lost: 1, All: 1}}, 0},
	} {
		if got := scale(tc.slots); got < tc.want*0.999 || got > tc.want*1.001 {
			t.Errorf("Expected %v at the top of %v, got %v", tc.want, tc.slots[0], got)
		}
	}
}

// TestColumnsOfDay checks that a day in fewer columns has the lowest, the highest and the
// losses of each.
func TestColumnsOfDay(t *testing.T) {
	past := history.Past{From: now.Add(-24 * time.Hour), Width: 300}
	for i := range 288 {
		past.Slots = append(past.Slots, history.Slot{Min: float64(i + 1), Median: float64(i + 2), Max: float64(i + 3), Lost: i % 2, All: 60})
	}
	columns := Plot{Past: past, Now: now, Span: 24 * time.Hour, Columns: 96}.columns()
	if want := (history.Slot{Min: 4, Median: 6, Max: 8, Lost: 2, All: 180}); len(columns) != 96 || columns[1] != want {
		t.Errorf("Expected 96 columns, the second one %+v, got %d, %+v", want, len(columns), columns[1])
	}
}

// TestDrawingsAreSmallAndEscaped draws what is large and hostile.
func TestDrawingsAreSmallAndEscaped(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	const hostile = `"><script>alert(1)</script><b x='`
	p := Plot{Of: hostile, Now: now, Span: 24 * time.Hour, Lost: hostile, Past: history.Past{From: now.Add(-24 * time.Hour), Width: 300}, Axis: true}
	for range 288 {
		p.Past.Slots = append(p.Past.Slots, history.Slot{Min: random.Float64(), Median: 1 + random.Float64(), Max: 1e6 * random.Float64(), Lost: random.IntN(2), All: 60})
	}
	for i := range 16 {
		p.Marks = append(p.Marks, Mark{now.Add(-time.Duration(i) * time.Hour), hostile, fmt.Sprint(hostile, i)})
	}
	drawing := p.HTML()
	if n := len(drawing); n > 40_000 {
		t.Errorf("Expected a drawing of at most 40,000 bytes, got %d", n)
	}
	got := elementsOf(t, drawing)
	if len(got["script"])+len(got["b"]) != 0 || !strings.Contains(texts(got["title"]), hostile) {
		t.Errorf("Expected texts as texts, got %v", got["script"])
	}
}

func TestMilliseconds(t *testing.T) {
	for ms, want := range map[float64]string{0.5: "0.5 ms", 0.05: "0.05 ms", 7.5: "7.5 ms", 11.84: "11.8 ms", 100: "100 ms", 1500: "1500 ms", 60000: "60 s"} {
		if got := milliseconds(ms); got != want {
			t.Errorf("Expected %q, got %q", want, got)
		}
	}
}
