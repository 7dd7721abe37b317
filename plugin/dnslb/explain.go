package dnslb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// Explanation is why a resolver is answered what it is for one type of record of
// a service, at one moment, as a Go value and as JSON. Latencies are in
// milliseconds and absent where nothing is measured.
type Explanation struct {
	At      time.Time  `json:"at"`
	Zone    string     `json:"zone"`
	Service string     `json:"service"`
	Type    string     `json:"type"`    // A or AAAA
	Address netip.Addr `json:"address"` // of the resolver

	View     string    `json:"view"`               // the node whose measurements rank; "" for those of a server that is no node
	Deputy   bool      `json:"deputy"`             // that is another node, of which this one is a deputy
	ViewMade time.Time `json:"view_made,omitzero"` // when it told of them
	Rule     string    `json:"rule"`
	Answers  int       `json:"answers"`             // how many addresses an answer holds
	Within   float64   `json:"within_ms,omitempty"` // of the first: counts as equally fast
	Observed bool      `json:"observed"`            // another plugin answers
	Isolated bool      `json:"isolated"`            // our own network seems gone: all stands as it did

	Answer     Answered `json:"answer"`
	Servers    []Server `json:"servers"`               // best first, behind them those that are not ranked, as configured
	LastSwitch *Switch  `json:"last_switch,omitempty"` // of the first server; absent if there was none
	Shared     int      `json:"shared"`                // how many services have this ranking
}

// Answered is what is answered now.
type Answered struct {
	Addresses []netip.Addr `json:"addresses"`
	TTL       uint32       `json:"ttl"` // in seconds
	Refused   bool         `json:"refused"`
	Note      string       `json:"note,omitempty"` // what an Extended DNS Error says
}

// Server is one address of a server of a service.
type Server struct {
	Server  string     `json:"server"`
	Address netip.Addr `json:"address"`
	Rank    int        `json:"rank"` // from 1; 0: not in the ranking

	Estimate float64   `json:"estimate_ms,omitempty"` // what it is ranked by, with its bias
	Noise    float64   `json:"noise_ms,omitempty"`
	Measured time.Time `json:"measured_at,omitzero"` // the newest sample of these

	// Of the newest samples, 128 and 10 minutes at most. Another node does not
	// tell them, and those from here say nothing of its resolvers.
	Median float64  `json:"median_ms,omitempty"`
	P95    float64  `json:"p95_ms,omitempty"`
	Loss   *float64 `json:"loss,omitempty"` // share of these, 0 to 1

	// As seen from here, whoever measured the rest.
	State   string    `json:"state"` // unknown, up or down
	Since   time.Time `json:"since,omitzero"`
	Reason  string    `json:"reason,omitempty"` // why it is down or failed last
	Failing bool      `json:"failing"`          // the last failure is not confirmed

	Tier     int     `json:"tier"`
	Weight   int     `json:"weight"`
	Bias     float64 `json:"bias_ms,omitempty"`
	Drain    bool    `json:"drain"`
	Override string  `json:"override,omitempty"` // of the admin file, that it is under

	Eligible bool   `json:"eligible"`
	Why      string `json:"why,omitempty"` // it is not eligible
	Near     bool   `json:"near"`          // it counts as as fast as the first
	Answered bool   `json:"answered"`
}

// Switch is a change of the first server.
type Switch struct {
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
	From  string    `json:"from"` // the server, its address and what was known of it then
	To    string    `json:"to"`
}

// Explain tells why a resolver at an address gets the answer that it gets for a
// name and a type of record, A or AAAA. The error is that of a name that is no
// service, or of one that has no server in this address family.
func (d *DNSLB) Explain(name string, qtype uint16, from netip.Addr) (Explanation, error) {
	t := d.snapshot.Load()
	name = dns.CanonicalName(name)
	n, _ := t.lookup(name)
	switch {
	case n.service == nil && t.signed(n.zone):
		return Explanation{}, fmt.Errorf("%s is no service: zone %s is signed already, and what is ranked would have no signature", name, n.zone)
	case n.service == nil:
		return Explanation{}, fmt.Errorf("%s is no service", name)
	}
	p := n.service.pool(qtype)
	if p == nil {
		return Explanation{}, fmt.Errorf("service %s has no server with an %s record", n.service.name, dns.Type(qtype))
	}
	from = resolver.Normalize(from)
	e := Explanation{
		At: time.Now(), Zone: n.zone, Service: n.service.name, Type: dns.Type(qtype).String(), Address: from,
		Answers: p.options.answers, Within: milliseconds(p.options.within), Shared: len(p.services),
		Observed: d.observe, Isolated: d.probe != nil && d.probe.Isolated(),
	}

	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	sel := d.selectedFor(func() netip.Addr { return from }, p, qtype)
	e.Answer = Answered{Addresses: slices.Clone(sel.addrs), TTL: sel.ttl, Refused: sel.refused, Note: sel.note}
	o := d.outlook(t, p, from)
	e.View, e.Deputy, e.Rule, e.ViewMade = o.node, !o.made.IsZero(), o.rule(p), o.made
	if c := o.standing.lastSwitch; c != nil {
		e.LastSwitch = &Switch{At: c.at, Cause: string(c.cause), From: c.from.String(), To: c.to.String()}
	}
	e.Servers = d.serversOf(t, p, o, sel.addrs)
	return e, nil
}

// pointOfView is whose standing and what knowledge an answer is from.
type pointOfView struct {
	node         string
	standing     *rankState
	observations *observations
	made         time.Time // of the view of another node; zero: as measured here
}

// outlook returns that of a resolver. state.mu must be held.
func (d *DNSLB) outlook(t *snapshot, p *pool, from netip.Addr) pointOfView {
	slot := d.slot(func() netip.Addr { return from })
	if slot > peerview.Own && slot < len(t.principals) && t.principals[slot] != nil && p.answerFor(slot) != p.answer.Load() {
		there := t.principals[slot]
		return pointOfView{there.view.Node, p.principalStates[slot], p.effective(&there.observations), there.view.Made}
	}
	return pointOfView{d.Node, &p.state, &t.observed, time.Time{}}
}

// rule returns by which rule a pool has its first server.
func (o pointOfView) rule(p *pool) string {
	if _, there := p.eligibleWith(o.observations); there != nil {
		return followRule
	}
	return o.standing.ranker.Rule()
}

// serversOf tells of each member of a pool, by the code that ranks them. state.mu
// must be held.
func (d *DNSLB) serversOf(t *snapshot, p *pool, o pointOfView, answered []netip.Addr) []Server {
	order, estimates := o.standing.order, p.estimates(o.observations)
	eligible, there := p.eligibleWith(o.observations)
	all := slices.Clone(order)
	for i := range p.members {
		if !slices.Contains(order, i) {
			all = append(all, i)
		}
	}
	out := make([]Server, len(all))
	for at, i := range all {
		m, e := p.members[i], estimates[i]
		status := o.observations.status[m.target]
		s := Server{
			Server: m.label, Address: m.addr, Estimate: e.Value, Noise: e.Noise, Measured: status.MeasuredAt,
			State: status.State.String(), Since: status.Since, Reason: status.Reason, Failing: status.Failing,
			Tier: m.tier, Weight: m.weight, Bias: milliseconds(m.bias), Drain: m.drain, Override: m.override.text,
			Eligible: eligible[i], Near: slices.Contains(o.standing.tied, i), Answered: slices.Contains(answered, m.addr),
		}
		if at < len(order) {
			s.Rank = at + 1
		}
		if !s.Eligible {
			s.Why = m.why(o.observations)
		}
		if !s.Eligible && there != nil && there.whole && s.Why == behindTier {
			s.Why = "set back by the node"
		}
		if d.watch != nil && o.made.IsZero() {
			stats := d.watch.Statistics(t.targets[m.target])
			s.Loss, s.Median, s.P95 = &stats.Loss, milliseconds(stats.Median), milliseconds(stats.P95)
			s.Measured = d.watch.Status(t.targets[m.target]).MeasuredAt
		}
		out[at] = s
	}
	return out
}

// why returns why a member cannot be chosen.
func (m *member) why(v *observations) string {
	switch {
	case m.override.verb == verbDown:
		return "override"
	case m.down(v) && v.status[m.target].State != latencyprobe.Down:
		return "down as seen by the node"
	case m.down(v):
		return "down"
	case m.override.verb == verbDrain:
		return "override"
	case m.drain:
		return "drained"
	}
	return behindTier
}

const behindTier = "a server of a lower tier is up"

// Summary is how a server block stands at one moment, as a Go value and as JSON.
type Summary struct {
	At            time.Time              `json:"at"`
	Zones         []string               `json:"zones"`
	Node          string                 `json:"node,omitempty"`
	Ready         bool                   `json:"ready"`
	Missing       []string               `json:"missing"`  // zones that a plugin behind should have and has not
	Observed      bool                   `json:"observed"` // another plugin answers
	Isolated      bool                   `json:"isolated"` // our own network seems gone
	Registrations []registrar.State      `json:"registrations"`
	Deputies      []peerview.DeputyState `json:"deputies"`          // of this node, best first
	Views         []ViewState            `json:"views"`             // of the principals of this node
	Refused       *peerview.Rejection    `json:"refused,omitempty"` // the last NOTIFY, not long ago
	Services      int                    `json:"services"`
	Up            int                    `json:"up"` // addresses of servers, by state and probe
	Down          int                    `json:"down"`
	Unknown       int                    `json:"unknown"`
	AllDown       []string               `json:"all_down"`    // services, with the type of record
	Overrides     []string               `json:"orders"`      // in force
	IdleOverrides []string               `json:"idle_orders"` // without effect

	allDown int // how many, also where AllDown names some of them
}

// ViewState is the state of the view of a principal.
type ViewState struct {
	Node  string    `json:"node"`
	Made  time.Time `json:"made"`
	Known int       `json:"known"` // how many of its targets this node measures too
	All   int       `json:"all"`   // how many targets it has
}

// Summary tells how the server block stands.
func (d *DNSLB) Summary() Summary { return d.summary(math.MaxInt) }

// summary names at most so many services whose servers are all down.
func (d *DNSLB) summary(most int) Summary {
	t := d.snapshot.Load()
	s := Summary{
		At: time.Now(), Zones: slices.Clone(d.Zones), Node: d.Node, Ready: d.Ready(), Observed: d.observe,
		Isolated:      d.probe != nil && d.probe.Isolated(),
		Registrations: d.state.registrar.States(), Views: []ViewState{}, AllDown: []string{}, Overrides: []string{}, IdleOverrides: []string{}, Services: t.services,
		Missing: append([]string{}, t.missing...),
	}
	s.Deputies, s.Refused = d.state.sharing.Deputies(), d.state.sharing.Rejected()
	for _, v := range d.state.views().Views {
		if v != nil {
			s.Views = append(s.Views, ViewState{Node: v.Node, Made: v.Made, Known: v.InCommon(t.targets), All: len(v.Targets)})
		}
	}
	d.state.mu.Lock()
	for _, status := range t.observed.status {
		switch status.State {
		case latencyprobe.Up:
			s.Up++
		case latencyprobe.Down:
			s.Down++
		default:
			s.Unknown++
		}
	}
	d.state.mu.Unlock()
	for _, p := range t.pools {
		if !p.answer.Load().allDown {
			continue
		}
		s.allDown += len(p.services)
		for _, name := range p.services[:min(len(p.services), most-len(s.AllDown))] {
			s.AllDown = append(s.AllDown, name+" "+dns.Type(p.qtype()).String())
		}
	}
	slices.Sort(s.AllDown)
	for _, o := range t.inForce {
		s.Overrides = append(s.Overrides, o.Text)
	}
	for _, o := range t.idle {
		s.IdleOverrides = append(s.IdleOverrides, o.why+": "+o.Text)
	}
	return s
}

// explained returns the address whose answer is to be explained, if a query asks
// for that: it asks for a name below the reserved label, from a network that may
// know. That is the client subnet in the query, or else who asks.
func (d *DNSLB) explained(w dns.ResponseWriter, r *dns.Msg) (about netip.Addr, ok bool) {
	q := r.Question[0]
	const label = explain.Label + "."
	if r.Opcode != dns.OpcodeQuery || q.Qclass != dns.ClassINET || len(q.Name) < len(label) || !strings.EqualFold(q.Name[:len(label)], label) {
		return about, false
	}
	about = resolver.Address(w)
	if !explain.Allowed(d.explainTo, about) {
		return about, false
	}
	if addr, ok := explain.Subject(r); ok {
		about = resolver.Normalize(addr)
	}
	return about, true
}

// explains answers a query that asks why an answer is what it is, nil if that is
// not asked, or not by who may know: to others the name is as any other.
func (d *DNSLB) explains(w dns.ResponseWriter, r *dns.Msg, t *snapshot, zone string) *dns.Msg {
	if d.explainTo == nil || zone == "" {
		return nil
	}
	about, ok := d.explained(w, r)
	if !ok {
		return nil
	}
	m, q := reply(r), r.Question[0]
	explain.SetScope(m) // it is all about the client
	if q.Qtype != dns.TypeTXT {
		m.Ns = []dns.RR{negative(d.zoneSOA(t, zone), name{zone: zone})}
		return m
	}
	lines := d.explanation(dns.CanonicalName(q.Name[len(explain.Label)+1:]), about)
	m.Answer = explain.Records(q.Name, lines)
	return m
}

// explanation returns the lines about a name.
func (d *DNSLB) explanation(name string, about netip.Addr) []string {
	var lines []string
	if slices.Contains(d.Zones, name) {
		lines = d.summary(maxNamed).lines()
	}
	var err error
	found := len(lines) > 0
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		var e Explanation
		if e, err = d.Explain(name, qtype, about); err == nil {
			found = true
			lines = append(lines, e.lines()...)
		}
	}
	if !found {
		return []string{err.Error()}
	}
	return lines
}

// lines returns the explanation in short.
func (e Explanation) lines() []string {
	var addrs []string
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
	lines := []string{fmt.Sprintf("%s %s for %s: %s", e.Service, e.Type, e.Address, answer)}

	by := "as measured here"
	switch {
	case e.Deputy:
		by = fmt.Sprintf("as measured by %s %s ago, of which this is a deputy", e.View, e.At.Sub(e.ViewMade).Round(time.Second))
	case e.View != "":
		by = "as measured by " + e.View
	}
	by += fmt.Sprintf(", rule %s, answers %d", e.Rule, e.Answers)
	if e.Within > 0 {
		by += fmt.Sprintf(", within %.1f ms", e.Within)
	}
	if e.Shared > 1 {
		by += fmt.Sprintf(", ranked as one of %d services with these servers", e.Shared)
	}
	if e.Observed {
		by += "; observe: another plugin answers"
	}
	if e.Isolated {
		by += "; isolated: all stands as it did"
	}
	lines = append(lines, by)
	for _, s := range e.Servers {
		lines = append(lines, s.line())
	}
	if c := e.LastSwitch; c != nil {
		lines = append(lines, fmt.Sprintf("last switch %s: to %s from %s: %s", explain.Time(c.At), c.To, c.From, c.Cause))
	}
	return lines
}

// line returns the server in short.
func (s Server) line() string {
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
	if s.Estimate > 0 {
		fmt.Fprintf(&b, ": %.1f ms", s.Estimate)
		if s.Bias > 0 {
			fmt.Fprintf(&b, " with bias %.1f ms", s.Bias)
		}
		fmt.Fprintf(&b, ", noise %.1f ms", s.Noise)
		if s.Loss != nil {
			fmt.Fprintf(&b, ", loss %.1f %%", 100**s.Loss)
		}
	} else {
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
	if s.Near {
		fmt.Fprintf(&b, ", near with weight %d", s.Weight)
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

// lines returns the summary in short.
func (s Summary) lines() []string {
	who := strings.Join(s.Zones, " ")
	if s.Node != "" {
		who += " on node " + s.Node
	}
	if !s.Ready {
		who += "; not ready yet"
	}
	if s.Observed {
		who += "; observe: another plugin answers"
	}
	if s.Isolated {
		who += "; isolated: all stands as it did"
	}
	lines := []string{who}
	for _, zone := range s.Missing {
		lines = append(lines, "not there: "+zone)
	}
	for _, r := range s.Registrations {
		state := "not registered"
		if r.Up {
			state = "registered"
		}
		lines = append(lines, fmt.Sprintf("DNS-B %s: %s since %s, lease left %s", r.DNSB, state, explain.Time(r.Since), r.LeaseLeft.Round(time.Second)))
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
	for _, v := range s.Views {
		line := fmt.Sprintf("deputy of %s, view made at %s: %d of %d targets in common", v.Node, explain.Time(v.Made), v.Known, v.All)
		if v.Known == 0 && v.All > 0 {
			line += ", so its resolvers are answered by the deputy's own measurements"
		}
		lines = append(lines, line)
	}
	lines = append(lines, fmt.Sprintf("%d services, addresses of servers: %d up, %d down, %d unknown", s.Services, s.Up, s.Down, s.Unknown))
	if s.allDown > 0 {
		lines = append(lines, fmt.Sprintf("all servers are down of %d: %s", s.allDown, strings.Join(s.AllDown, ", ")))
	}
	for _, o := range s.Overrides {
		lines = append(lines, "override: "+o)
	}
	for _, o := range s.IdleOverrides {
		lines = append(lines, "override without effect, "+o)
	}
	return lines
}
