package main

import (
	"math"

	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
)

// choice is the server that a method found for a site, and what that took.
type choice struct {
	server int
	probes int
	steps  []int // the servers that it would have found after each probe
}

// method finds a server for a site. A silent site answers no probe.
type method struct {
	name    string
	product bool // what the server does
	find    func(d *draw, site int, silent bool) choice
}

var methods = []method{
	{"survey", true, bySurvey},
	{"hash", false, func(d *draw, site int, _ bool) choice { return choice{server: d.byHash(site)} }},
	{"random", false, func(d *draw, _ int, _ bool) choice {
		return choice{server: d.nearestTo(d.random.IntN(len(d.nodes)))}
	}},
	{"nearest", false, byNearest},
	{"ping", false, byPing},
}

// bySurvey asks the nodes that the search names.
func bySurvey(d *draw, site int, silent bool) choice {
	var answers []survey.Answer
	var steps []int
	for {
		next := d.between.Next(answers)
		if len(next) == 0 {
			break
		}
		for _, node := range next {
			a := survey.Answer{Node: node, RTT: survey.Unknown}
			if !silent {
				a.RTT = d.probe(node, site)
			}
			answers = append(answers, a)
			steps = append(steps, first(d, answers, site))
		}
	}
	return choice{first(d, answers, site), len(answers), steps}
}

// first returns the server that is best by the answers; that of the hashed node
// if nothing is known.
func first(d *draw, answers []survey.Answer, site int) int {
	if order := d.between.Order(answers, d.standing); !math.IsNaN(order[0].RTT) {
		return order[0].Server
	}
	return d.byHash(site)
}

// byNearest asks all nodes, and takes the ranking of the nearest one.
func byNearest(d *draw, site int, silent bool) choice {
	rtts := make([]float64, len(d.nodes))
	for node := range d.nodes {
		rtts[node] = d.probe(node, site)
	}
	c := choice{probes: len(d.nodes)}
	if c.server = d.nearestTo(lowest(rtts)); silent {
		c.server = d.byHash(site)
	}
	return c
}

// byPing asks all servers.
func byPing(d *draw, site int, silent bool) choice {
	rtts := make([]float64, len(d.servers))
	for i, host := range d.servers {
		rtts[i] = d.measure(d.before[host][site])
	}
	c := choice{probes: len(d.servers)}
	if c.server = lowest(rtts); silent {
		c.server = d.byHash(site)
	}
	return c
}

// byHash returns the server that is nearest to a node which is always the same for a
// site.
func (d *draw) byHash(site int) int { return d.nearestTo(site * 7919 % len(d.nodes)) }

// nearestTo returns the server that is nearest to a node.
func (d *draw) nearestTo(node int) int {
	rtts := make([]float64, len(d.standing))
	for i, s := range d.standing {
		rtts[i] = s.Latency[node]
	}
	return lowest(rtts)
}

// lowest returns the index of the lowest value.
func lowest(values []float64) int {
	best := 0
	for i, v := range values {
		if v < values[best] || math.IsNaN(values[best]) {
			best = i
		}
	}
	return best
}
