//go:build ignore

// Generate makes land.txt of the land of Natural Earth in TopoJSON:
//
//	go run generate.go land-110m.json > land.txt
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/worldmap"
)

const (
	// tolerance is how far the path may be from the outline, and smallest the area
	// of the smallest island, in units of the map.
	tolerance = 0.35
	smallest  = 1.2
)

// topology is the part of TopoJSON that is needed.
type topology struct {
	Objects struct {
		Land struct {
			Geometries []struct{ Arcs [][][]int }
		}
	}
	Arcs      [][][2]int
	Transform struct{ Scale, Translate [2]float64 }
}

type point struct{ x, y float64 }

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var t topology
	if err := json.Unmarshal(text, &t); err != nil {
		log.Fatal(err)
	}
	var path strings.Builder
	for _, g := range t.Objects.Land.Geometries {
		for _, polygon := range g.Arcs {
			for _, ring := range polygon {
				for _, outline := range split(t.ring(ring)) {
					draw(&path, outline)
				}
			}
		}
	}
	fmt.Print(path.String())
}

// ring returns the longitudes and latitudes of a ring, joined from arcs.
func (t *topology) ring(arcs []int) (ring []point) {
	for _, a := range arcs {
		reverse := a < 0
		if reverse {
			a = ^a
		}
		x, y := 0, 0
		var arc []point
		for _, d := range t.Arcs[a] {
			x, y = x+d[0], y+d[1]
			arc = append(arc, point{float64(x)*t.Transform.Scale[0] + t.Transform.Translate[0], float64(y)*t.Transform.Scale[1] + t.Transform.Translate[1]})
		}
		if reverse {
			slices.Reverse(arc)
		}
		ring = append(ring, arc...)
	}
	return ring
}

// split returns a ring as rings that do not cross the antimeridian, none for
// Antarctica.
func split(ring []point) (rings [][]point) {
	north := -90.0
	for i := range ring {
		north = max(north, ring[i].y)
		if i > 0 { // the shorter way
			ring[i].x += 360 * math.Round((ring[i-1].x-ring[i].x)/360)
		}
	}
	if north < -60 {
		return nil
	}
	for _, shift := range []float64{-360, 0, 360} {
		moved := make([]point, len(ring))
		for i, p := range ring {
			moved[i] = point{p.x + shift, p.y}
		}
		if moved = clip(clip(moved, -180, 1), 180, -1); len(moved) > 2 {
			rings = append(rings, moved)
		}
	}
	return rings
}

// clip returns the part of a ring on one side of a meridian (Sutherland, Hodgman).
func clip(ring []point, lon, side float64) (out []point) {
	for i, p := range ring {
		q := ring[(i+len(ring)-1)%len(ring)]
		a, b := (q.x-lon)*side, (p.x-lon)*side
		if a*b < 0 {
			out = append(out, point{lon, q.y + (p.y-q.y)*a/(a-b)})
		}
		if b >= 0 {
			out = append(out, p)
		}
	}
	return out
}

// draw appends a ring in tenths of units.
func draw(path *strings.Builder, ring []point) {
	area := 0.0
	for i := range ring {
		ring[i].x, ring[i].y = worldmap.Project(ring[i].y, ring[i].x)
		if i > 0 {
			area += ring[i-1].x*ring[i].y - ring[i].x*ring[i-1].y
		}
	}
	if math.Abs(area/2) < smallest {
		return
	}
	half := len(ring) / 2
	ring = slices.Concat(simplify(ring[:half+1]), simplify(ring[half:])[1:])
	x, y := 0, 0
	for i, p := range ring {
		nextX, nextY := int(math.Round(10*p.x)), int(math.Round(10*p.y))
		dx, dy := nextX-x, nextY-y
		switch {
		case i == 0:
			fmt.Fprintf(path, "M%d %d", nextX, nextY)
		case i == len(ring)-1 || dx == 0 && dy == 0: // z closes it
			continue
		default:
			if i == 1 {
				path.WriteByte('l')
			} else if dx >= 0 {
				path.WriteByte(' ')
			}
			fmt.Fprintf(path, "%d", dx)
			if dy >= 0 {
				path.WriteByte(' ')
			}
			fmt.Fprintf(path, "%d", dy)
		}
		x, y = nextX, nextY
	}
	path.WriteByte('z')
}

// simplify leaves points out that are near the line between others (Douglas,
// Peucker).
func simplify(line []point) []point {
	if len(line) < 3 {
		return line
	}
	first, last := line[0], line[len(line)-1]
	dx, dy := last.x-first.x, last.y-first.y
	length, farthest, at := math.Hypot(dx, dy), 0.0, 0
	for i, p := range line[1 : len(line)-1] {
		d := math.Hypot(p.x-first.x, p.y-first.y)
		if length > 0 {
			d = math.Abs(dx*(p.y-first.y)-dy*(p.x-first.x)) / length
		}
		if d > farthest {
			farthest, at = d, i+1
		}
	}
	if farthest <= tolerance {
		return []point{first, last}
	}
	return slices.Concat(simplify(line[:at+1]), simplify(line[at:])[1:])
}
