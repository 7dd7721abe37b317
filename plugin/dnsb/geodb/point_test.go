package geodb

import (
	"math"
	"testing"
)

func TestDegreesOfPoint(t *testing.T) {
	for _, want := range [][2]float64{{48.86, 2.35}, {-33.87, 151.2}, {0, -179.5}, {90, 0}} {
		if lat, lon := PointAt(want[0], want[1]).Degrees(); math.Abs(lat-want[0]) > 1e-9 || math.Abs(lon-want[1]) > 1e-9 {
			t.Errorf("Expected %v, got %g, %g", want, lat, lon)
		}
	}
}

func TestNearerPointHasLargerProduct(t *testing.T) {
	paris, madrid := PointAt(48.86, 2.35), PointAt(40.42, -3.70)
	for _, tc := range []struct {
		lat, lon float64
		madrid   bool
	}{{47, 2, false}, {41, 0, true}, {38.7, -9.1, true}, {-41, 175, false}, {64, -22, false}} {
		p := PointAt(tc.lat, tc.lon)
		if got := p.Dot(madrid) > p.Dot(paris); got != tc.madrid {
			t.Errorf("Expected Madrid to be nearer to %v: %v, got %v", tc, tc.madrid, got)
		}
	}
	// Across the date line.
	fiji, samoa, hawaii := PointAt(-18, 178), PointAt(-13, -172), PointAt(21, -157)
	if fiji.Dot(samoa) < fiji.Dot(hawaii) {
		t.Error("Expected Samoa to be nearer to Fiji than Hawaii is")
	}
	want, got := PointAt(-33.87, 151.2), ParseLOC("33 52 12.000 S 151 12 0.000 E 10m")
	if got == nil || want.Dot(*got) < 1-1e-9 {
		t.Errorf("Expected the point of a LOC to be %v, got %v", want, got)
	}
}
