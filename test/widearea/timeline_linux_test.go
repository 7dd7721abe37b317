package widearea

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"
)

// mark is a moment at which a fault began or ended.
type mark struct {
	at   time.Time
	kind string
	text string
}

// journal is what a chaos run did and saw. Many goroutines write to it.
type journal struct {
	mu        sync.Mutex
	marks     []mark
	results   []result
	sightings []sighting
	starved   map[string]*starvation // by thing
}

// starvation is how often a process was starved, and for how long at most.
type starvation struct {
	times   int
	longest time.Duration
}

func (j *journal) starvation(thing string, waited time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.starved[thing]
	if s == nil {
		s = new(starvation)
		j.starved[thing] = s
	}
	s.times++
	s.longest = max(s.longest, waited)
}

// mark notes the beginning or the end of a fault. Marks without a kind are
// comments.
func (j *journal) mark(kind, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.marks = append(j.marks, mark{time.Now(), kind, fmt.Sprintf(format, args...)})
}

func (j *journal) result(r result) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.results = append(j.results, r)
}

func (j *journal) sighting(s sighting) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sightings = append(j.sightings, s)
}

// between returns an oracle for what was seen in a time.
func (j *journal) between(from, to time.Time, w *world, referralTTL time.Duration) *oracle {
	j.mu.Lock()
	defer j.mu.Unlock()
	o := &oracle{world: w, referralTTL: referralTTL, from: from}
	for _, r := range j.results {
		if r.end.Before(to) {
			o.results = append(o.results, r)
		}
	}
	for _, s := range j.sightings {
		if s.at.Before(to) {
			o.sightings = append(o.sightings, s)
		}
	}
	slices.SortFunc(o.results, func(a, b result) int { return a.start.Compare(b.start) })
	slices.SortFunc(o.sightings, func(a, b sighting) int { return a.at.Compare(b.at) })
	return o
}

// healing is the longest time from a mark of a kind to the end of a query that
// did not get the address of a live server, before the next mark.
func (j *journal) healing(w *world) (times map[string]time.Duration, faults map[string]int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	times, faults = make(map[string]time.Duration), make(map[string]int)
	var marks []mark
	for _, m := range j.marks {
		if m.kind != "" {
			marks = append(marks, m)
			faults[m.kind]++
		}
	}
	for _, r := range j.results {
		if !r.failed() {
			if _, dead := w.goneSince(serverIn(r.server), r.start); !dead {
				continue
			}
		}
		next, _ := slices.BinarySearchFunc(marks, r.end, func(m mark, at time.Time) int { return m.at.Compare(at) })
		if next > 0 {
			last := marks[next-1]
			times[last.kind] = max(times[last.kind], r.end.Sub(last.at))
		}
	}
	return times, faults
}

// report is the timeline and the counts in words.
func (j *journal) report(v *verdict, w *world) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\nChaos, timeline:\n")
	j.mu.Lock()
	for _, m := range j.marks {
		fmt.Fprintf(&out, "  %s  %s\n", m.at.Format(clockTime), m.text)
	}
	for _, thing := range sortedKeys(j.starved) {
		s := j.starved[thing]
		fmt.Fprintf(&out, "  Not judged, as it waited for a core: %s, %d times, %.1f s at most\n", thing, s.times, s.longest.Seconds())
	}
	j.mu.Unlock()

	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\n  kind of fault\tmarks\tlongest time to heal s")
	times, faults := j.healing(w)
	for _, kind := range sortedKeys(faults) {
		fmt.Fprintf(t, "  %s\t%d\t%.1f\n", kind, faults[kind], times[kind].Seconds())
	}
	fmt.Fprintln(t, "\n  resolver\tqueries\tanswers\tpromised\tfailed outside\tfailed inside\tsilent outside\tsilent inside\tdead server\tdead too long")
	for _, brand := range sortedKeys(v.brands) {
		c := v.brands[brand]
		fmt.Fprintf(t, "  %s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", brand, c.queries, c.answers, c.promised,
			c.failures, c.broken, c.noReply, c.promisedQuiet, c.dead, c.stale)
	}
	_ = t.Flush()
	fmt.Fprintf(&out, "\n  Replies of DNS-Bs: %d, judged: %d. Broken promises: %d.\n", v.referrals.all, v.referrals.judged, len(v.broken))
	for _, broken := range v.broken[:min(len(v.broken), 50)] {
		fmt.Fprintf(&out, "  BROKEN %s\n", broken)
	}
	return out.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// outcome returns what a client got.
func (l *lab) outcome(i *isp, q question, start time.Time, reply *dns.Msg, err error) result {
	r := result{city: i.city, brand: i.kind.name, question: q, start: start, end: time.Now(), answered: err == nil}
	if err != nil {
		return r
	}
	r.rcode = reply.Rcode
	for _, addr := range addresses(reply) {
		for city, h := range l.servers {
			if slices.Contains(h.Addrs, addr) {
				r.server = city
			}
		}
	}
	return r
}
