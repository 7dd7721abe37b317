package dnslb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/surveyor"
)

// explained returns what a query wants to be explained, and for which client, and
// whether it may know: it is for a name below the reserved label, and comes from a
// network of 'explain'. Without 'client-subnets', the client subnet in the query is
// the address of the resolver, so that operators can ask about any.
func (d *DNSLB) explained(w dns.ResponseWriter, r *dns.Msg) (s subject, ok bool) {
	q := r.Question[0]
	if r.Opcode != dns.OpcodeQuery || q.Qclass != dns.ClassINET {
		return s, false
	}
	name := strings.ToLower(q.Name)
	name, s.first, s.json = explain.CutJSON(name)
	name = strings.TrimPrefix(name, statusList)
	if s.name, ok = strings.CutPrefix(name, explain.Label+"."); !ok {
		return s, false
	}
	s.about = d.clientOf(w, r)
	if !explain.Allowed(d.explainTo, s.about.address()) {
		return s, false
	}
	if addr, ok := explain.Subject(r); ok && !d.clientSubnets {
		s.about.from = resolver.Normalize(addr)
	}
	return s, true
}

// statusList begins a question for the state of a zone, as at a DNS-B.
const statusList = "status."

// subject is what a query wants to be explained.
type subject struct {
	name  string // in lower case
	about client // whose answer
	json  bool
	first int // JSON object that is wanted
}

// explains answers a query that wants an explanation. It returns nil for other
// queries, and for those that may not know: to them the name is like any other.
func (d *DNSLB) explains(w dns.ResponseWriter, r *dns.Msg, t *snapshot, zone string) *dns.Msg {
	if d.explainTo == nil || zone == "" {
		return nil
	}
	s, ok := d.explained(w, r)
	if !ok {
		return nil
	}
	m, q := reply(r), r.Question[0]
	explain.SetScope(m) // the answer depends on it
	if q.Qtype != dns.TypeTXT {
		m.Ns = []dns.RR{negative(d.zoneSOA(t, zone), name{zone: zone})}
		return m
	}
	if state := (request.Request{W: w, Req: r}); state.Proto() != "tcp" && (s.json || d.isLong(t, s.name)) {
		m.Truncated = true // the source may be forged, and the work is large
		return m
	}
	if !s.json {
		m.Answer = explain.Records(q.Name, d.explanation(s.name, s.about))
		return m
	}
	var err error
	if m.Answer, err = explain.JSONRecords(q.Name, pluginName, d.Zones[0], d.explainValues(s.name, s.about), s.first); err != nil {
		log.Errorf("Failed to explain %q as JSON: %v", s.name, err)
		m.Rcode = dns.RcodeServerFailure
	}
	return m
}

const (
	// longPool is from how many servers on an explanation hardly fits into an answer
	// over UDP.
	longPool = 50
	// longSummary is from how many targets and pools on a summary is given over TCP
	// only: they are counted for each, and targets once for each view.
	longSummary = 1000
)

// isLong reports whether an explanation takes too long for a question whose source
// may be forged.
func (d *DNSLB) isLong(t *snapshot, subject string) bool {
	if slices.Contains(d.Zones, subject) && len(t.targets)*(1+len(d.state.views().Views))+len(t.pools) > longSummary {
		return true
	}
	n, _ := t.lookup(subject)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if p := n.service.pool(qtype); p != nil && len(p.members) > longPool {
			return true
		}
	}
	return false
}

// explainValues returns the explanation of a name as JSON.
func (d *DNSLB) explainValues(name string, about client) []explain.Value {
	var values []explain.Value
	if slices.Contains(d.Zones, name) {
		values = append(values, explain.Value{Kind: "status", Value: d.status(maxNamed)})
	}
	var err error
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		var e Explanation
		if e, err = d.explainFor(name, qtype, about); err == nil {
			values = append(values, explain.Value{Kind: "answer", Value: e})
		}
	}
	if len(values) == 0 {
		return []explain.Value{{Kind: explain.KindError, Value: err.Error()}}
	}
	return values
}

// explanation returns the explanation of a name as lines of text.
func (d *DNSLB) explanation(name string, about client) []string {
	var lines []string
	if slices.Contains(d.Zones, name) {
		lines = d.summary(maxNamed).Lines()
	}
	var err error
	found := len(lines) > 0
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		var e Explanation
		if e, err = d.explainFor(name, qtype, about); err == nil {
			found = true
			lines = append(lines, e.lines()...)
		}
	}
	if !found {
		return []string{err.Error()}
	}
	return lines
}

// lines returns the explanation as text.
func (e Explanation) lines() []string {
	addrs := make([]string, 0, len(e.Answer.Addresses))
	for _, addr := range e.Answer.Addresses {
		addrs = append(addrs, addr.String())
	}
	answer := fmt.Sprintf("%s, TTL %d", strings.Join(addrs, " "), e.Answer.TTL)
	switch {
	case e.Answer.Refused:
		answer = "REFUSED"
	case len(addrs) == 0:
		answer = "no address"
	}
	if e.Answer.Note != "" {
		answer += ": " + e.Answer.Note
	}
	about := e.Address.String()
	if e.Subnet.IsValid() {
		about = fmt.Sprintf("client subnet %s at resolver %s", e.Subnet, e.Address)
	}
	lines := []string{fmt.Sprintf("%s %s for %s: %s", e.Service, e.Type, about, answer)}
	switch {
	case e.WhySource != "":
		lines = append(lines, fmt.Sprintf("answered by the address of the resolver, with scope %d, and not by the client subnet: %s", e.Scope, e.WhySource))
	case e.Subnet.IsValid():
		by := "layer " + e.Layer
		if e.Layer == "" {
			by = "the map of some minutes ago"
		}
		lines = append(lines, fmt.Sprintf("answered by the client subnet, with scope %d: its node is %s, by %s", e.Scope, e.View, by))
	}

	by := "measured by this server"
	switch {
	case e.Site != nil:
		by = "ranked for the site " + e.Site.Prefix.String() + " by the survey"
	case e.Deputy:
		by = fmt.Sprintf("measured by %s (this node is its deputy), in its view of %s ago", e.View, e.At.Sub(e.ViewMade).Round(time.Second))
	case !e.ViewMade.IsZero():
		by = fmt.Sprintf("measured by %s, in its view of %s ago", e.View, e.At.Sub(e.ViewMade).Round(time.Second))
	case e.View != "":
		by = "measured by " + e.View
	}
	by += fmt.Sprintf(", rule %s, answers %d", e.Rule, e.Answers)
	if e.Within > 0 {
		by += fmt.Sprintf(", within %.1f ms", e.Within)
	}
	if e.Shared > 1 {
		by += fmt.Sprintf(", shared by %d services", e.Shared)
	}
	if e.Observed {
		by += "; observe: another plugin answers"
	}
	if e.Isolated {
		by += "; isolated: the last ranking is kept"
	}
	lines = append(lines, by)
	if e.Site != nil {
		measured := make([]string, len(e.Site.Measured))
		for i, m := range e.Site.Measured {
			measured[i] = fmt.Sprintf("%s %.1f ms", m.Node, m.RTT)
		}
		of := e.Site.Prefix.String()
		if e.Site.Routed {
			of = "a router on the way to " + of + ", which is silent"
		}
		lines = append(lines, fmt.Sprintf("survey of %s: %s", of, strings.Join(measured, ", ")))
	}
	if e.Block.IsValid() {
		nodes := make([]string, len(e.Nodes))
		for i, n := range e.Nodes {
			nodes[i] = n.Node + " (" + n.Layer + ")"
		}
		lines = append(lines, fmt.Sprintf("map of DNS-B for %s: %s", e.Block, cmp.Or(strings.Join(nodes, ", "), "no node, DNS-B chooses by hashing")))
	}
	for _, s := range e.Servers {
		lines = append(lines, s.line(e.At))
	}
	if c := e.LastSwitch; c != nil {
		lines = append(lines, fmt.Sprintf("last switch %s: to %s from %s: %s", explain.Time(c.At), c.To, c.From, c.Cause))
	}
	return lines
}

// line returns the server as text at a time.
func (s Server) line(now time.Time) string {
	var b strings.Builder
	if s.Rank > 0 {
		fmt.Fprintf(&b, "%d. ", s.Rank)
	} else {
		b.WriteString("- ")
	}
	b.WriteString(s.Server)
	if addr := s.Address.String(); addr != s.Server {
		b.WriteString(" " + addr)
	}
	switch {
	case s.Survey != "":
		fmt.Fprintf(&b, ": survey: %.1f ms", s.Estimate)
		if s.Bias > 0 {
			fmt.Fprintf(&b, " with bias %.1f ms", s.Bias)
		}
		if s.Survey == "measured" {
			fmt.Fprintf(&b, " from node %s, measured %s ago", s.Beside, now.Sub(s.Measured).Round(time.Second))
		} else {
			b.WriteString(", estimated")
		}
	case s.Estimate > 0:
		fmt.Fprintf(&b, ": %.1f ms", s.Estimate)
		if s.Bias > 0 {
			fmt.Fprintf(&b, " with bias %.1f ms", s.Bias)
		}
		fmt.Fprintf(&b, ", noise %.1f ms", s.Noise)
		if s.Loss != nil {
			fmt.Fprintf(&b, ", loss %.1f %%", 100**s.Loss)
		}
	default:
		b.WriteString(": not measured")
	}
	fmt.Fprintf(&b, ", %s", s.State)
	if !s.Since.IsZero() {
		fmt.Fprintf(&b, " since %s", explain.Time(s.Since))
	}
	if s.Failing {
		b.WriteString(", failing")
	}
	if s.Reason != "" {
		fmt.Fprintf(&b, " (%s)", s.Reason)
	}
	fmt.Fprintf(&b, ", tier %d", s.Tier)
	if s.Tied {
		fmt.Fprintf(&b, ", tied with weight %d", s.Weight)
	}
	if s.Drain {
		b.WriteString(", drain")
	}
	if s.Override != "" {
		fmt.Fprintf(&b, ", override: %s", s.Override)
	}
	if s.Why != "" {
		fmt.Fprintf(&b, "; not eligible: %s", s.Why)
	}
	if s.Answered {
		b.WriteString("; answered")
	}
	return b.String()
}

// mapLine tells which map the node has.
func mapLine(m mapfetch.State) string {
	line := "no map from a DNS-B yet"
	if !m.FetchedAt.IsZero() {
		line = fmt.Sprintf("map from DNS-B %s: %s, %s, fetched at %s, the latest at %s",
			m.DNSB, plural.Of(m.Prefixes, "prefix"), plural.Of(m.Nodes, "node"), explain.Time(m.FetchedAt), explain.Time(m.CheckedAt))
	}
	if m.Error != "" {
		line += ", last question failed: " + m.Error
	}
	return line
}

// surveyLine tells how the node takes part in the survey.
func surveyLine(s surveyor.State) string {
	line := fmt.Sprintf("survey for DNS-B %s: %s measured, %d by a router on the way, %d silent, %d declined", s.DNSB, plural.Of(s.Measured, "address"), s.Routers, s.Silent, s.Declined)
	if !s.Asked.IsZero() {
		line += ", asked for work at " + explain.Time(s.Asked)
	}
	if s.Error != "" {
		line += ", last question or report failed: " + s.Error
	}
	return line
}

// Lines returns the summary as text.
func (s Summary) Lines() []string {
	block := strings.Join(s.Zones, " ")
	if s.Node != "" {
		block += " on node " + s.Node
	}
	if !s.Ready {
		block += "; not ready yet"
	}
	if s.Observed {
		block += "; observe: another plugin answers"
	}
	if s.Isolated {
		block += "; isolated: the last ranking is kept"
	}
	lines := []string{block}
	for _, zone := range s.Missing {
		lines = append(lines, "missing zone: "+zone)
	}
	for _, r := range s.Registrations {
		state := "not registered"
		if r.Up {
			state = "registered"
		}
		line := fmt.Sprintf("DNS-B %s: %s since %s, lease left %s", r.DNSB, state, explain.Time(r.Since), r.LeaseLeft.Round(time.Second))
		if r.Error != "" {
			line += fmt.Sprintf(": %q", r.Error)
		}
		lines = append(lines, line)
	}
	if s.Map != nil {
		lines = append(lines, mapLine(*s.Map))
	}
	for _, f := range s.FromDNSBs {
		line := "overrides from DNS-B " + f.DNSB
		if f.CheckedAt.IsZero() {
			line += ": not known yet"
		} else {
			line += fmt.Sprintf(": %d, the latest at %s", f.Overrides, explain.Time(f.CheckedAt))
		}
		if f.Error != "" {
			line += ", last question failed: " + f.Error
		}
		lines = append(lines, line)
	}
	for _, state := range s.Survey {
		lines = append(lines, surveyLine(state))
	}
	for _, deputy := range s.Deputies {
		line := "deputy " + deputy.Node + ": "
		if deputy.Told.IsZero() {
			line += "no view announced yet"
		} else {
			line += "accepted NOTIFY at " + explain.Time(deputy.Told)
		}
		if deputy.Error != "" {
			line += ", last NOTIFY failed: " + deputy.Error
		}
		lines = append(lines, line)
	}
	if r := s.Refused; r != nil {
		lines = append(lines, fmt.Sprintf("rejected NOTIFY for the view of %s from %s at %s: %s", r.Node, r.From, explain.Time(r.At), r.Why))
	}
	for _, f := range s.FailedViews {
		lines = append(lines, fmt.Sprintf("failed to fetch the view of %s since %s: %s", f.Node, explain.Time(f.Since), f.Error))
	}
	for _, v := range s.Views {
		role, self := "view of", "this node's"
		if v.Deputy {
			role, self = "deputy of", "the deputy's"
		}
		line := fmt.Sprintf("%s %s, view made at %s: %d of %s in common", role, v.Node, explain.Time(v.Made), v.Known, plural.Of(v.All, "target"))
		if v.Known == 0 && v.All > 0 {
			line += ", so its resolvers are answered by " + self + " own measurements"
		}
		lines = append(lines, line)
	}
	if n := len(s.Unfollowed); n > 0 {
		lines = append(lines, fmt.Sprintf("not following the views of %s, as there are too many: %s", plural.Of(n, "node"), someOf(s.Unfollowed)))
	}
	lines = append(lines, fmt.Sprintf("%s, addresses of servers: %d up, %d down, %d unknown", plural.Of(s.Services, "service"), s.Up, s.Down, s.Unknown))
	if s.AllDownCount > 0 {
		lines = append(lines, fmt.Sprintf("all servers are down for %s: %s", plural.Of(s.AllDownCount, "service"), strings.Join(s.AllDown, ", ")))
	}
	for _, o := range s.Overrides {
		lines = append(lines, "override: "+o)
	}
	for _, o := range s.IdleOverrides {
		lines = append(lines, "override without effect, "+o)
	}
	return lines
}
