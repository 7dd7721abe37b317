package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// result is how a method did at all sites of all draws.
type result struct {
	method
	placement
	probes int
	score
	steps []score // after each probe, of methods that go step by step
}

// score compares servers that were found with the best ones.
type score struct {
	sites, optimal, near int
	excess               []float64
}

// add scores the server of a site by the latencies to all servers.
func (s *score) add(latencies []float64, server int) {
	best := latencies[lowest(latencies)]
	excess := latencies[server] - best
	if math.IsNaN(excess) {
		return
	}
	s.sites++
	if excess <= 0 {
		s.optimal++
	}
	if excess <= max(5, best/10) {
		s.near++
	}
	s.excess = append(s.excess, excess)
}

func (s *score) share(n int) float64 { return 100 * float64(n) / float64(max(1, s.sites)) }

func (s *score) mean() float64 {
	sum := 0.0
	for _, e := range s.excess {
		sum += e
	}
	return sum / float64(max(1, len(s.excess)))
}

func (s *score) p95() float64 {
	if len(s.excess) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.excess))
	return sorted[(len(sorted)-1)*95/100]
}

// survey lets all methods find a server for each site.
func (f *field) survey(p placement, o options, progress func(done, total int)) []*result {
	results := make([]*result, len(methods))
	for i, m := range methods {
		results[i] = &result{method: m, placement: p}
	}
	for n := range o.draws {
		d := f.draw(p, o, n)
		for _, site := range d.sites {
			silent := d.random.Float64() < o.silent
			latencies := make([]float64, len(d.servers))
			for i, host := range d.servers {
				latencies[i] = f.now[site][host]
			}
			for _, r := range results {
				c := r.find(d, site, silent)
				r.probes += c.probes
				r.add(latencies, c.server)
				r.addSteps(latencies, c)
			}
		}
		progress(n+1, o.draws)
	}
	return results
}

// addSteps scores what was found after each probe. A site that needs no more of
// them stays in the count.
func (r *result) addSteps(latencies []float64, c choice) {
	if len(c.steps) == 0 {
		return
	}
	if r.steps == nil {
		r.steps = make([]score, maxSteps)
	}
	for i := range r.steps {
		r.steps[i].add(latencies, c.steps[min(i, len(c.steps)-1)])
	}
}

func printTable(w io.Writer, results []*result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "servers\tmethod\tprobes\toptimal %\tnear %\texcess ms\tp95 ms\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", r.placement.name, r.method.name, r.meanProbes(), r.share(r.optimal), r.share(r.near), r.mean(), r.p95())
	}
	_ = t.Flush()
	fmt.Fprintln(w)
}

func (r *result) meanProbes() float64 { return float64(r.probes) / float64(max(1, r.sites)) }

// printResults prints a line for each method, for scripts.
func printResults(w io.Writer, matrix string, o options, results []*result) {
	for _, r := range results {
		fmt.Fprintf(w, "result matrix=%s method=%s-%s default=%t nodes=%d servers=%d probes=%.2f optimal=%.2f near=%.2f excess_ms=%.3f p95_ms=%.3f\n",
			matrix, r.method.name, r.placement.name, r.product, o.nodes, o.servers, r.meanProbes(), r.share(r.optimal), r.share(r.near), r.mean(), r.p95())
	}
}
