package dnsb

import (
	"fmt"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/worldmap"
)

func TestMapMarks(t *testing.T) {
	v := newMapView([]NodeStatus{
		{Node: "small", State: "live", Share: 0.04, Location: &Location{-33, 151}, Deputies: []string{"large", "nowhere", "unlocated"}},
		{Node: "large", State: "dead", Share: 0.64, Location: &Location{48, 2}, Deputies: []string{"small"}},
		{Node: "unlocated", State: "live"},
	})
	if len(v.Unlocated) != 1 || v.Unlocated[0] != "unlocated" || len(v.Marks) != 2 || v.Marks[0].Label != "large dead" || v.Marks[1].Label != "small" {
		t.Fatalf("Expected two marks, the large one first, got %+v", v)
	}
	if large, small := v.Marks[0].R-smallestMark, v.Marks[1].R-smallestMark; large < 3.9*small || large > 4.1*small {
		t.Errorf("Expected the radius to grow with the root of the share, got %g and %g", large, small)
	}
	if x := v.Marks[1].X; x < 0.8*worldmap.Width {
		t.Errorf("Expected Sydney in the east, got %g", x)
	}
	used := 0
	for _, l := range v.Lines {
		if l.InUse {
			used++
		}
	}
	if len(v.Lines) != 2 || used != 1 || v.Lines[0].Path == v.Lines[1].Path {
		t.Errorf("Expected a line in each direction, one of which is in use, got %+v", v.Lines)
	}
}

// TestMapLabelsDoNotOverlap checks labels of many nodes in few places.
func TestMapLabelsDoNotOverlap(t *testing.T) {
	var nodes []NodeStatus
	for i := range maxMapNodes + 50 {
		state := "live"
		if i%50 == 49 {
			state = "dead"
		}
		nodes = append(nodes, NodeStatus{Node: fmt.Sprintf("node%d", i), State: state, Share: 0.001, Location: &Location{float64(i*7%120 - 50), float64(i*31%350 - 175)}})
	}
	v := newMapView(nodes)
	if len(v.Marks) != maxMapNodes || v.Left != 50 {
		t.Fatalf("Expected %d marks, got %d and %d", maxMapNodes, len(v.Marks), v.Left)
	}
	for _, scale := range []float64{1, narrowScale} {
		labels, dead := 0, 0
		for i, m := range v.Marks {
			if m.Label == "" || scale > 1 && m.Wide {
				continue
			}
			labels++
			if m.State == "dead" {
				dead++
			}
			b := m.labelBox(scale)
			if !b.onMap() {
				t.Errorf("Expected the label of %s on the map, got %+v", m.Title, b)
			}
			for j, other := range v.Marks {
				if b.overlaps(other.box(scale)) && i != j || i < j && other.Label != "" && !(scale > 1 && other.Wide) && b.overlaps(other.labelBox(scale)) {
					t.Errorf("Expected no overlap of the label of %s with %s at %g", m.Title, other.Title, scale)
				}
			}
		}
		if labels < 5 || scale == 1 && dead == 0 {
			t.Errorf("Expected labels at %g, also of dead nodes, got %d and %d", scale, labels, dead)
		}
	}
}
