package dnsb

import (
	"cmp"
	"embed"
	"html/template"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

//go:embed page.html page.css
var pageFiles embed.FS

// look is how the zone looks in the status page.
var look = status.NewLook(pageFiles, template.FuncMap{
	"nodeBadge": nodeBadge, "updateBadge": updateBadge, "attentionFirst": attentionFirst, "countStates": countStates, "mapOf": newMapView, "rate": perSecond,
	"siteBadge": siteBadge, "inSurvey": inSurvey,
})

// badgeKinds are those of the states of nodes and candidates.
var badgeKinds = map[string]string{
	string(nodeLive): "good", string(nodeStale): "warn", string(nodeDead): "bad", string(nodeDrained): "idle",
	stateDenied: "idle", stateAbsent: "bad", stateOther: "idle",
}

// nodeBadge returns the state of a node.
func nodeBadge(state string) (template.HTML, error) { return status.Badge(badgeKinds[state], state) }

// updateBadge returns the result of an UPDATE.
func updateBadge(result string) (template.HTML, error) {
	kind := "bad"
	switch registry.Outcome(result) {
	case registry.Added, registry.Changed, registry.Refreshed, partial, nothing:
		kind = "good"
	case registry.Withdrawn:
		kind = "idle"
	case prerequisiteFailed:
		kind = "warn"
	}
	return status.Badge(kind, result)
}

// byAttention are the states of nodes, those first that need attention.
var byAttention = [...]nodeState{nodeDead, nodeStale, nodeDrained, nodeLive}

// attentionFirst returns nodes by what they need: the dead ones first, then by name.
func attentionFirst(nodes []NodeStatus) []NodeStatus {
	urgency := func(n NodeStatus) int { return slices.Index(byAttention[:], nodeState(n.State)) }
	return slices.SortedStableFunc(slices.Values(nodes), func(a, b NodeStatus) int { return cmp.Compare(urgency(a), urgency(b)) })
}

// stateCount is how many nodes are in a state.
type stateCount struct {
	State string
	Count int
}

// countStates returns the states that nodes are in.
func countStates(nodes []NodeStatus) (counts []stateCount) {
	for _, state := range slices.Backward(byAttention[:]) {
		c := stateCount{State: string(state)}
		for _, n := range nodes {
			if n.State == c.State {
				c.Count++
			}
		}
		if c.Count > 0 {
			counts = append(counts, c)
		}
	}
	return counts
}

// siteBadge returns the state of a resolver site in the survey.
func siteBadge(state sitesurvey.SiteState) (template.HTML, error) {
	kind := "idle"
	switch state {
	case sitesurvey.StateMeasured:
		kind = "good"
	case sitesurvey.StateSearching, sitesurvey.StateRouter:
		kind = "new"
	case sitesurvey.StateSilent:
		kind = "warn"
	}
	return status.Badge(kind, state)
}

// inSurvey reports whether the survey knows something of one of these sites.
func inSurvey(sites []UnmappedPrefix) bool {
	return slices.ContainsFunc(sites, func(p UnmappedPrefix) bool { return p.Survey != nil })
}

// perSecond returns how many referrals there were in a second.
func perSecond(r Referrals) float64 { return float64(r.Count) / max(1, time.Since(r.Since).Seconds()) }
