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

// estimate returns the latency between a site and a server. What nodes know of the
// server is completed by the latency to the node beside it.
func (n *Nodes) estimate(known []Answer, s Server) Estimate {
	return s.estimate(known, func(node int) float64 {
		if s.Beside >= 0 {
			return n.between(node, s.Beside)
		}
		return Unknown
	})
}

// Estimate returns the latency between a site and the server by answers with a
// latency: that to the node beside the server if it was measured, else an estimate
// from all nodes that measured the site.
//
// Seen from a node, site and server are in directions that nothing is known of:
// on average they are at a right angle, so their distance is the root of the sum
// of squares. That errs by no more than the distance of the site, so near nodes
// count for much more than far ones.
func (s Server) Estimate(known []Answer) Estimate {
	return s.estimate(known, func(int) float64 { return Unknown })
}

// estimate is Estimate. beside returns the latency of a node to the one beside the
// server.
func (s Server) estimate(known []Answer, beside func(node int) float64) Estimate {
	sum, weights := 0.0, 0.0
	for _, a := range known {
		if a.Node == s.Beside {
			return Estimate{RTT: a.RTT, Measured: true}
		}
		d := Unknown
		if a.Node < len(s.Latency) {
			d = s.Latency[a.Node]
		}
		if math.IsNaN(d) {
			d = beside(a.Node)
		}
		if math.IsNaN(d) {
			continue
		}
		near := a.RTT + margin/2
		w := 1 / (near * near * near)
		sum += w * math.Sqrt(a.RTT*a.RTT+d*d)
		weights += w
	}
	if weights == 0 {
		return Estimate{RTT: Unknown}
	}
	return Estimate{RTT: sum / weights}
}
