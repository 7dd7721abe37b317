// Package survey decides which nodes measure a site, and which servers have the
// lowest latency from it. A site is a prefix whose latency nobody wrote down, a
// subject of measurements by nodes.
//
// The decisions are functions of the latencies between the nodes and of the
// answers so far, but for the nodes that measure first, which Nodes remembers. The
// package asks nobody and knows no clock. Latencies are round-trip times in
// milliseconds.
package survey

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

const (
	// few is how many nodes are asked all of them: no search pays.
	few = 8
	// landmarks is how many nodes measure first.
	landmarks = 3
	// second and third are how many nodes measure by when, in all, in the
	// search for the nearest one. More find little that these do not.
	second, third = 6, 8
	// Most is how many nodes measure a site, in all.
	Most = 11
	// nearEnough ends the search for the nearest node.
	nearEnough = 3.0
	// atOnce is how many nodes beside servers measure at a time.
	atOnce = 3
	// margin is added to latencies that are compared by their ratio, so that
	// small ones do not count for too much.
	margin = 10.0
)

// NoNode is the number of no node.
const NoNode = -1

// Unknown is a latency that nobody measured, or that of a site that is silent.
var Unknown = math.NaN()

// Answer is what a node measured of a site.
type Answer struct {
	Node int
	RTT  float64 // Unknown if the site was silent
}

// Server is a server as the nodes know it.
type Server struct {
	Latency []float64 // by node, or Unknown
	Beside  int       // node that stands where the server does, or NoNode
}

// Latencies are those between nodes, which are numbered from 0: what node i measured
// to node j, or Unknown, is at [i][j].
type Latencies [][]float64

// between returns the latency between two nodes, as one of them measured it.
func (l Latencies) between(i, j int) float64 {
	if i == j {
		return 0
	}
	if d := l[i][j]; !math.IsNaN(d) {
		return d
	}
	return l[j][i]
}

// Nodes are those of the nodes with latencies that can measure a site. They share the
// latencies with the caller, whose lock guards them.
type Nodes struct {
	Latencies

	members   []int
	landmarks func() []int // best first, and after them all other members
	pools     [][]int      // of nodes beside the servers of one service
}

// NewNodes returns nodes that can measure. Each pool names those of them that are
// beside the servers of one service. The latencies may change, but not during a call;
// the nodes that measure first are chosen by those at the first call of Next.
func NewNodes(latencies Latencies, members []int, pools [][]int) *Nodes {
	n := &Nodes{Latencies: latencies, members: members, pools: pools}
	n.landmarks = sync.OnceValue(n.chooseLandmarks)
	return n
}

// chooseLandmarks returns nodes from which all members are as near as possible: a
// greedy k-median. The others follow in order of their number.
func (n *Nodes) chooseLandmarks() []int {
	count := len(n.members)
	nearest := make([]float64, count) // latency to the nearest landmark
	for i := range nearest {
		nearest[i] = math.Inf(1)
	}
	order := make([]int, 0, count)
	for len(order) < min(landmarks, count) {
		best, least := -1, 0.0
		for _, i := range n.members {
			if slices.Contains(order, i) {
				continue
			}
			unknown, sum := 0, 0.0
			for at, j := range n.members {
				switch d := min(nearest[at], orInf(n.between(i, j))); {
				case math.IsInf(d, 1):
					unknown++
				default:
					sum += d
				}
			}
			sum += float64(unknown) * 1e6 // a node that knows few others comes last
			if best < 0 || sum < least {
				best, least = i, sum
			}
		}
		order = append(order, best)
		for at, j := range n.members {
			nearest[at] = min(nearest[at], orInf(n.between(best, j)))
		}
	}
	for _, i := range n.members {
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order
}

func orInf(d float64) float64 {
	if math.IsNaN(d) {
		return math.Inf(1)
	}
	return d
}

// Next returns the nodes that are to measure a site next, which can do so at the
// same time, after those that answered; none if enough is known. An answer
// counts even if the site was silent.
func (n *Nodes) Next(answers []Answer) []int {
	if len(n.members) <= few {
		return n.unasked(answers, len(n.members))
	}
	known := heard(answers)
	switch {
	case len(answers) < landmarks:
		return n.unasked(answers, landmarks-len(answers))
	case len(known) == 0:
		return nil // silent
	case len(answers) < second && known[0].RTT > nearEnough:
		return n.likely(answers, known, second-len(answers))
	}
	if next := n.besideServers(answers, known); len(next) > 0 {
		return next
	}
	if len(answers) < third && known[0].RTT > nearEnough {
		return n.likely(answers, known, third-len(answers))
	}
	return nil
}

// unasked returns the first nodes that have not answered, landmarks first.
func (n *Nodes) unasked(answers []Answer, most int) []int {
	var next []int
	for _, node := range n.landmarks() {
		if len(next) < most && !answered(answers, node) {
			next = append(next, node)
		}
	}
	return next
}

func answered(answers []Answer, node int) bool {
	return slices.ContainsFunc(answers, func(a Answer) bool { return a.Node == node })
}

// heard returns the answers with a latency, the lowest first.
func heard(answers []Answer) []Answer {
	known := slices.DeleteFunc(slices.Clone(answers), func(a Answer) bool { return math.IsNaN(a.RTT) })
	slices.SortStableFunc(known, func(a, b Answer) int { return cmp.Or(cmp.Compare(a.RTT, b.RTT), cmp.Compare(a.Node, b.Node)) })
	return known
}

// likely returns the nodes that could be nearest by the answers: those whose
// latencies to the nodes that answered are most like the ones of the site.
func (n *Nodes) likely(answers, known []Answer, most int) []int {
	type scored struct {
		node  int
		score float64
	}
	var all []scored
	for _, node := range n.members {
		if answered(answers, node) {
			continue
		}
		sum, pairs := 0.0, 0
		for _, a := range known {
			if d := n.between(a.Node, node); !math.IsNaN(d) {
				sum += math.Abs(a.RTT-d) / (min(a.RTT, d) + margin)
				pairs++
			}
		}
		s := scored{node, math.Inf(1)}
		if pairs > 0 {
			s.score = sum / float64(pairs)
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b scored) int { return cmp.Compare(a.score, b.score) })
	next := make([]int, 0, most)
	for _, s := range all[:min(most, len(all))] {
		next = append(next, s.node)
	}
	return next
}

// besideServers returns the nodes beside servers that could be the best of a
// pool: what they measure is exact for these servers.
func (n *Nodes) besideServers(answers, known []Answer) []int {
	var next []Estimate
	for _, pool := range n.pools {
		estimates := make([]Estimate, 0, len(pool))
		best := math.Inf(1)
		for _, node := range pool {
			e := n.estimate(known, Server{Beside: node})
			e.Server = node
			estimates = append(estimates, e)
			best = min(best, orInf(e.RTT))
		}
		for _, e := range estimates {
			could := math.IsNaN(e.RTT) || e.RTT < 2*best+margin
			if could && !answered(answers, e.Server) && !slices.ContainsFunc(next, func(o Estimate) bool { return o.Server == e.Server }) {
				next = append(next, e)
			}
		}
	}
	sortEstimates(next)
	room := max(0, min(atOnce, Most-len(answers), len(next)))
	nodes := make([]int, room)
	for i := range nodes {
		nodes[i] = next[i].Server
	}
	return nodes
}
