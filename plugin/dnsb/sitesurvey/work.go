package sitesurvey

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

const (
	// reportWithin is how long a node has for what it was given: it sends some
	// packets, and waits between them.
	reportWithin = 3 * time.Minute
	// maxGiven is how many packets a node is to send at a time, for MaxTargets at most:
	// it can report in time even if it sends one a second, the least budget.
	maxGiven = surveymsg.MaxTargets * taskPackets
	// repeatWithin is how long the same result is taken again without effect: the
	// reply to it may be lost.
	repeatWithin = 10 * time.Minute
	// askAgain is when a node asks for work again.
	askAgain = 10 * time.Second
)

// task is an address that a node is to measure.
type task struct {
	node    *node
	site    *site // nil: it is a node
	router  bool  // the last router on the way is to be measured
	peer    *node // if site is nil
	address netip.Addr
	every   time.Duration
	given   time.Time // zero: it waits
	over    bool      // nobody waits for it any more
}

// giveUp ends a task that has no result.
func (t *task) giveUp() {
	t.over = true
	t.node.given = slices.DeleteFunc(t.node.given, func(other *task) bool { return other == t })
}

// packets returns how many packets the task takes at most.
func (t *task) packets() int {
	if t.router {
		return routerPackets
	}
	return taskPackets
}

// assign makes a node measure a site, or the last router on the way to it. mu is locked.
func (s *Survey) assign(one *site, n *node, router bool) {
	t := &task{node: n, site: one, address: one.address, router: router}
	one.tasks, n.queue = append(one.tasks, t), append(n.queue, t)
}

// Work returns what a node is to measure now, with its own addresses: what it was
// given before and did not report, and more as far as the budget allows.
func (s *Survey) Work(name string, addresses []netip.Addr, now time.Time) surveymsg.Work {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.node(name)
	if !slices.Equal(n.addresses, addresses) {
		n.addresses = slices.Clone(addresses)
	}
	n.asked = now
	packets := 0 // of what it was given
	for _, t := range n.given {
		packets += t.packets()
	}
	give := func(t *task) bool {
		if packets+t.packets() > maxGiven || !s.budget.AllowN(now, t.packets()) {
			return false
		}
		packets += t.packets()
		t.given = now
		n.given = append(n.given, t)
		return true
	}
	for _, t := range s.peers(n, now) {
		if !give(t) {
			break
		}
	}
	for len(n.queue) > 0 && (n.queue[0].over || give(n.queue[0])) {
		n.queue[0] = nil
		n.queue = n.queue[1:]
	}
	w := surveymsg.Work{Next: askAgain}
	for _, t := range n.given {
		target := surveymsg.Target{Address: t.address, Every: t.every}
		switch {
		case t.router:
			target.Method = surveymsg.Router
		case t.site != nil:
			target.Method = t.site.method
		default:
			target.Node = t.peer.name
		}
		w.Targets = append(w.Targets, target)
	}
	return w
}

// NotAskedError says that a report has a result that the node was not asked for.
type NotAskedError struct {
	Node    string
	Address netip.Addr
}

func (e *NotAskedError) Error() string {
	return fmt.Sprintf("node %s was not asked to measure %s, or too long ago: ask for work first", e.Node, e.Address)
}

// Report takes the results of a node, all of them or, with a *NotAskedError, none. A
// result that was reported a moment ago changes nothing. It returns how many
// results were new.
func (s *Survey) Report(name string, results []surveymsg.Result, now time.Time) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.node(name)
	for _, r := range results {
		if !slices.ContainsFunc(n.given, func(t *task) bool { return t.address == r.Address }) && !s.repeats(n, r, now) {
			return 0, &NotAskedError{name, r.Address}
		}
	}
	fresh := 0
	for _, r := range results {
		for _, t := range slices.Clone(n.given) { // a node may be a resolver, too
			if t.address == r.Address {
				s.finish(t, answerTo(t, r, now), now)
				fresh++
			}
		}
	}
	return fresh, nil
}

// answerTo returns what a node reported as the answer to a task. One that was not asked
// for a router has heard nothing if it reports one.
func answerTo(t *task, r surveymsg.Result, now time.Time) answer {
	a := answer{node: t.node.id, method: r.Method, outcome: r.Outcome, rtt: float32(r.RTT), at: unix(now)}
	switch ofRouter := r.Method == surveymsg.Router; {
	case ofRouter && !t.router:
		a.method, a.outcome, a.rtt = 0, surveymsg.Silent, 0
	case ofRouter:
		a.router, a.ttl = resolver.SiteOf(r.Router), r.TTL
	case t.router && r.Outcome != surveymsg.Measured:
		a.method = surveymsg.Router
	}
	return a
}

// unreported returns the answer to a task whose node has not reported it in time.
func unreported(t *task, now time.Time) answer {
	return answerTo(t, surveymsg.Result{Outcome: surveymsg.Declined}, now)
}

// repeats reports whether a result is one that was reported a moment ago. mu is
// locked.
func (s *Survey) repeats(n *node, r surveymsg.Result, now time.Time) bool {
	same := func(a answer) bool {
		method := a.method
		if a.routed() && a.outcome != surveymsg.Measured {
			method = 0
		}
		return a.node == n.id && a.outcome == r.Outcome && a.rtt == float32(r.RTT) && method == r.Method && age(a.at, now) < repeatWithin
	}
	if one := s.sites[resolver.SiteOf(r.Address)]; one != nil && (one.address == r.Address || one.other == r.Address) && slices.ContainsFunc(one.answers, same) {
		return true
	}
	return slices.ContainsFunc(s.nodes, func(other *node) bool {
		return slices.Contains(other.addresses, r.Address) && same(n.peers[other.id])
	})
}

// finish takes the answer to a task. mu is locked.
func (s *Survey) finish(t *task, a answer, now time.Time) {
	t.giveUp()
	if t.site == nil {
		s.measuredPeer(t, a)
		return
	}
	one := t.site
	one.tasks = slices.DeleteFunc(one.tasks, func(other *task) bool { return other == t })
	if a.outcome == surveymsg.Measured && !a.routed() {
		one.method = a.method
	}
	one.record(a)
	s.dirty[one] = true
	if len(one.tasks) > 0 {
		return
	}
	one.tasks = nil
	if one.checking {
		s.judge(one)
		if !s.endCheck(one) {
			s.rank(one)
			return
		}
	}
	s.advance(one, now)
}
