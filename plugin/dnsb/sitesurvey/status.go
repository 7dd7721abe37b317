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
)

// SiteStates are all states.
var SiteStates = []SiteState{StateMeasured, StateSearching, StateSilent, StateUnmeasured}

// SiteStatus describes a site, as a Go value and as JSON.
type SiteStatus struct {
	Prefix  netip.Prefix   `json:"prefix"`
	State   SiteState      `json:"state"`
	Address netip.Addr     `json:"address"` // that is measured
	Answers []AnswerStatus `json:"answers"` // of the last search, the lowest latency first
}

// AnswerStatus is what a node reported of a site.
type AnswerStatus struct {
	Node    string    `json:"node"`
	Outcome string    `json:"outcome"` // measured, silent, declined, or implausible: others contradict it
	RTT     float64   `json:"rtt_ms,omitempty"`
	Method  string    `json:"method,omitempty"`
	At      time.Time `json:"at"`
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
		as := AnswerStatus{Node: s.nodes[a.node].name, At: time.Unix(int64(a.at), 0)}
		switch {
		case a.implausible:
			as.Outcome = "implausible"
		case a.outcome == surveymsg.Silent:
			as.Outcome = "silent"
		case a.outcome == surveymsg.Declined:
			as.Outcome = "declined"
		default:
			as.Outcome = "measured"
		}
		if a.outcome == surveymsg.Measured {
			as.RTT, as.Method = float64(a.rtt), a.method.String()
		}
		status.Answers = append(status.Answers, as)
	}
	slices.SortFunc(status.Answers, func(a, b AnswerStatus) int {
		switch {
		case (a.Outcome == "measured") != (b.Outcome == "measured"):
			if a.Outcome == "measured" {
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
