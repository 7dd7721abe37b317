package registration

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// ParseLocation returns a latitude and a longitude, in degrees with north and
// east positive, in the presentation form of a LOC record at altitude 0 (RFC
// 1876, section 3).
func ParseLocation(lat, lon string) (string, error) {
	latitude, err := parseDegrees("latitude", lat, 90, "N", "S")
	if err != nil {
		return "", err
	}
	longitude, err := parseDegrees("longitude", lon, 180, "E", "W")
	if err != nil {
		return "", err
	}
	return latitude + " " + longitude + " 0m", nil
}

func parseDegrees(coordinate, text string, limit float64, positive, negative string) (string, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(v) <= limit) {
		return "", fmt.Errorf("invalid %s '%s': expected %g to %g degrees, such as 48.86", coordinate, text, -limit, limit)
	}
	side := positive
	if v < 0 {
		side = negative
	}
	thousandths := int64(math.Round(math.Abs(v) * 3600 * 1000)) // of a second
	seconds := thousandths / 1000
	return fmt.Sprintf("%d %d %d.%03d %s", seconds/3600, seconds/60%60, seconds%60, thousandths%1000, side), nil
}

// location reads the LOC record. It takes only records whose presentation form
// gives the same record again, so that the form can be stored in its place.
func (p *parser) location(loc *dns.LOC) error {
	text := strings.TrimPrefix(loc.String(), loc.Hdr.String())
	again, err := dns.NewRR(". 0 IN LOC " + text)
	if err != nil || again == nil || loc.Version != 0 || strings.TrimPrefix(again.String(), again.Header().String()) != text {
		return formErr("invalid LOC record of node %s: expected a location in the ranges of RFC 1876", p.reg.Node)
	}
	if p.reg.Location != "" && p.reg.Location != text {
		return formErr("node %s has two LOC records, expected one", p.reg.Node)
	}
	p.reg.Location = text
	return nil
}
