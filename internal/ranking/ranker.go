package ranking

import (
	"fmt"
	"slices"
	"strings"
)

// Cause says why a decision changed the first server. It is the value of a
// metric label.
type Cause string

// Causes of a change.
const (
	Unchanged Cause = ""         // the first server is the same
	First     Cause = "first"    // the first decision, or a server measured for the first time is faster
	Lower     Cause = "lower"    // the rule found a faster server
	Down      Cause = "down"     // the first server is no longer eligible; the order may be empty
	Up        Cause = "up"       // no server was eligible; or none is measured and an earlier one in configured order is eligible again
	Followed  Cause = "followed" // the node that is followed chose another server
)

const none = -1

// Ranker ranks the servers of one service and keeps the state of the decision.
// It is not safe for concurrent use. There may be many, so it has 40 bytes.
type Ranker struct {
	state     []state // by server
	incumbent int     // first server of the last decision, or none
	ruleIndex uint8   // of rules
	decided   bool
}

// MaxServers is how many servers a Ranker can rank: their places have 16 bits.
const MaxServers = 1<<16 - 1

// state is what a Ranker remembers of one server. There may be millions, so it has
// 12 bytes.
type state struct {
	// Of the server as a rival of the incumbent. The rounds are those that
	// were counted last.
	regret                float32 // milliseconds, summed over rounds
	round, incumbentRound uint16

	ranked bool // was eligible and measured in an earlier decision

	// inPlace is not of this server: at index n of all states, it is the server that
	// was in place n in the last decision.
	inPlace uint16
}

// NewRanker returns a Ranker for a number of servers, which are identified by
// their indexes in configured order. An empty rule is the default rule. It
// fails for an unknown rule, and for more than MaxServers.
func NewRanker(rule string, servers int) (Ranker, error) {
	i := 0
	if rule != "" {
		if i = slices.Index(Rules(), rule); i < 0 {
			return Ranker{}, fmt.Errorf("unknown rule '%s', expected one of: %s", rule, strings.Join(Rules(), ", "))
		}
	}
	if servers > MaxServers {
		return Ranker{}, fmt.Errorf("%d servers, more than the %d that can be ranked", servers, MaxServers)
	}
	r := Ranker{ruleIndex: uint8(i), state: make([]state, servers), incumbent: none} // #nosec G115 -- there are few rules
	for i := range r.state {
		r.state[i].inPlace = uint16(i) // #nosec G115 -- less than MaxServers
	}
	return r, nil
}

// Rule returns the name of the rule.
func (r *Ranker) Rule() string { return r.rule().name }

func (r *Ranker) rule() *rule { return &rules[r.ruleIndex] }

// Adopt copies what old knows of the servers that both have, so that a change
// of the configuration does not switch a service. oldIndex has the index of
// each server in old, or -1 for a new server. Adopt must be called before the
// first Decide.
func (r *Ranker) Adopt(old *Ranker, oldIndex []int) {
	oldPosition := make([]int, len(old.state))
	for pos, s := range old.state {
		oldPosition[s.inPlace] = pos
	}
	// New servers come last, in configured order.
	position := make([]int, len(r.state))
	order := make([]int, len(r.state))
	for i, j := range oldIndex {
		order[i] = i
		if j < 0 {
			position[i] = len(oldPosition)
			continue
		}
		position[i] = oldPosition[j]
		s := &old.state[j]
		r.state[i] = state{regret: s.regret, round: s.round, incumbentRound: s.incumbentRound, ranked: s.ranked}
		if j == old.incumbent {
			r.incumbent = i
			r.decided = true
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return position[a] - position[b] })
	for n, i := range order {
		r.state[n].inPlace = uint16(i) // #nosec G115 -- less than MaxServers
	}
}

// Decide ranks the servers; est, eligible and up are indexed by server. It returns
// the indexes of all eligible servers, best first, in a slice that belongs to
// the caller. Servers that were never measured come last, in configured order.
//
// A rule takes only estimates of rounds that it has not seen, so deciding twice
// in a round changes nothing. Eligibility takes effect immediately: an
// incumbent that is not eligible is replaced by the fastest server, and has to
// win its place by the rule when it is eligible again. What was measured meanwhile
// counts for that if the server was up, and not eligible for another reason.
func (r *Ranker) Decide(est []Estimate, eligible, up []bool) (order []int, cause Cause) {
	previous := r.incumbent
	if previous != none && eligible[previous] && r.rule().regret {
		r.addRegret(est, up)
	}
	fastest := none       // of all measured servers
	newlyMeasured := none // fastest of the servers measured for the first time
	rival := none         // fastest of the servers that may replace the incumbent
	for i := range r.state {
		e, s := &est[i], &r.state[i]
		s.ranked = s.ranked && e.Measured() // a change of the probe method drops the estimate
		if !eligible[i] || !e.Measured() {
			continue
		}
		if fastest == none || e.Value < est[fastest].Value {
			fastest = i
		}
		if !s.ranked && (newlyMeasured == none || e.Value < est[newlyMeasured].Value) {
			newlyMeasured = i
		}
		s.ranked = true
		if previous != none && r.mayReplace(i, est) && (rival == none || e.Value < est[rival].Value) {
			rival = i
		}
	}

	switch {
	case fastest == none && previous != none && eligible[previous]:
		// After a change of the probe method nothing is measured: no reason
		// to switch.
	case fastest == none:
		// Nothing is measured: configured order.
		r.incumbent = slices.Index(eligible, true)
		switch {
		case !r.decided:
			cause = First
		case previous != none && !eligible[previous]:
			cause = Down
		default:
			cause = Up
		}
	case previous == none:
		r.incumbent, cause = fastest, Up
		if !r.decided {
			cause = First
		}
	case !eligible[previous]:
		r.incumbent, cause = fastest, Down
	case !est[previous].Measured():
		r.incumbent, cause = fastest, First
	case newlyMeasured != none && est[newlyMeasured].Value < est[previous].Value:
		// The first samples of the servers come within seconds of each other.
		// A choice among those that came first has no incumbent to protect.
		r.incumbent, cause = newlyMeasured, First
	case rival != none:
		r.incumbent, cause = rival, Lower
	}
	if r.incumbent == previous {
		cause = Unchanged
	} else {
		r.resetRegret(est)
	}
	r.decided = r.decided || r.incumbent != none
	return r.sort(est, eligible), cause
}

// Follow ranks as Decide does, but takes the first server from another node,
// which knows more. The server must be eligible. A later Decide continues from
// this state.
func (r *Ranker) Follow(first int, est []Estimate, eligible []bool) (order []int, cause Cause) {
	for i := range r.state {
		s := &r.state[i]
		s.ranked = est[i].Measured() && (s.ranked || eligible[i])
	}
	previous := r.incumbent
	switch {
	case first == previous:
		return r.sort(est, eligible), Unchanged
	case !r.decided:
		cause = First
	case previous != none && !eligible[previous]:
		cause = Down
	default:
		cause = Followed
	}
	r.incumbent, r.decided = first, true
	r.resetRegret(est)
	return r.sort(est, eligible), cause
}

// sort updates the order and returns its eligible servers. A server passes the
// servers before it that are slower by more than the margin, so the order of
// nearly equal servers stays the same.
func (r *Ranker) sort(est []Estimate, eligible []bool) []int {
	order, margin := make([]int, 0, len(r.state)), r.rule().margin
	for _, s := range r.state {
		i := int(s.inPlace)
		to := len(order)
		for m, j := range order {
			if r.passes(i, j, est, margin) {
				to = m
				break
			}
		}
		order = slices.Insert(order, to, i)
	}
	for n, i := range order {
		r.state[n].inPlace = uint16(i) // #nosec G115 -- less than MaxServers
	}
	return slices.DeleteFunc(order, func(i int) bool { return !eligible[i] })
}

// passes reports whether server i goes before server j, which is before it now.
func (r *Ranker) passes(i, j int, est []Estimate, margin float64) bool {
	switch {
	case i == r.incumbent || j == r.incumbent:
		return i == r.incumbent
	case est[i].Measured() && est[j].Measured():
		return est[i].Value < est[j].Value-margin
	case !est[i].Measured() && !est[j].Measured():
		return i < j
	}
	return est[i].Measured()
}
