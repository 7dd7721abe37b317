package ranking

// rule says when a rival replaces the incumbent, the first server of a ranking.
type rule struct {
	name string
	// margin is by how many milliseconds a server must be faster to pass one
	// before it.
	margin float64
	// regret says that the incumbent is replaced by regret, not by the margin.
	regret bool
}

var rules = [...]rule{
	{name: "evidence", margin: 1, regret: true},
	{name: "margin", margin: 1},
	{name: "lowest"},
}

// Rules returns the names of the rules, the default first.
func Rules() []string {
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.name
	}
	return names
}

// The rule "evidence" adds up, for each rival of the incumbent, the time lost
// by not using the rival: its regret. All values are in milliseconds;
// docs/ranking.md compares them with other values.
const (
	// The regret at which a rival replaces the incumbent, its budget, is the
	// noise of both paths within these bounds.
	minBudget = 2
	maxBudget = 20

	// maxRegret bounds what one round adds or takes away.
	maxRegret = 10

	// Each round the incumbent gets grace times the noise of both paths, at
	// most maxGrace. Without it chance would make equally fast servers change
	// places.
	grace    = 0.05
	maxGrace = 0.5
)

func budget(a, b *Estimate) float64 { return max(minBudget, min(maxBudget, a.Noise+b.Noise)) }

// addRegret adds the latest round to the regret of each rival that is up. A round
// counts for a rival if both it and the incumbent have a new estimate.
func (r *Ranker) addRegret(est []Estimate, up []bool) {
	incumbent := &est[r.incumbent]
	for i := range r.state {
		e, s := &est[i], &r.state[i]
		switch {
		case i == r.incumbent:
		case !up[i] || !e.Measured() || !incumbent.Measured():
			s.regret = 0
		case roundTag(e.Round) != s.round && roundTag(incumbent.Round) != s.incumbentRound:
			s.round, s.incumbentRound = roundTag(e.Round), roundTag(incumbent.Round)
			b := budget(incumbent, e)
			limit := min(maxRegret, b)
			sum := float64(s.regret) + max(-limit, min(limit, incumbent.RTT-e.RTT)) - min(maxGrace, grace*(incumbent.Noise+e.Noise))
			// It also grows while the rival may not be chosen. What is long past counts no more.
			s.regret = float32(max(-b, min(2*b, sum)))
		}
	}
}

// resetRegret forgets all regret after a change of the incumbent.
func (r *Ranker) resetRegret(est []Estimate) {
	if r.incumbent == none {
		return
	}
	for i := range r.state {
		s := &r.state[i]
		s.regret, s.round, s.incumbentRound = 0, roundTag(est[i].Round), roundTag(est[r.incumbent].Round)
	}
}

// roundTag shortens the number of a round to save memory. It repeats after 91 hours: if a
// server was not compared for exactly so long, one round more does not count.
func roundTag(round uint64) uint16 { return uint16(round) } // #nosec G115 -- see above

// mayReplace reports whether the rule lets server i, which is measured, replace
// the incumbent.
func (r *Ranker) mayReplace(i int, est []Estimate) bool {
	e, incumbent := &est[i], &est[r.incumbent]
	if r.rule().regret {
		return e.Value < incumbent.Value && float64(r.state[i].regret) > budget(incumbent, e)
	}
	return e.Value < incumbent.Value-r.rule().margin
}
