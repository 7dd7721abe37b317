package survey

import (
	"math"
	"slices"
)

// Better reports whether a latency is so much lower than the one in use that it
// is to replace it: by more than 2 ms and by more than 10 %.
func Better(rtt, inUse float64) bool {
	return math.IsNaN(inUse) && !math.IsNaN(rtt) || inUse-rtt > max(2, inUse/10)
}

// Moved reports whether a latency has changed so much that the search is to begin
// anew: by more than 5 ms and by more than 20 %.
func Moved(rtt, before float64) bool {
	return math.IsNaN(rtt) != math.IsNaN(before) || math.Abs(rtt-before) > max(5, before/5)
}

// Implausible returns the nodes whose answers cannot be true by those of others: the
// node claims to be so near to the site that the path over the site would be
// much shorter than the one between the two nodes. Half of the direct path less
// the margin is beyond the shortcuts that networks have (1 % of the pairs that
// were measured have one of half the latency). A claim has to contradict most of
// the other answers, and more of them than any other answer does, so that one
// liar does not make the others implausible.
func (n *Nodes) Implausible(answers []Answer) []int {
	known := heard(answers)
	contradictions := make([]int, len(known))
	for i, a := range known {
		for _, b := range known {
			if d := n.between(a.Node, b.Node); a.Node != b.Node && a.RTT+b.RTT < d/2-margin {
				contradictions[i]++
			}
		}
	}
	var out []int
	for i, a := range known {
		if len(known) > 2 && 2*contradictions[i] > len(known)-1 && contradictions[i] == slices.Max(contradictions) {
			out = append(out, a.Node)
		}
	}
	return out
}
