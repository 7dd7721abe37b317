package widearea

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// positions of cities, degrees north and east.
var positions = map[string][2]float64{
	"Paris": {48.86, 2.35}, "London": {51.51, -0.13}, "Madrid": {40.42, -3.70}, "Stockholm": {59.33, 18.07},
	"NewYork": {40.71, -74.01}, "Montreal": {45.50, -73.57}, "Osaka": {34.69, 135.50}, "Seoul": {37.57, 126.98},
	"Frankfurt": {50.11, 8.68}, "Washington": {38.91, -77.04}, "Tokyo": {35.68, 139.69}, "SaoPaulo": {-23.55, -46.63},
}

// distance returns that of two cities on a sphere, in radians (haversine formula).
func distance(a, b string) float64 {
	const degree = math.Pi / 180
	p, q := positions[a], positions[b]
	north, east := math.Sin((q[0]-p[0])*degree/2), math.Sin((q[1]-p[1])*degree/2)
	return 2 * math.Asin(math.Sqrt(north*north+math.Cos(p[0]*degree)*math.Cos(q[0]*degree)*east*east))
}

// policies are other ways to choose a server, from those that are up: they return the
// servers that clients in a city are sent to, each as often as the others.
var policies = []struct {
	name   string
	choose func(m *Matrix, city string, live []string) []string
}{
	{"round robin", func(_ *Matrix, _ string, live []string) []string { return live }},
	{"nearest by geography", func(_ *Matrix, city string, live []string) []string {
		return []string{slices.MinFunc(live, func(a, b string) int { return int(math.Copysign(1, distance(city, a)-distance(city, b))) })}
	}},
	{"measured in " + dnsBCity, func(m *Matrix, _ string, live []string) []string {
		nearest, _ := m.Nearest(dnsBCity, live)
		return []string{nearest}
	}},
}

// steered is the network in which the clients of a city got an answer.
type steered struct {
	matrix *Matrix
	live   []string // cities of the servers that were up
}

// steering is how well some clients were sent.
type steering struct {
	optimal, clients float64
	rtt              time.Duration // in all
}

func (s *steering) add(m *Matrix, city string, to, live []string) {
	best, _ := m.Nearest(city, live)
	for _, server := range to {
		share := 1 / float64(len(to))
		s.clients += share
		s.rtt += time.Duration(share * float64(m.RTT(city, server)))
		if server == best {
			s.optimal += share
		}
	}
}

// printSteering compares what clients got once the system had reacted with what other
// policies would have given them, event by event and in all.
func (tb *table) printSteering(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nSteering: answers that were the fastest server %%, mean RTT ms\n  \tthis system\t\t")
	for _, p := range policies {
		fmt.Fprintf(w, "%s\t\t", p.name)
	}
	var events []string
	all := make([]steering, 1+len(policies))
	line := func(name string, of []steering) {
		fmt.Fprintf(w, "\n  %s\t", name)
		for _, s := range of {
			fmt.Fprintf(w, "%.0f\t%.1f\t", 100*s.optimal/s.clients, s.rtt.Seconds()*1000/s.clients)
		}
	}
	for _, first := range tb.rows {
		if slices.Contains(events, first.event) {
			continue
		}
		events = append(events, first.event)
		of := make([]steering, len(all))
		for _, r := range tb.rows {
			if r.event != first.event || !slices.Contains(r.live, r.answer) {
				continue // that has failed the test
			}
			choices := [][]string{{r.answer}}
			for _, p := range policies {
				choices = append(choices, p.choose(r.matrix, r.city, r.live))
			}
			for i, to := range choices {
				of[i].add(r.matrix, r.city, to, r.live)
				all[i].add(r.matrix, r.city, to, r.live)
			}
		}
		line(first.event, of)
	}
	line("all events", all)
	fmt.Fprintln(w)
	_ = w.Flush()
}
