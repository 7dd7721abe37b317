package worldmap

import (
	"math"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// rings returns the rings of the land, in units of the map.
func rings(t *testing.T) (all [][][2]float64) {
	t.Helper()
	number := regexp.MustCompile(`-?\d+`)
	for ring := range strings.SplitSeq(strings.TrimSuffix(Land, "z"), "z") {
		var (
			x, y   float64
			points [][2]float64
			values = number.FindAllString(ring, -1)
		)
		if !strings.HasPrefix(ring, "M") || strings.Count(ring, "l") != 1 || len(values)%2 != 0 {
			t.Fatalf("Expected a ring, got %.40q", ring)
		}
		for i := 0; i < len(values); i += 2 {
			dx, _ := strconv.Atoi(values[i])
			dy, _ := strconv.Atoi(values[i+1])
			x, y = x+float64(dx)/10, y+float64(dy)/10
			points = append(points, [2]float64{x, y})
		}
		all = append(all, points)
	}
	return all
}

// onLand reports whether a point is within an odd number of rings.
func onLand(all [][][2]float64, x, y float64) bool {
	inside := false
	for _, ring := range all {
		for i, p := range ring {
			q := ring[(i+len(ring)-1)%len(ring)]
			if (p[1] > y) != (q[1] > y) && x < (q[0]-p[0])*(y-p[1])/(q[1]-p[1])+p[0] {
				inside = !inside
			}
		}
	}
	return inside
}

// TestLandIsWhereCitiesAre checks that the outlines and the projection fit.
func TestLandIsWhereCitiesAre(t *testing.T) {
	all := rings(t)
	if len(Land) > 40_000 {
		t.Errorf("Expected at most 40 kB, got %d bytes", len(Land))
	}
	for _, ring := range all {
		for _, p := range ring {
			if p[0] < 0 || p[0] > Width || p[1] < 0 || p[1] > Height {
				t.Fatalf("Expected all land within the map, got a point at %v", p)
			}
		}
	}
	for _, tc := range []struct {
		place    string
		lat, lon float64
		land     bool
	}{
		{"Paris", 48.86, 2.35, true}, {"Kansas City", 39.1, -94.58, true}, {"Brasilia", -15.8, -47.88, true}, {"Nairobi", -1.29, 36.82, true},
		{"Delhi", 28.61, 77.21, true}, {"Alice Springs", -23.7, 133.88, true}, {"Novosibirsk", 55, 82.93, true}, {"Madrid", 40.42, -3.7, true},
		{"Yakutsk", 62.03, 129.73, true}, {"the east of Chukotka", 66, -174, true}, {"Nagano", 36.65, 138.2, true},
		{"the Atlantic", 35, -45, false}, {"the Pacific", 0, -140, false}, {"the Indian Ocean", -30, 80, false}, {"the Caspian Sea", 42, 50.5, false},
		{"the Mediterranean Sea", 34, 20, false}, {"Hudson Bay", 60, -86, false}, {"the Tasman Sea", -38, 160, false},
	} {
		x, y := Project(tc.lat, tc.lon)
		if onLand(all, x, y) != tc.land {
			t.Errorf("%s: Expected land %v at %.1f, %.1f", tc.place, tc.land, x, y)
		}
	}
}

func TestProjectStaysInMap(t *testing.T) {
	for _, lat := range []float64{-90, south, -10, 0, 45, north, 90} {
		for _, lon := range []float64{-180, -60, 0, 60, 180} {
			if x, y := Project(lat, lon); !(x >= -1e-6 && x <= Width+1e-6 && y >= 0 && y <= Height) {
				t.Errorf("Expected a point of the map for %g, %g, got %g, %g", lat, lon, x, y)
			}
		}
	}
	if x, y := Project(south, 0); x != Width/2 || math.Abs(y-Height) > 1 {
		t.Errorf("Expected the lower edge at %d, got %g", Height, y)
	}
}

// TestProjectKeepsAreas checks what the projection is for: a square degree has an
// area in proportion to that on the sphere.
func TestProjectKeepsAreas(t *testing.T) {
	const d = 1e-3
	area := func(lat, lon float64) float64 {
		x0, y0 := Project(lat, lon)
		x1, y1 := Project(lat, lon+d)
		x2, y2 := Project(lat+d, lon)
		return math.Abs((x1-x0)*(y2-y0)-(x2-x0)*(y1-y0)) / math.Cos(lat*math.Pi/180)
	}
	equator := area(0, 0)
	for _, lat := range []float64{-50, -20, 10, 40, 60, 80} {
		for _, lon := range []float64{-170, 0, 90} {
			if ratio := area(lat, lon) / equator; math.Abs(ratio-1) > 1e-3 {
				t.Errorf("Expected the area of the equator at %g, %g, got %.4f times that", lat, lon, ratio)
			}
		}
	}
}

// TestLandIsMadeByGenerator checks that the program that made the land builds.
func TestLandIsMadeByGenerator(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "go", "vet", "generate.go").CombinedOutput(); err != nil {
		t.Errorf("Expected the generator to build, got: %v\n%s", err, out)
	}
}
