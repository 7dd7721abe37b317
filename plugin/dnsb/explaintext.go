package dnsb

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// list is what can be asked for at LIST._explain.ZONE.
type list struct {
	lines  func(*DNSB) []string
	values func(*DNSB) []explain.Value // the same as JSON
}

var lists = map[string]list{
	"nodes":    {(*DNSB).nodeLines, (*DNSB).nodeValues},
	"unmapped": {(*DNSB).unmappedLines, (*DNSB).unmappedValues},
	"overlaps": {(*DNSB).overlapLines, (*DNSB).overlapValues},
	"survey":   {(*DNSB).surveyLines, (*DNSB).surveyValues},
	"status":   {(*DNSB).statusLines, (*DNSB).statusValues},
}

// explains reports whether a query wants an explanation, and may have it.
func (d *DNSB) explains(state request.Request) bool {
	if state.QType() != dns.TypeTXT || len(d.conf.explain) == 0 {
		return false
	}
	name, _, _ := explain.CutJSON(state.Name())
	if _, _, ok := d.conf.explained(name); !ok {
		return false
	}
	return explain.Allowed(d.conf.explain, resolver.Address(state.W))
}

// explained returns the name or the list that a query wants to be explained.
func (c *config) explained(name string) (subject, list string, ok bool) {
	if rest, found := strings.CutPrefix(name, explain.Label+"."); found && dns.IsSubDomain(c.zone, rest) {
		return rest, "", true
	}
	list, found := strings.CutSuffix(name, "."+explain.Label+"."+c.zone)
	return "", list, found && lists[list].lines != nil
}

// answerExplanation answers a query for an explanation: a TXT record for each line, or
// for each JSON object.
func (d *DNSB) answerExplanation(state request.Request) (int, error) {
	name, first, asJSON := explain.CutJSON(state.Name())
	subject, list, _ := d.conf.explained(name)
	tcp := state.Proto() == "tcp"
	var answer []dns.RR
	from, ok := explain.Subject(state.Req)
	if !ok {
		from = resolver.SourceAddress(state.W)
	}
	switch {
	case !tcp && (asJSON || d.isLong(subject, list)): // the source may be forged, and the work is large
	case asJSON:
		values := d.explainValues(subject, from)
		if list != "" {
			values = lists[list].values(d)
		}
		var err error
		if answer, err = explain.JSONRecords(state.QName(), pluginName, d.conf.zone, values, first); err != nil {
			return dns.RcodeServerFailure, err
		}
	case list != "":
		answer = explain.Records(state.QName(), lists[list].lines(d))
	default:
		answer = explain.Records(state.QName(), d.explainLines(subject, from))
	}

	m := new(dns.Msg)
	m.SetReply(state.Req)
	m.Authoritative = true
	m.Compress = true
	m.Answer = answer
	if !tcp && (len(answer) == 0 || m.Len()+optSize > state.Size()) {
		m.Answer, m.Truncated = nil, true
	}
	return dns.RcodeSuccess, state.W.WriteMsg(m)
}

// isLong reports whether an explanation would hardly fit into an answer over UDP.
func (d *DNSB) isLong(subject, list string) bool {
	s := d.snapshot.Load()
	switch list {
	case "survey": // looks at all sites
		return true
	case "nodes":
		return len(s.nodes) > longList
	case "overlaps":
		o := d.overlaps.Load()
		return o != nil && len(o.list) > longList
	case "unmapped":
		return len(d.Unmapped().Prefixes) > longList
	}
	return subject == s.conf.zone && len(s.cuts) > longList/linesOfCut
}

const (
	longList   = 50
	linesOfCut = 10 // about as many has the explanation of a cut
)

// explainLines explains a name as text. The zone itself stands for all cuts.
func (d *DNSB) explainLines(name string, from netip.Addr) []string {
	s := d.snapshot.Load()
	if name != s.conf.zone || len(s.cuts) == 0 {
		return s.linesOf(name, from)
	}
	var lines []string
	for _, cut := range s.cutNames() {
		lines = append(lines, s.linesOf(cut, from)...)
	}
	return lines
}

func (s *snapshot) linesOf(name string, from netip.Addr) []string {
	e, err := s.explain(name, from)
	if err != nil {
		return []string{err.Error()}
	}
	lines := []string{"resolver " + e.Address.String(), "cut " + e.Cut}
	if e.LookedUp != e.Address {
		lines[0] += ", looked up as " + e.LookedUp.String()
	}
	for _, r := range e.Referral {
		words := []string{"refer to", r.Node}
		for _, addr := range r.Addresses {
			words = append(words, addr.String())
		}
		lines = append(lines, strings.Join(words, " "))
	}
	lines = append(lines, fmt.Sprintf("NS TTL %d", e.TTL), "reason: "+e.Reason, "layer "+e.Layer)
	if e.Prefix.IsValid() {
		lines = append(lines, "prefix "+e.Prefix.String())
	}
	if e.Source != "" {
		lines = append(lines, "source: "+e.Source)
	}
	for i, c := range e.Candidates {
		line := fmt.Sprintf("candidate %d: %s %s", i+1, c.Node, c.State)
		if c.Why != "" {
			line += " (" + c.Why + ")"
		}
		if c.Of != "" {
			line += ", deputy of " + c.Of
		}
		line += ", " + c.Layer
		if c.Prefix.IsValid() {
			line += " " + c.Prefix.String()
		}
		if c.Chosen {
			line += ", chosen"
		}
		lines = append(lines, line)
	}
	lines = append(lines, siteLines(e.Survey)...)
	if len(e.Overlaps) > 0 {
		lines = append(lines, "overlap: "+strings.Join(e.Overlaps, " "))
	}
	if len(e.Without) > 0 {
		lines = append(lines, "without client-subnets, which other nodes of the cut have: "+someNames(e.Without))
	}
	return lines
}

func (d *DNSB) nodeLines() []string {
	nodes := d.nodesOf(d.snapshot.Load(), referralCounts{}) // anybody may ask often
	if len(nodes) == 0 {
		return []string{"no nodes"}
	}
	lines := make([]string, 0, len(nodes))
	for _, n := range nodes {
		line := n.Node + " " + n.State
		if n.Why != "" {
			line += " (" + n.Why + ")"
		}
		if n.Static {
			line += ", static"
		} else {
			line += ", lease until " + explain.Time(n.Lease)
		}
		if n.ClientSubnets {
			line += ", client-subnets"
		}
		lines = append(lines, fmt.Sprintf("%s%s, %s%s", line, deadCuts(n.DeadCuts), plural.Of(n.Prefixes, "prefix"), n.overrideText()))
	}
	return lines
}

// overrideText tells whether a node has the overrides of servers, if there are any.
func (n NodeStatus) overrideText() string {
	switch {
	case n.Overrides == 0 && (n.OverridesCurrent || n.Static):
		return ""
	case n.OverridesCurrent:
		return ", has the overrides of servers"
	case n.Static:
		return ", no overrides of servers: a static node does not fetch them"
	case n.OverridesFetched.IsZero():
		return ", has not fetched the overrides of servers"
	}
	return ", has older overrides of servers, fetched at " + explain.Time(n.OverridesFetched)
}

// deadCuts names the first cuts for which a node does not answer.
func deadCuts(cuts []DeadCut) string {
	const most = 5
	var b strings.Builder
	for _, c := range cuts[:min(len(cuts), most)] {
		fmt.Fprintf(&b, ", dead for %s (%s)", c.Cut, c.Why)
	}
	if more := len(cuts) - most; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

func (d *DNSB) unmappedLines() []string {
	u := d.Unmapped()
	lines := make([]string, 0, 1+len(u.Prefixes))
	head := fmt.Sprintf("%s of resolvers that no prefix covers since %s", plural.Of(u.Counted, "referral"), explain.Time(u.Since))
	if u.Missed > 0 {
		head += fmt.Sprintf(", and %d that were not counted by site", u.Missed)
	}
	lines = append(lines, head)
	for _, p := range u.Prefixes {
		count := plural.Of(p.Count, "referral")
		if p.Error > 0 {
			count = fmt.Sprintf("%d to %s", p.Count-p.Error, count)
		}
		lines = append(lines, fmt.Sprintf("%s %s, last to %s by %s, %s", p.Prefix, count, p.Node, p.Layer, explain.Time(p.Last)))
	}
	return lines
}

func (d *DNSB) overlapLines() []string {
	list, total := d.Overlaps()
	lines := []string{"overlaps with other nodes: " + plural.Of(total, "registered prefix")}
	for _, o := range list {
		lines = append(lines, o.Prefix.String()+" "+strings.Join(o.Nodes, " "))
	}
	if more := total - len(list); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}
