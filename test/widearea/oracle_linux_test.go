package widearea

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// The oracle decides which answers break the promise of docs/failures.md, after
// a chaos run, from the state of the world alone:
//
//   - A resolver gets an answer for its clients, and not SERVFAIL, as long as
//     one DNS-B and one node of each referral that the resolver may hold work,
//     with the paths to them.
//   - No answer names a server that is dead for longer than the time to detect
//     that and the TTL of the answer.
//   - No referral names a node that is dead for longer than the time to detect
//     that, as long as another node works.
//
// It does not decide where a process was starved, or the state of the world is
// not clear.

// result is what one query of a client came to.
type result struct {
	city       string // of the client and its resolver
	brand      string // of the resolver
	question   question
	start, end time.Time
	answered   bool // a reply came
	rcode      int
	server     string // city of the server in the answer, empty without an address
}

func (r result) failed() bool { return r.server == "" }

func (r result) String() string {
	what := "no reply"
	switch {
	case r.server != "":
		what = r.server
	case r.answered && r.rcode == dns.RcodeSuccess:
		what = "no address"
	case r.answered:
		what = dns.RcodeToString[r.rcode]
	}
	return fmt.Sprintf("%s, %s in %s, %s: %s", r.start.Format(clockTime), r.brand, r.city, r.question, what)
}

// sighting is the reply of a DNS-B to a query from an address of a resolver. The
// two addresses of a resolver may get different referrals.
type sighting struct {
	resolver, dnsB string     // cities
	to             netip.Addr // of the DNS-B
	at             time.Time
	rcode          int
	nodes          []string // cities of the nodes in a referral
}

func (s sighting) String() string {
	return fmt.Sprintf("%s, DNS-B in %s at %s for the resolver in %s: %s %v", s.at.Format(clockTime), s.dnsB, s.to, s.resolver, dns.RcodeToString[s.rcode], s.nodes)
}

// clockTime is the form of times in the timeline.
const clockTime = "15:04:05.0"

// oracle has what a chaos run saw, each list by time.
type oracle struct {
	*world
	referralTTL time.Duration
	from        time.Time // what was seen before is not judged
	results     []result
	sightings   []sighting

	referrals map[string][]sighting // sightings with nodes, by resolver
}

// verdict is what the oracle found.
type verdict struct {
	brands    map[string]*counts
	referrals struct{ all, judged int }
	broken    []string // broken promises, in words
}

// counts are numbers of queries through one brand of resolvers.
type counts struct {
	queries, answers      int
	promised              int // queries to which the promise of an answer applied
	failures, noReply     int // outside of it: failures with a reply, and queries without one
	broken, promisedQuiet int // the same inside of it
	dead                  int // answers with a dead server, while that was allowed
	stale                 int // and after that
}

// failureCache is how long a brand repeats a failure from its cache.
func failureCache(brand string) time.Duration {
	if brand == powerDNS.name {
		return 60 * time.Second
	}
	return 5 * time.Second
}

// judge decides on everything that was seen.
func (o *oracle) judge() *verdict {
	o.referrals = make(map[string][]sighting)
	v := &verdict{brands: make(map[string]*counts)}
	for _, s := range o.sightings {
		if len(s.nodes) > 0 {
			o.referrals[s.resolver] = append(o.referrals[s.resolver], s)
		}
		if s.at.Before(o.from) {
			continue
		}
		v.referrals.all++
		judged, broken := o.judgeReferral(s)
		if judged {
			v.referrals.judged++
		}
		if broken != "" {
			v.broken = append(v.broken, s.String()+": "+broken)
		}
	}
	type asker struct {
		city     string
		question question
	}
	// A failure that is repeated from the cache counts as the first one.
	type failure struct {
		at       time.Time
		promised bool
	}
	cached := make(map[asker]failure)
	for _, r := range o.results {
		promised := o.promised(r)
		who := asker{r.city, r.question}
		if r.failed() && r.answered {
			if first, ok := cached[who]; ok && r.start.Sub(first.at) < failureCache(r.brand) {
				promised = promised && first.promised
			} else {
				cached[who] = failure{r.start, promised}
			}
		} else if !r.failed() {
			delete(cached, who)
		}
		if r.start.Before(o.from) {
			continue
		}
		c := v.brands[r.brand]
		if c == nil {
			c = new(counts)
			v.brands[r.brand] = c
		}
		c.queries++
		if promised {
			c.promised++
		}
		switch {
		case !r.failed():
			c.answers++
			switch dead, stale := o.judgeServer(r); {
			case stale:
				c.stale++
				v.broken = append(v.broken, r.String()+": the server is dead for too long")
			case dead:
				c.dead++
			}
		case r.answered && promised:
			c.broken++
			v.broken = append(v.broken, r.String()+": a DNS-B and a node of each referral worked")
		case r.answered:
			c.failures++
		case promised:
			c.promisedQuiet++
		default:
			c.noReply++
		}
	}
	return v
}

// promised reports whether the promise of an answer applies to a query.
func (o *oracle) promised(r result) bool {
	if !o.steady(r.start, r.end, stall, harness, resolverIn(r.city)) {
		return false
	}
	works := func(thing, city string) bool {
		return o.steady(r.start, r.end, grudge(r.brand), thing, pathOf(r.city, city))
	}
	if !slices.ContainsFunc(dnsBCities, func(city string) bool { return works(dnsBIn(city), city) }) {
		return false
	}
	held := o.mayHold(r)
	return len(held) > 0 && !slices.ContainsFunc(held, func(s sighting) bool {
		return !slices.ContainsFunc(s.nodes, func(city string) bool { return works(nodeIn(city), city) })
	})
}

// mayHold returns the referrals that a resolver may hold during a query: those
// that it could have got within the TTL, and the last ones before.
func (o *oracle) mayHold(r result) []sighting {
	all := o.referrals[r.city]
	from := r.start.Add(-o.referralTTL - overhead)
	first, _ := slices.BinarySearchFunc(all, from, func(s sighting, at time.Time) int { return s.at.Compare(at) })
	end, _ := slices.BinarySearchFunc(all, r.end, func(s sighting, at time.Time) int { return s.at.Compare(at) })
	held := slices.Clone(all[first:end])
	last := make(map[netip.Addr]bool)
	for _, s := range slices.Backward(all[:first]) {
		if !last[s.to] {
			last[s.to] = true
			held = append(held, s)
		}
		if len(last) == 2*len(dnsBCities) {
			break
		}
	}
	return held
}

// judgeServer reports whether the server in an answer was dead, and whether it
// was dead for so long that no answer may name it.
func (o *oracle) judgeServer(r result) (dead, stale bool) {
	since, dead := o.goneSince(serverIn(r.server), r.start)
	if !dead {
		return false, false
	}
	const cached = answerTTL + overhead
	if !o.steady(r.start.Add(-cached), r.end, stall, harness, resolverIn(r.city)) {
		return true, false
	}
	for _, node := range nodeCities {
		// A node that was stopped answers what it got meanwhile when it goes on.
		last, ok := o.lastAnswer(node, r.server, since, r.end)
		if !ok || !r.start.After(last.Add(cached)) {
			return true, false
		}
	}
	return true, true
}

// lastAnswer returns until when a node may answer with a server that is dead
// since a time; ok is false if that is not clear.
func (o *oracle) lastAnswer(node, server string, since, now time.Time) (last time.Time, ok bool) {
	last = since
	// Without another server that is up the node keeps the last ranking.
	others := slices.DeleteFunc(slices.Clone(serverCities), func(city string) bool { return city == server })
	other, ok := o.firstUp(others, now, func(city string) []string { return []string{serverIn(city), pathOf(node, city)} })
	if !ok {
		return time.Time{}, false
	}
	if other.After(last) {
		last = other
	}
	// What the node has not noticed when an outage of the node begins, it has
	// to notice again.
	for _, out := range o.of(now, nodeIn(node)) {
		switch {
		case out.over(now):
			if out.to.After(last) {
				last = out.to
			}
		case out.cause == gone:
			if known := last.Add(down); known.Before(out.from) {
				return known, true
			}
			return out.from, true
		default:
			return time.Time{}, false
		}
	}
	return last.Add(down), true
}

// firstUp returns since when at least one city is up for the prober of a
// machine: the things of the city work. That they are held down does not count:
// what works is better than what does not.
func (o *oracle) firstUp(cities []string, now time.Time, things func(city string) []string) (since time.Time, ok bool) {
	for _, city := range cities {
		at, recovered := time.Time{}, true
		outages := o.of(now, things(city)...)
		for _, out := range outages {
			if !out.over(now) {
				recovered = false
				break
			}
			if out.to.Add(up).After(at) {
				at = out.to.Add(up)
			}
		}
		if recovered && (!ok || at.Before(since)) {
			since, ok = at, true
		}
	}
	return since, ok
}

// judgeReferral reports whether something is promised of the reply of a DNS-B,
// and in what it breaks the promise.
func (o *oracle) judgeReferral(s sighting) (judged bool, broken string) {
	self := []string{dnsBIn(s.dnsB), pathOf(s.dnsB, s.resolver)}
	if !o.steady(s.at, s.at, stall, append(self, harness)...) {
		return false, ""
	}
	if len(s.nodes) == 0 {
		return true, "it knows nodes"
	}
	for _, node := range s.nodes {
		last, dead := o.goneSince(nodeIn(node), s.at)
		if !dead {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(nodeCities), func(city string) bool { return city == node })
		other, ok := o.firstUp(others, s.at, func(city string) []string { return []string{nodeIn(city), pathOf(s.dnsB, city)} })
		if !ok {
			return false, ""
		}
		if other.After(last) {
			last = other
		}
		for _, out := range o.of(s.at, dnsBIn(s.dnsB)) {
			if out.to.After(last) {
				last = out.to
			}
		}
		if s.at.After(last.Add(down + overhead)) {
			return true, "the node in " + node + " is dead for too long"
		}
	}
	return true, ""
}
