package dnsb

import (
	"fmt"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// Survey returns the state of the survey, nil if there is none.
func (d *DNSB) Survey() *sitesurvey.Status {
	if d.conf.survey == nil {
		return nil
	}
	status := d.zone.survey.Status()
	return &status
}

// surveyLines tells the state of the survey as text.
func (d *DNSB) surveyLines() []string {
	s := d.Survey()
	if s == nil {
		return []string{"no survey"}
	}
	words := make([]string, len(sitesurvey.SiteStates))
	for i, state := range sitesurvey.SiteStates {
		words[i] = fmt.Sprintf("%d %s", s.Sites[state], state)
		if state == sitesurvey.StateRouter {
			words[i] = fmt.Sprintf("%d measured by a router on the way", s.Sites[state])
		}
	}
	lines := []string{fmt.Sprintf("sites: %s; %d being measured", strings.Join(words, ", "), s.Waiting)}
	for _, n := range s.Nodes {
		line := n.Node + " has not asked for work since the start"
		if !n.Asked.IsZero() {
			line = fmt.Sprintf("%s asked for work at %s, measures %s", n.Node, explain.Time(n.Asked), plural.Of(n.Given, "address"))
		}
		if n.Implausible > 0 {
			line += ", " + plural.Of(n.Implausible, "implausible latency")
		}
		lines = append(lines, line)
	}
	return lines
}

// siteLines tells what the survey knows of a site.
func siteLines(s *sitesurvey.SiteStatus) []string {
	if s == nil {
		return nil
	}
	lines := []string{fmt.Sprintf("survey: %s is %s, by %s", s.Prefix, s.State, s.Address)}
	if s.State == sitesurvey.StateRouter {
		lines[0] = fmt.Sprintf("survey: %s is silent, by %s; the latencies are those of a router on the way, in %s", s.Prefix, s.Address, s.Router)
	}
	for _, a := range s.Answers {
		lines = append(lines, "survey: "+answerText(a)+" at "+explain.Time(a.At))
	}
	return lines
}

func answerText(a sitesurvey.AnswerStatus) string {
	text := a.Node + " " + a.Outcome
	switch {
	case a.Router.IsValid():
		if a.Outcome == sitesurvey.OutcomeOtherRouter {
			text = a.Node + " measured"
		}
		text += fmt.Sprintf(" %.1f ms to a router in %s by TTL %d", a.RTT, a.Router, a.TTL)
		if a.Outcome == sitesurvey.OutcomeOtherRouter {
			text += ", which does not count,"
		}
	case a.Method != "":
		text += fmt.Sprintf(" %.1f ms by %s", a.RTT, a.Method)
	}
	return text
}

// surveySource says which measurement is that of a node.
func (s *snapshot) surveySource(n *node, at considered) string {
	site := s.sites.Get(at.prefix)
	if site == nil {
		return ""
	}
	for _, m := range site.Measured {
		if s.surveyNodes[m.Node] == n.id {
			of := ""
			if site.Routed {
				of = " to a router on the way"
			}
			return fmt.Sprintf("%.1f ms%s, measured at %s", m.Milliseconds(), of, explain.Time(m.At))
		}
	}
	return ""
}
