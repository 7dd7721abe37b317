package survey

import (
	"cmp"
	"math"
	"slices"
)

// Estimate is the latency between a site and a server.
type Estimate struct {
	Server   int     // its number in the list
	RTT      float64 // Unknown if no node that answered knows the server
	Measured bool    // by the node beside the server
}

// Order returns the servers of a service by their latency from a site, the
// lowest first. Those of which nothing is known come last.
func (n *Nodes) Order(answers []Answer, servers []Server) []Estimate {
	known := heard(answers)
	order := make([]Estimate, len(servers))
	for i, s := range servers {
		order[i] = n.estimate(known, s)
		order[i].Server = i
	}
	sortEstimates(order)
	return order
}

func sortEstimates(list []Estimate) {
	slices.SortStableFunc(list, func(a, b Estimate) int { return cmp.Compare(orInf(a.RTT), orInf(b.RTT)) })
}

// estimate returns the latency between a site and a server: that to the node
// beside the server if it was measured, else an estimate from all nodes that
// measured the site.
//
// Seen from a node, site and server are in directions that nothing is known of:
// on average they are at a right angle, so their distance is the root of the sum
// of squares. That errs by no more than the distance of the site, so near nodes
// count for much more than far ones.
func (n *Nodes) estimate(known []Answer, s Server) Estimate {
	sum, weights := 0.0, 0.0
	for _, a := range known {
		if a.Node == s.Beside {
			return Estimate{RTT: a.RTT, Measured: true}
		}
		d := Unknown
		if a.Node < len(s.Latency) {
			d = s.Latency[a.Node]
		}
		if math.IsNaN(d) && s.Beside >= 0 {
			d = n.between(a.Node, s.Beside)
		}
		if math.IsNaN(d) {
			continue
		}
		w := math.Pow(a.RTT+margin/2, -3)
		sum += w * math.Hypot(a.RTT, d)
		weights += w
	}
	if weights == 0 {
		return Estimate{RTT: Unknown}
	}
	return Estimate{RTT: sum / weights}
}
