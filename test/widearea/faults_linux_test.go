package widearea

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is one thing that goes wrong during a chaos run, and when.
type fault struct {
	kind    string
	after   time.Duration // since the beginning of the run
	lasts   time.Duration
	target  string // city of the machine; for a path its first end
	other   string // its second end
	variant int    // of files and clocks
}

// kind is one kind of fault.
type kind struct {
	name        string
	class       string // faults of one class overlap seldom, or by half
	targets     []string
	least, most time.Duration // how long it lasts
}

var (
	// programCities have a program of this project each.
	programCities = slices.Concat(dnsBCities, nodeCities)

	kinds = []kind{
		{"kill DNS-LB", "node", nodeCities, 1 * time.Second, 30 * time.Second},
		{"stop DNS-LB", "node", nodeCities, 3 * time.Second, 30 * time.Second},
		{"restart DNS-LB", "node", nodeCities, 0, 5 * time.Second},
		{"cut DNS-LB off", "node", nodeCities, 3 * time.Second, 30 * time.Second},
		{"kill DNS-B", "dnsb", dnsBCities, 1 * time.Second, 20 * time.Second},
		{"stop DNS-B", "dnsb", dnsBCities, 3 * time.Second, 20 * time.Second},
		{"restart DNS-B", "dnsb", dnsBCities, 0, 5 * time.Second},
		{"cut DNS-B off", "dnsb", dnsBCities, 3 * time.Second, 20 * time.Second},
		{"kill etcd", "etcd", []string{etcdCity}, 1 * time.Second, 20 * time.Second},
		{"stop etcd", "etcd", []string{etcdCity}, 1 * time.Second, 20 * time.Second},
		{"server dies", "server", serverCities, 20 * time.Second, 50 * time.Second},
		{"server dies", "server", serverCities, 20 * time.Second, 50 * time.Second},
		{"server dies", "server", serverCities, 20 * time.Second, 50 * time.Second},
		{"cut path", "path", nil, 5 * time.Second, 30 * time.Second},
		{"lose 20 % on path", "path", nil, 10 * time.Second, 30 * time.Second},
		{"slow path", "", nil, 10 * time.Second, 40 * time.Second},
		{"reload", "", programCities, 0, 0},
		{"services file", "file", nodeCities, 8 * time.Second, 15 * time.Second},
		{"near file", "file", nodeCities, 5 * time.Second, 15 * time.Second},
		{"admin file of DNS-LB", "file", nodeCities, 8 * time.Second, 15 * time.Second},
		{"admin file of DNS-B", "file", dnsBCities, 8 * time.Second, 15 * time.Second},
		{"map file", "file", dnsBCities, 8 * time.Second, 15 * time.Second},
		{"clock off", "clock", programCities, 10 * time.Second, 40 * time.Second},
	}
)

const (
	// pause is the longest time between two faults.
	pause = 6 * time.Second
	// rest is how long a node or a DNS-B mostly waits for the last one to
	// recover, at most: longer than most grudges, so that the promise often
	// applies.
	rest = 40 * time.Second
	// seldom is the share of faults that do not wait: one in so many.
	seldom = 4
)

// plan returns the faults of a run. They follow from the seed alone, so that a
// run can be repeated.
func plan(seed uint64, length time.Duration) []fault {
	random := rand.New(rand.NewPCG(seed, 0))
	within := func(least, most time.Duration) time.Duration {
		return least + time.Duration(random.Int64N(int64(most-least)+1))
	}
	var faults []fault
	busy := make(map[string]time.Duration) // by machine and class: until when
	var deck []kind                        // each kind comes once before one comes again
	for now := within(0, pause); now < length; now += within(pause/3, pause) {
		if len(deck) == 0 {
			deck = slices.Clone(kinds)
			random.Shuffle(len(deck), func(a, b int) { deck[a], deck[b] = deck[b], deck[a] })
		}
		hurried := random.IntN(seldom) == 0
		free := slices.IndexFunc(deck, func(k kind) bool { return hurried || k.class == "" || busy[k.class] <= now })
		if free < 0 {
			continue
		}
		k := deck[free]
		deck = slices.Delete(deck, free, free+1)
		f := fault{kind: k.name, after: now, lasts: within(k.least, k.most), variant: random.IntN(100)}
		if k.targets == nil {
			f.target, f.other = randomPath(random)
		} else {
			f.target = k.targets[random.IntN(len(k.targets))]
		}
		switch k.class {
		case "node", "dnsb":
			busy[k.class] = now + f.lasts + within(0, rest)
		default:
			busy[k.class] = now + f.lasts/2
		}
		faults = append(faults, f)
	}
	return faults
}

// randomPath returns the ends of a path that this system uses.
func randomPath(random *rand.Rand) (from, to string) {
	for from == to { // no path inside a city fails
		switch random.IntN(4) {
		case 0: // resolver to node
			from, to = ispCities[random.IntN(len(ispCities))], nodeCities[random.IntN(len(nodeCities))]
		case 1: // resolver to DNS-B
			from, to = ispCities[random.IntN(len(ispCities))], dnsBCities[random.IntN(len(dnsBCities))]
		case 2: // node to server
			from, to = nodeCities[random.IntN(len(nodeCities))], serverCities[random.IntN(len(serverCities))]
		case 3: // DNS-B to node
			from, to = dnsBCities[random.IntN(len(dnsBCities))], nodeCities[random.IntN(len(nodeCities))]
		}
	}
	return from, to
}

func (f fault) String() string {
	text := f.kind + ": " + f.target
	if f.other != "" {
		text += " to " + f.other
	}
	return fmt.Sprintf("%s, for %.1f s", text, f.lasts.Seconds())
}
