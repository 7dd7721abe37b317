package registration

import (
	"fmt"
	"math"
	"strconv"
)

// ParseLocation returns a place, in degrees, in the presentation form of a LOC
// record (RFC 1876, section 3), without the altitude, which nobody needs here.
func ParseLocation(lat, lon string) (string, error) {
	north, err := degrees(lat, 90, "N", "S")
	if err != nil {
		return "", err
	}
	east, err := degrees(lon, 180, "E", "W")
	if err != nil {
		return "", err
	}
	return north + " " + east + " 0m", nil
}

func degrees(text string, most float64, positive, negative string) (string, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(v) <= most) {
		return "", fmt.Errorf("'%s' is no number of degrees from -%g to %g, such as 48.86", text, most, most)
	}
	side := positive
	if v < 0 {
		side = negative
	}
	thousandths := int64(math.Round(math.Abs(v) * 3600 * 1000)) // of a second
	seconds := thousandths / 1000
	return fmt.Sprintf("%d %d %d.%03d %s", seconds/3600, seconds/60%60, seconds%60, thousandths%1000, side), nil
}
