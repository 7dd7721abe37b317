// Package plot has what drawings in SVG share.
package plot

import "math"

// colors can be told apart by people with color vision deficiency (Okabe and
// Ito).
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7a00", "#000000"}

// Color returns the color of the i-th line.
func Color(i int) string { return colors[i%len(colors)] }

// Ticks returns about n round numbers in a range.
func Ticks(low, high float64, n int) []float64 {
	raw := (high - low) / float64(n)
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step*f >= raw {
			step *= f
			break
		}
	}
	var out []float64
	for k := math.Ceil(low / step); k*step <= high; k++ {
		out = append(out, math.Round(k*step*1e6)/1e6)
	}
	return out
}
