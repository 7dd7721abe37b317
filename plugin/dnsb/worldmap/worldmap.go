// Package worldmap draws the world without Antarctica: outlines of the land, and
// where a point is among them.
//
// The projection is Equal Earth (Šavrič, Patterson, Jenny 2018): areas have their
// true proportions, and its formula is short.
package worldmap

import (
	_ "embed" // of the land
	"fmt"
	"math"
	"strings"
)

// Width and Height are the size of the map. The origin is at the top left.
const (
	Width  = 1000
	Height = 433
)

// north and south are the latitudes at the edges, in degrees.
const (
	north = 83.7
	south = -56.4
)

// Land is the path of the land, as SVG has it, in tenths: scale it by 0.1. The
// program generate.go made it.
//
//go:embed land.txt
var Land string

// Sea is the path of the edge of the map, Grid that of every 30th meridian and
// parallel.
var (
	Sea  = sea()
	Grid = grid()
)

// Project returns where the point at a latitude and longitude in degrees is. Points
// beyond the edge are at the edge.
func Project(lat, lon float64) (x, y float64) {
	lat = min(max(lat, south), north)
	x, y = equalEarth(lat, lon)
	_, top := equalEarth(north, 0)
	edge, _ := equalEarth(0, 180)
	scale := Width / (2 * edge)
	return Width/2 + x*scale, (top - y) * scale
}

// equalEarth is the projection of the unit sphere.
func equalEarth(lat, lon float64) (x, y float64) {
	const a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
	t := math.Asin(math.Sqrt(3) / 2 * math.Sin(lat*math.Pi/180))
	t2 := t * t
	t6 := t2 * t2 * t2
	x = 2 * math.Sqrt(3) * lon * math.Pi / 180 * math.Cos(t) / (3 * (a1 + 3*a2*t2 + t6*(7*a3+9*a4*t2)))
	return x, t * (a1 + a2*t2 + t6*(a3+a4*t2))
}

// meridian appends the path of a meridian, between two latitudes.
func meridian(b *strings.Builder, command byte, lon, from, to float64) {
	const steps = 16
	for i := range steps + 1 {
		x, y := Project(from+(to-from)*float64(i)/steps, lon)
		fmt.Fprintf(b, "%c%.1f %.1f", command, x, y)
		command = 'L'
	}
}

func sea() string {
	var b strings.Builder
	meridian(&b, 'M', -180, south, north)
	meridian(&b, 'L', 180, north, south)
	return b.String() + "Z"
}

func grid() string {
	var b strings.Builder
	for lon := -150.0; lon <= 150; lon += 30 {
		meridian(&b, 'M', lon, south, north)
	}
	for lat := -30.0; lat <= 60; lat += 30 {
		left, y := Project(lat, -180)
		right, _ := Project(lat, 180)
		fmt.Fprintf(&b, "M%.1f %.1fH%.1f", left, y, right)
	}
	return b.String()
}
