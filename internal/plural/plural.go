// Package plural tells numbers of things.
package plural

import (
	"fmt"
	"strings"
)

// Of returns how many there are of a noun, such as 1 prefix or 2 prefixes.
func Of[N ~int | ~uint32 | ~uint64](n N, noun string) string {
	return fmt.Sprintf("%d %s", n, Noun(n, noun))
}

// Noun returns a noun as it is after a number. Its last word gets a regular plural.
func Noun[N ~int | ~uint32 | ~uint64](n N, noun string) string {
	switch {
	case n == 1:
		return noun
	case strings.HasSuffix(noun, "s"), strings.HasSuffix(noun, "x"), strings.HasSuffix(noun, "ch"):
		return noun + "es"
	case strings.HasSuffix(noun, "cy"), strings.HasSuffix(noun, "ry"):
		return strings.TrimSuffix(noun, "y") + "ies"
	}
	return noun + "s"
}
