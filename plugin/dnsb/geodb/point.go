package geodb

import (
	"math"

	"github.com/miekg/dns"
)

// Point is a point on the unit sphere. Of two points, the one that is nearer to a
// third has the larger product with it.
type Point struct{ x, y, z float64 }

// PointAt returns the point at a latitude and longitude in degrees.
func PointAt(lat, lon float64) Point {
	sinLat, cosLat := math.Sincos(lat * math.Pi / 180)
	sinLon, cosLon := math.Sincos(lon * math.Pi / 180)
	return Point{cosLat * cosLon, cosLat * sinLon, sinLat}
}

// Dot returns the scalar product of two points: 1 for the same point, -1 for the
// antipode.
func (p Point) Dot(q Point) float64 { return p.x*q.x + p.y*q.y + p.z*q.z }

// Degrees returns the latitude and longitude of a point.
func (p Point) Degrees() (lat, lon float64) {
	return math.Asin(min(max(p.z, -1), 1)) * 180 / math.Pi, math.Atan2(p.y, p.x) * 180 / math.Pi
}

// ParseLOC returns the point of a location in the presentation form of a LOC record
// (RFC 1876), nil if the text is empty or has another form.
func ParseLOC(location string) *Point {
	if location == "" {
		return nil
	}
	rr, err := dns.NewRR(". 0 IN LOC " + location)
	if err != nil {
		return nil
	}
	loc, ok := rr.(*dns.LOC)
	if !ok {
		return nil
	}
	degrees := func(v uint32) float64 { return float64(int64(v)-dns.LOC_EQUATOR) / (3600 * 1000) }
	p := PointAt(degrees(loc.Latitude), degrees(loc.Longitude))
	return &p
}
