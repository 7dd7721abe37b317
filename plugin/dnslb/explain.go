package dnslb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// Explanation says why a resolver gets its answer for one type of record of a
// service, at one moment, as a Go value and as JSON. Latencies are in
// milliseconds, and absent where nothing is measured.
type Explanation struct {
	At      time.Time  `json:"at"`
	Zone    string     `json:"zone"`
	Service string     `json:"service"`
	Type    string     `json:"type"`    // A or AAAA
	Address netip.Addr `json:"address"` // of the resolver

	Subnet    netip.Prefix `json:"subnet,omitzero"`      // in its query; absent: none, or 'client-subnets' is not set
	Scope     int          `json:"scope,omitempty"`      // of the answer; 0: it is for all subnets
	Layer     string       `json:"layer,omitempty"`      // by which the map names the node for the subnet; "": a former map
	WhySource string       `json:"why_source,omitempty"` // the address counts, and not the subnet

	Site *SiteMeasurements `json:"site,omitempty"` // of the survey, by which the servers are ranked; absent: they are not

	View     string    `json:"view"`               // the node whose measurements count; "": this server, which is no node
	Deputy   bool      `json:"deputy"`             // this node is its deputy
	ViewMade time.Time `json:"view_made,omitzero"` // when the principal made its view
	Rule     string    `json:"rule"`
	Answers  int       `json:"answers"`             // how many addresses an answer holds
	Within   float64   `json:"within_ms,omitempty"` // servers this close to the first one are tied
	Observed bool      `json:"observed"`            // another plugin answers
	Isolated bool      `json:"isolated"`            // the last ranking is kept

	Block netip.Prefix    `json:"block,omitzero"` // around the address or subnet, with the same nodes; absent without a map
	Nodes []nodemap.Named `json:"nodes"`          // for it by the map, best first

	Answer     Answered `json:"answer"`
	Servers    []Server `json:"servers"`               // best first, then those that are not ranked, as configured
	LastSwitch *Switch  `json:"last_switch,omitempty"` // of the first server; absent if there was none
	Shared     int      `json:"shared"`                // how many services share this ranking
}

// Answered is the current answer.
type Answered struct {
	Addresses []netip.Addr `json:"addresses"`
	TTL       uint32       `json:"ttl"` // in seconds
	Refused   bool         `json:"refused"`
	Note      string       `json:"note,omitempty"` // the text of the Extended DNS Error
}

// Server is one address of a server of a service.
type Server struct {
	Server  string     `json:"server"`
	Address netip.Addr `json:"address"`
	Rank    int        `json:"rank"` // from 1; 0: not in the ranking

	Estimate float64   `json:"estimate_ms,omitempty"` // by which it is ranked, with its bias
	Beside   string    `json:"beside,omitempty"`      // the node that stands where it does
	Survey   string    `json:"survey,omitempty"`      // measured by the node beside it, or estimated; absent: not ranked by a site
	Noise    float64   `json:"noise_ms,omitempty"`
	Measured time.Time `json:"measured_at,omitzero"` // the newest sample

	// Of the newest samples, 128 and 10 minutes at most. A view does not have
	// them, and those of this node say nothing about resolvers of a principal.
	Median float64  `json:"median_ms,omitempty"`
	P95    float64  `json:"p95_ms,omitempty"`
	Loss   *float64 `json:"loss,omitempty"` // share of these, 0 to 1

	// As this node sees the server, whoever measured its latency.
	State   string    `json:"state"` // unknown, up or down
	Since   time.Time `json:"since,omitzero"`
	Reason  string    `json:"reason,omitempty"` // why it is down or failed last
	Failing bool      `json:"failing"`          // the last failure is not confirmed

	Tier     int     `json:"tier"`
	Weight   int     `json:"weight"`
	Bias     float64 `json:"bias_ms,omitempty"`
	Drain    bool    `json:"drain"`
	Override string  `json:"override,omitempty"` // in force for it

	Eligible bool   `json:"eligible"`
	Why      string `json:"why,omitempty"` // it is not eligible
	Tied     bool   `json:"near"`          // it is tied with the first one
	Answered bool   `json:"answered"`
}

// SiteMeasurements are what nodes measured of a site, best first.
type SiteMeasurements struct {
	Prefix   netip.Prefix      `json:"prefix"`
	Routed   bool              `json:"routed,omitempty"` // the latencies are those of a router on the way
	Measured []SiteMeasurement `json:"measured"`
}

// SiteMeasurement is what a node measured of a site.
type SiteMeasurement struct {
	Node string    `json:"node"`
	RTT  float64   `json:"rtt_ms"`
	At   time.Time `json:"at"`
}

// Switch is a change of the first server.
type Switch struct {
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
	From  string    `json:"from"` // the server, its address and its state at that time
	To    string    `json:"to"`
}

func (e *switchEvent) describe() Switch {
	return Switch{At: e.at, Cause: string(e.cause), From: e.from.String(), To: e.to.String()}
}

// Explain says why a resolver at an address gets its answer for a name and a type
// of record, A or AAAA. There is an error for a name that is no service, and for
// a service that has no server in this address family.
func (d *DNSLB) Explain(name string, qtype uint16, from netip.Addr) (Explanation, error) {
	return d.explainFor(name, qtype, client{from: resolver.Normalize(from)})
}

// ExplainSubnet is Explain for a query with a client subnet (RFC 7871). Without
// 'client-subnets' in the Corefile the subnet does not count.
func (d *DNSLB) ExplainSubnet(name string, qtype uint16, from netip.Addr, subnet netip.Prefix) (Explanation, error) {
	c := client{from: resolver.Normalize(from)}
	if d.clientSubnets && subnet.Bits() > 0 {
		c.subnet = subnet.Masked()
	}
	return d.explainFor(name, qtype, c)
}

// explainFor explains the answer for a client.
func (d *DNSLB) explainFor(name string, qtype uint16, c client) (Explanation, error) {
	return d.explain(name, qtype, c, func(p *pool) selection { return d.selectFor(&c, p, qtype) })
}

// explainOwn explains the answer for the resolvers of this node, without a map.
func (d *DNSLB) explainOwn(name string, qtype uint16) (Explanation, error) {
	c := client{from: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	e, err := d.explain(name, qtype, c, func(p *pool) selection { return d.selectBy(peerview.Own, nil, c.address, p, qtype) })
	e.Block, e.Nodes = netip.Prefix{}, []nodemap.Named{}
	return e, err
}

// explain explains the answer that choose returns, with the lock of the block state held.
func (d *DNSLB) explain(name string, qtype uint16, c client, choose func(*pool) selection) (Explanation, error) {
	t := d.snapshot.Load()
	name = dns.CanonicalName(name)
	n, _ := t.lookup(name)
	switch {
	case n.service == nil && t.signed(n.zone):
		return Explanation{}, fmt.Errorf("%s is no service: zone %s is signed already, and ranked answers would have no signatures", name, n.zone)
	case n.service == nil:
		return Explanation{}, fmt.Errorf("%s is no service", name)
	}
	p := n.service.pool(qtype)
	if p == nil {
		return Explanation{}, fmt.Errorf("service %s has no server with an %s record", n.service.name, dns.Type(qtype))
	}
	e := Explanation{
		At: time.Now(), Zone: n.zone, Service: n.service.name, Type: dns.Type(qtype).String(), Address: c.from, Subnet: c.subnet,
		Answers: p.options.answers, Within: milliseconds(p.options.within), Shared: len(p.services),
		Observed: d.observe, Isolated: d.probe != nil && d.probe.Isolated(),
	}

	about := c.from
	if c.subnet.IsValid() {
		about = c.subnet.Addr()
	}
	e.Block, e.Nodes = d.state.views().Named(about)

	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	sel := choose(p)
	e.Answer = Answered{Addresses: slices.Clone(sel.addrs), TTL: sel.ttl, Refused: sel.refused, Note: sel.note}
	v := d.basisOf(t, p, sel.slot)
	if sel.bySite {
		if v.site = d.siteBasisOf(p, &c, sel); v.site != nil {
			e.Site = v.site.measurements()
		}
	}
	e.Scope = sel.scope
	if c.subnet.IsValid() && !sel.bySubnet {
		e.WhySource = e.whySource()
	}
	e.View, e.Deputy, e.Rule, e.ViewMade = v.node, v.deputy, v.rule(p), v.made
	if i := slices.IndexFunc(e.Nodes, func(n nodemap.Named) bool { return n.Node == e.View }); i >= 0 && sel.bySubnet {
		e.Layer = e.Nodes[i].Layer
	}
	if c := v.rankState.lastSwitch; c != nil && v.site == nil {
		last := c.describe()
		e.LastSwitch = &last
	}
	e.Servers = d.serversOf(t, p, v, sel.addrs)
	return e, nil
}

// whySource returns why a client subnet is answered by the source address.
func (e *Explanation) whySource() string {
	switch {
	case !public(e.Subnet.Addr()):
		return "it is private"
	case !e.Block.IsValid():
		return "there is no map from a DNS-B yet"
	case len(e.Nodes) == 0:
		return "the map names no node for it"
	}
	return "of the nodes that the map names for it, none has a view with servers that are up"
}

// basis is what a pool is ranked by for a client.
type basis struct {
	node         string
	rankState    *rankState
	observations *observations
	made         time.Time // of the view of a principal; zero: measured by this node
	deputy       bool      // of that principal
	site         *siteView // of the client; nil: it has none
}

// siteView is how a pool is ranked for one site.
type siteView struct {
	*siteRanking
	number int
}

// siteBasisOf returns how a pool is ranked for the site of a client whose answer came
// from that, nil if there is another map since.
func (d *DNSLB) siteBasisOf(p *pool, c *client, sel selection) *siteView {
	views, address := d.state.views(), c.address
	_, site := views.Slot(address)
	if sel.bySubnet {
		address = c.subnet.Addr
		_, site, _ = views.SubnetSlot(c.subnet.Addr())
	}
	if r, number := p.siteAt(views, site, address); number != nodemap.NoSite {
		return &siteView{r, number}
	}
	return nil
}

func (s *siteView) measurements() *SiteMeasurements {
	prefix, latencies := s.table.Site(s.number)
	out := &SiteMeasurements{Prefix: prefix, Routed: s.table.Routed(s.number)}
	for _, l := range latencies {
		ms, _ := strconv.ParseFloat(strconv.FormatFloat(float64(l.RTT), 'f', 1, 64), 64) // as DNS-B told it
		out.Measured = append(out.Measured, SiteMeasurement{s.table.Measuring[l.Node], ms, time.Unix(int64(l.At), 0).UTC()})
	}
	return out
}

// estimate returns the latency by which a member is ranked for the site, without its
// bias, and when the node beside it measured that; zero: it is estimated.
func (s *siteView) estimate(member int) (ranking.Estimate, time.Time) {
	order := s.orders[s.orderOf[s.number]]
	server := s.servers.of(order.slot)[member]
	_, latencies := s.table.Site(s.number)
	e := server.Estimate(siteAnswers(nil, latencies))
	if math.IsNaN(e.RTT) {
		return ranking.Estimate{}, time.Time{}
	}
	at := time.Time{}
	if i := slices.IndexFunc(latencies, func(l nodemap.Latency) bool { return int(l.Node) == server.Beside }); i >= 0 {
		at = time.Unix(int64(latencies[i].At), 0).UTC()
	}
	return ranking.Estimate{Round: 1, RTT: e.RTT, Value: e.RTT}, at
}

// ranked returns the members that are ranked for the site, best first, and those of
// them that are tied with the first one that is eligible.
func (s *siteView) ranked(p *pool, eligible []bool) (order, tied []int) {
	o := s.orders[s.orderOf[s.number]]
	for place, i := range o.members {
		if !eligible[i] {
			continue
		}
		if order == nil {
			tied = o.tiedWith(p, place, eligible)
		}
		order = append(order, int(i))
	}
	return order, tied
}

// basisOf returns that of a slot. The lock of the block state is held.
func (d *DNSLB) basisOf(t *snapshot, p *pool, slot int) basis {
	if slot > peerview.Own && slot < len(t.principals) && t.principals[slot] != nil && p.answerFor(slot) != p.answer.Load() {
		principal := t.principals[slot]
		return basis{principal.view.Node, p.principalState(slot), p.effective(&principal.observations), principal.view.Made, principal.view.HasDeputy(d.Node), nil}
	}
	return basis{node: d.Node, rankState: &p.state, observations: p.effective(&t.observed)}
}

// siteRule is the rule in explanations where a pool is ranked for a site.
const siteRule = "survey"

// rule returns the rule by which a pool has its first server.
func (v basis) rule(p *pool) string {
	if v.site != nil {
		return siteRule
	}
	if _, followed := p.eligibleWith(v.observations); followed != nil {
		return followRule
	}
	return v.rankState.ranker.Rule()
}

// serversOf describes each member of a pool, by the code that ranks them. The lock
// of the block state is held.
func (d *DNSLB) serversOf(t *snapshot, p *pool, v basis, answered []netip.Addr) []Server {
	order, tied, estimates := v.rankState.order(), v.rankState.tied(), p.estimates(v.observations, nil)
	eligible, followed := p.eligibleWith(v.observations)
	if v.site != nil {
		eligible, followed = p.eligible(func(m *member) bool { return !m.down(v.observations) }), nil
		order, tied = v.site.ranked(p, eligible)
	}
	all := p.allInOrder(order)
	out := make([]Server, len(all))
	for at, i := range all {
		m, e := p.members[i], estimates[i]
		status := v.observations.status[m.target]
		s := Server{
			Server: m.label, Address: m.addr, Estimate: e.Value, Noise: e.Noise, Measured: status.MeasuredAt,
			State: status.State.String(), Since: status.Since, Reason: status.Reason, Failing: status.Failing,
			Tier: m.tier, Weight: m.weight, Bias: milliseconds(m.bias), Drain: m.drain, Override: m.override.text, Beside: m.beside,
			Eligible: eligible[i], Tied: slices.Contains(tied, i), Answered: slices.Contains(answered, m.addr),
		}
		if at < len(order) {
			s.Rank = at + 1
		}
		if !s.Eligible {
			s.Why = m.ineligible(v.observations)
		}
		if !s.Eligible && followed != nil && followed.whole && s.Why == lowerTierUp {
			s.Why = "not eligible at the principal"
		}
		if d.watch != nil && v.made.IsZero() {
			stats := d.watch.Statistics(t.targets[m.target])
			s.Loss, s.Median, s.P95 = &stats.Loss, milliseconds(stats.Median), milliseconds(stats.P95)
			s.Measured = d.watch.Status(t.targets[m.target]).MeasuredAt
		}
		if v.site != nil {
			e, measured := v.site.estimate(i)
			s.Estimate, s.Noise, s.Measured = m.biased(e).Value, 0, measured
			s.Loss, s.Median, s.P95 = nil, 0, 0 // of the way from this node, which does not count
			switch {
			case !measured.IsZero():
				s.Survey = "measured"
			case e.Measured():
				s.Survey = "estimated"
			}
		}
		out[at] = s
	}
	return out
}

// ineligible returns why a member is not eligible.
func (m *member) ineligible(v *observations) string {
	switch {
	case m.override.verb == serveroverride.Down:
		return "override"
	case m.down(v) && v.status[m.target].State != latencyprobe.Down:
		return "down at the principal"
	case m.down(v):
		return "down"
	case m.override.verb == serveroverride.Drain:
		return "override"
	case m.drain:
		return "drained"
	}
	return lowerTierUp
}

const lowerTierUp = "a server of a lower tier is up"
