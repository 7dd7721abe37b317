package dnsb

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/worldmap"
)

// maxMapNodes is how many nodes the map of the page shows: more hide each other.
const maxMapNodes = 300

// mapView is the map of the world with the nodes that have a location, in units of
// worldmap.
type mapView struct {
	Width, Height   int
	Sea, Grid, Land string
	Summary         string
	Lines           []mapLine
	Marks           []mapMark
	Unlocated       []string // nodes without a location
	Left            int      // nodes that the map does not show
}

// mapLine leads from a node to its deputy.
type mapLine struct {
	Path  string
	InUse bool // the node is dead and the deputy is live
	Title string
}

// mapMark is a node on the map.
type mapMark struct {
	X, Y, R float64
	State   string
	Label   string  // "" if there is no room
	Dx, Dy  float64 // of the label, from the center of the mark
	Anchor  string  // of the text
	Wide    bool    // there is room for the label on a wide screen only
	Title   string
}

const (
	// The area of a mark grows with the share of its node.
	smallestMark, largestMark = 5.0, 24.0
	// The size of a character of a label and of its line.
	letterWidth, lineHeight = 7.4, 14.0
	// narrowScale is by how much page.css makes marks larger on narrow screens.
	narrowScale = 2.3
)

// newMapView draws nodes.
func newMapView(nodes []NodeStatus) mapView {
	v := mapView{Width: worldmap.Width, Height: worldmap.Height, Sea: worldmap.Sea, Grid: worldmap.Grid, Land: worldmap.Land}
	located := make(map[string]NodeStatus)
	var shown []NodeStatus
	for _, n := range attentionFirst(nodes) {
		switch {
		case n.Location == nil:
			v.Unlocated = append(v.Unlocated, n.Node)
		case len(shown) == maxMapNodes:
			v.Left++
		default:
			shown = append(shown, n)
			located[n.Node] = n
		}
	}
	v.Summary = "Map of the world with nodes"
	for _, c := range countStates(shown) {
		v.Summary += fmt.Sprintf(", %d %s", c.Count, c.State)
	}
	for _, n := range shown {
		for _, deputy := range n.Deputies {
			if d, ok := located[deputy]; ok {
				v.Lines = append(v.Lines, lineBetween(n, d))
			}
		}
	}
	slices.SortStableFunc(shown, func(a, b NodeStatus) int { return cmp.Compare(b.Share, a.Share) }) // small ones are drawn over large ones
	for _, n := range shown {
		v.Marks = append(v.Marks, markOf(n))
	}
	placeLabels(v.Marks)
	return v
}

func projected(n NodeStatus) (x, y float64) {
	return worldmap.Project(n.Location.Latitude, n.Location.Longitude)
}

// lineBetween returns the line from a node to its deputy. It bends to the left, so
// that the line of the other direction is another one.
func lineBetween(n, deputy NodeStatus) mapLine {
	x1, y1 := projected(n)
	x2, y2 := projected(deputy)
	const bend = 0.16
	cx, cy := (x1+x2)/2+(y2-y1)*bend, (y1+y2)/2-(x2-x1)*bend
	return mapLine{
		Path:  fmt.Sprintf("M%.1f %.1fQ%.1f %.1f %.1f %.1f", x1, y1, cx, cy, x2, y2),
		InUse: n.State == string(nodeDead) && deputy.State == string(nodeLive),
		Title: deputy.Node + " is deputy of " + n.Node,
	}
}

func markOf(n NodeStatus) mapMark {
	x, y := projected(n)
	m := mapMark{X: x, Y: y, R: smallestMark + (largestMark-smallestMark)*math.Sqrt(n.Share), State: n.State, Label: n.Node}
	m.Title = fmt.Sprintf("%s: %s, %.1f %% of the referrals", n.Node, n.State, 100*n.Share)
	if n.State != string(nodeLive) {
		m.Label += " " + n.State
	}
	return m
}

// box is a rectangle of the map.
type box struct{ left, top, right, bottom float64 }

func (b box) overlaps(o box) bool {
	return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
}

func (b box) onMap() bool {
	return b.left >= 0 && b.right <= worldmap.Width && b.top >= 0 && b.bottom <= worldmap.Height
}

// placeLabels finds room for the labels beside their marks: first for wide and narrow
// screens, then, for the others, for wide ones. A label without room is left out; the
// mark has it as its title, and the table has all nodes.
func placeLabels(marks []mapMark) {
	order := make([]*mapMark, len(marks)) // what needs attention first
	taken := map[float64][]box{1: nil, narrowScale: nil}
	for i := range marks {
		order[i] = &marks[i]
		for scale := range taken {
			taken[scale] = append(taken[scale], marks[i].box(scale))
		}
	}
	slices.SortStableFunc(order, func(a, b *mapMark) int {
		return cmp.Compare(slices.Index(byAttention[:], nodeState(a.State)), slices.Index(byAttention[:], nodeState(b.State)))
	})
	for _, scales := range [][]float64{{1, narrowScale}, {1}} {
		order = slices.DeleteFunc(order, func(m *mapMark) bool { return m.place(scales, taken) })
	}
	for _, m := range order {
		m.Label = ""
	}
}

// place finds room for the label of a mark at some scales: right, left, below or
// above. It adds what the label takes.
func (m *mapMark) place(scales []float64, taken map[float64][]box) bool {
	const gap = 4
	for _, at := range []struct {
		anchor string
		dx, dy float64
	}{
		{"start", m.R + gap, lineHeight / 3}, {"end", -m.R - gap, lineHeight / 3}, {"middle", 0, m.R + lineHeight}, {"middle", 0, -m.R - gap},
	} {
		m.Anchor, m.Dx, m.Dy = at.anchor, at.dx, at.dy
		if slices.ContainsFunc(scales, func(scale float64) bool {
			label := m.labelBox(scale)
			return !label.onMap() || slices.ContainsFunc(taken[scale], label.overlaps)
		}) {
			continue
		}
		m.Wide = len(scales) == 1
		for _, scale := range scales {
			taken[scale] = append(taken[scale], m.labelBox(scale))
		}
		return true
	}
	return false
}

// box returns what a mark covers.
func (m *mapMark) box(scale float64) box {
	r := m.R * scale
	return box{m.X - r, m.Y - r, m.X + r, m.Y + r}
}

// labelBox returns what the label of a mark covers.
func (m *mapMark) labelBox(scale float64) box {
	width := letterWidth * float64(utf8.RuneCountInString(m.Label)) * scale
	left := m.X + m.Dx*scale
	switch m.Anchor {
	case "end":
		left -= width
	case "middle":
		left -= width / 2
	}
	base := m.Y + m.Dy*scale
	return box{left, base - 0.75*lineHeight*scale, left + width, base + 0.25*lineHeight*scale}
}
