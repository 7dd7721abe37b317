package widearea

import (
	"slices"
	"sync"
	"time"
)

// world is the state of the network over time: what a chaos run took away, and
// when. Things are named by the functions below.
type world struct {
	mu      sync.Mutex
	outages map[string][]*outage // by thing, by time of the beginning
}

// outage is a time in which a thing did not work.
type outage struct {
	cause    cause
	from, to time.Time // to is zero while it lasts
}

type cause int

const (
	gone    cause = iota // dead, stopped or cut off
	lossy                // a path that loses packets
	starved              // a process that waited for a core
)

// harness is the process of the test, with the router and the clients.
const harness = "test"

func nodeIn(city string) string     { return "node " + city }
func serverIn(city string) string   { return "server " + city }
func dnsBIn(city string) string     { return "DNS-B " + city }
func resolverIn(city string) string { return "resolver " + city }

// pathOf is the path between two cities, in both directions.
func pathOf(a, b string) string {
	if b < a {
		a, b = b, a
	}
	return "path " + a + "-" + b
}

func newWorld() *world { return &world{outages: make(map[string][]*outage)} }

// begin notes that a thing does not work any more, and returns the function
// that notes the end of that.
func (w *world) begin(thing string, why cause, at time.Time) (end func(at time.Time)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &outage{cause: why, from: at}
	w.outages[thing] = append(w.outages[thing], o)
	return func(at time.Time) {
		w.mu.Lock()
		defer w.mu.Unlock()
		o.to = at
	}
}

// of returns the outages of things that began before a time.
func (w *world) of(before time.Time, things ...string) []outage {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []outage
	for _, thing := range things {
		for _, o := range w.outages[thing] {
			if o.from.Before(before) {
				found = append(found, *o)
			}
		}
	}
	slices.SortFunc(found, func(a, b outage) int { return a.from.Compare(b.from) })
	return found
}

// over reports whether an outage had ended at a time.
func (o outage) over(at time.Time) bool { return !o.to.IsZero() && !o.to.After(at) }

// steady reports whether things worked from one time to another, and recovered
// before from any earlier outage.
func (w *world) steady(from, to time.Time, recovery func(outage) time.Duration, things ...string) bool {
	return !slices.ContainsFunc(w.of(to, things...), func(o outage) bool {
		return o.to.IsZero() || o.to.Add(recovery(o)).After(from)
	})
}

// goneSince returns the beginning of the outage in which a thing is gone at a
// time.
func (w *world) goneSince(thing string, at time.Time) (since time.Time, ok bool) {
	for _, o := range w.of(at, thing) {
		if o.cause == gone && !o.over(at) && (!ok || o.from.Before(since)) {
			since, ok = o.from, true
		}
	}
	return since, ok
}

// grudge returns for how long resolvers of a brand may avoid a name server after
// an outage: they wait longer and longer for a silent one, PowerDNS Recursor
// always for a minute (docs/failures.md).
func grudge(brand string) func(outage) time.Duration {
	const longest = 90 * time.Second
	return func(o outage) time.Duration {
		if brand == powerDNS.name {
			return longest
		}
		return min(10*time.Second+2*o.to.Sub(o.from), longest)
	}
}

// stall is how long a process that was starved has effects: a client or a
// resolver has given up what it waited for by then.
func stall(outage) time.Duration { return 2 * patience }
