package sitesurvey

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// SiteState is what has come of a site so far, a label value of metrics.
type SiteState string

const (
	StateMeasured   SiteState = "measured"   // the map has it
	StateSearching  SiteState = "searching"  // nodes measure it, or are about to, for the first time
	StateSilent     SiteState = "silent"     // nothing answers
	StateUnmeasured SiteState = "unmeasured" // no node could measure it
	StateRouter     SiteState = "router"     // nothing answers but a router on the way: the map has the latencies to that
)

// SiteStates are all states.
var SiteStates = []SiteState{StateMeasured, StateSearching, StateSilent, StateUnmeasured, StateRouter}

// SiteStatus describes a site, as a Go value and as JSON.
type SiteStatus struct {
	Prefix  netip.Prefix   `json:"prefix"`
	State   SiteState      `json:"state"`
	Address netip.Addr     `json:"address"`         // that is measured
	Router  netip.Prefix   `json:"router,omitzero"` // network of the router whose latencies are those of the site; absent: they are its own
	Answers []AnswerStatus `json:"answers"`         // of the last search, the lowest latency first
}

// AnswerStatus is what a node reported of a site.
type AnswerStatus struct {
	Node    string    `json:"node"`
	Outcome string    `json:"outcome"` // see the constants
	RTT     float64   `json:"rtt_ms,omitempty"`
	Method  string    `json:"method,omitempty"` // router: the latency is that of a router on the way
	At      time.Time `json:"at"`

	Router netip.Prefix `json:"router,omitzero"` // network of the router
	TTL    uint8        `json:"ttl,omitempty"`   // of the packets to which it answered
}

// The values of AnswerStatus.Outcome.
const (
	OutcomeMeasured    = "measured"
	OutcomeSilent      = "silent"
	OutcomeDeclined    = "declined"
	OutcomeImplausible = "implausible"  // others contradict it, or nobody can tell
	OutcomeOtherRouter = "other router" // it does not compare with what other nodes measured
)

func (a answer) status() string {
	switch {
	case a.implausible:
		return OutcomeImplausible
	case a.stray:
		return OutcomeOtherRouter
	case a.outcome == surveymsg.Silent:
		return OutcomeSilent
	case a.outcome == surveymsg.Declined:
		return OutcomeDeclined
	}
	return OutcomeMeasured
}

// Site returns the status of the site of an address, and false for a site that is
// not in the survey.
func (s *Survey) Site(addr netip.Addr) (SiteStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sites[resolver.SiteOf(addr)]
	if one == nil {
		return SiteStatus{}, false
	}
	status := SiteStatus{Prefix: one.id.Prefix(), State: one.state(), Address: one.address, Answers: make([]AnswerStatus, 0, len(one.answers))}
	for _, a := range one.answers {
		as := AnswerStatus{Node: s.nodes[a.node].name, Outcome: a.status(), At: time.Unix(int64(a.at), 0)}
		if a.outcome == surveymsg.Measured {
			as.RTT, as.Method = float64(a.rtt), a.method.String()
		}
		if a.hasRouter() {
			as.Router, as.TTL = a.router.Prefix(), a.ttl
		}
		if a.routed() && a.usable() && status.State == StateRouter {
			status.Router = as.Router
		}
		status.Answers = append(status.Answers, as)
	}
	slices.SortFunc(status.Answers, func(a, b AnswerStatus) int {
		switch {
		case (a.Outcome == OutcomeMeasured) != (b.Outcome == OutcomeMeasured):
			if a.Outcome == OutcomeMeasured {
				return -1
			}
			return 1
		case a.RTT < b.RTT:
			return -1
		case a.RTT > b.RTT:
			return 1
		}
		return strings.Compare(a.Node, b.Node)
	})
	return status, true
}

// SiteSummary is what the survey knows of a site, in short, as a Go value and as JSON.
type SiteSummary struct {
	State    SiteState `json:"state"`
	Reported int       `json:"reported"`          // nodes that have measured it, or tried to, in the last search
	Nearest  string    `json:"nearest,omitempty"` // node, so far; absent: none has a latency that counts
	RTT      float64   `json:"rtt_ms,omitempty"`  // of this node
}

// Summaries returns what the survey knows of the sites with these prefixes, nil for
// one that is not in the survey.
func (s *Survey) Summaries(prefixes []netip.Prefix) []*SiteSummary {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*SiteSummary, len(prefixes))
	for i, prefix := range prefixes {
		if one := s.sites[resolver.SiteOf(prefix.Addr())]; one != nil {
			all[i] = s.summary(one)
		}
	}
	return all
}

// summary describes a site. mu is locked.
func (s *Survey) summary(one *site) *SiteSummary {
	sum := &SiteSummary{State: one.state(), Reported: len(one.answers)}
	if one.published != nil {
		first := one.published.Measured[0]
		sum.Nearest, sum.RTT = s.nodes[first.Node].name, first.Milliseconds()
		return sum
	}
	for _, a := range one.answers {
		if a.usable() && (sum.Nearest == "" || float64(a.rtt) < sum.RTT) {
			sum.Nearest, sum.RTT = s.nodes[a.node].name, float64(a.rtt)
		}
	}
	return sum
}

func (one *site) state() SiteState {
	switch {
	case one.published != nil && one.published.Routed:
		return StateRouter
	case one.published != nil:
		return StateMeasured
	case len(one.tasks) > 0 || len(one.answers) == 0:
		return StateSearching
	case one.pause() == hourly:
		return StateUnmeasured
	}
	return StateSilent
}

// Status is the state of a survey, as a Go value and as JSON.
type Status struct {
	Sites   map[SiteState]int `json:"sites"`
	Waiting int               `json:"waiting"` // sites that nodes measure now, or are about to
	Nodes   []NodeStatus      `json:"nodes"`   // that ever took part, by name
}

// NodeStatus is a node that measures.
type NodeStatus struct {
	Node        string    `json:"node"`
	Asked       time.Time `json:"asked,omitzero"` // for work, last; zero: not since the start
	Given       int       `json:"given"`          // addresses that it measures now
	Implausible int       `json:"implausible"`    // of its latencies, that others contradict
}

// Status returns the state of the survey. It looks at all sites.
func (s *Survey) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Sites: make(map[SiteState]int), Nodes: make([]NodeStatus, len(s.nodes))}
	for i, n := range s.nodes {
		out.Nodes[i] = NodeStatus{Node: n.name, Asked: n.asked, Given: len(n.given)}
	}
	for _, one := range s.list {
		out.Sites[one.state()]++
		if len(one.tasks) > 0 {
			out.Waiting++
		}
		for _, a := range one.answers {
			if a.implausible {
				out.Nodes[a.node].Implausible++
			}
		}
	}
	slices.SortFunc(out.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	return out
}
