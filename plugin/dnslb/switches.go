package dnslb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// Causes of a switch beside those of the ranking, which knows no difference
// between a member that is down and one that is not eligible.
const (
	AllDown  ranking.Cause = "all_down" // no server is up: the order is the last one
	Tier     ranking.Cause = "tier"     // a server of a lower tier is up
	Drained  ranking.Cause = "drain"    // the first server is drained
	Override ranking.Cause = "override" // an override of the admin file
	Removed  ranking.Cause = "removed"  // the first server is no server of the service any more
)

// switchEvent is a change of the first member of a pool, from one point of view.
type switchEvent struct {
	at       time.Time
	cause    ranking.Cause
	from, to memberState
}

// switchEvent returns the switch that a decision is, nil if it is none. The rank
// state is the one before the decision.
func (p *pool) switchEvent(s *rankState, d decision, o *observations) *switchEvent {
	previous, first := s.order[0], d.order[0]
	if d.cause == ranking.Unchanged || first == previous && !d.allDown && !s.allDown && d.cause != Removed {
		return nil
	}
	e := &switchEvent{at: time.Now(), cause: d.cause, from: o.memberState(p.members[previous]), to: o.memberState(p.members[first])}
	if s.removedFirst != nil {
		e.from = *s.removedFirst
	}
	return e
}

// memberState is what was known of a member at the time of a switch.
type memberState struct {
	server   string
	addr     netip.Addr
	ms       float64 // the latency by which it was ranked, bias included; 0: not measured
	down     string  // why it was down; "" if it was not
	override string  // that it was under, unless that made it down
	removed  bool    // it is no server of the service any more
}

// String describes the server.
func (s memberState) String() string {
	who := s.server
	if addr := s.addr.String(); who != addr {
		who += " " + addr
	}
	how := fmt.Sprintf("%.1f ms", s.ms)
	switch {
	case s.removed:
		how = "removed"
	case s.down != "":
		how = "down: " + s.down
	case s.ms == 0:
		how = "not measured yet"
	}
	if s.override != "" {
		how += "; " + s.override
	}
	return who + " (" + how + ")"
}

func (v *observations) memberState(m *member) memberState {
	s := v.status[m.target]
	out := memberState{server: m.label, addr: m.addr, ms: m.biased(s.Estimate).Value}
	if m.override.verb == verbDown {
		out.down = m.override.text
		return out
	}
	out.override = m.override.text
	switch {
	case !m.down(v):
	case s.State == latencyprobe.Down:
		out.down = s.Reason
	default:
		out.down = "as seen by the node"
	}
	return out
}

// poolSwitch is a change and the pool that it is of.
type poolSwitch struct {
	*pool
	*switchEvent
}

// logSwitches counts the changes of one pass and logs them: one line for all services
// that the same event has touched. They are what the resolvers of a node see: of
// this one, or of another of which this one is a deputy.
func (d *DNSLB) logSwitches(changes []poolSwitch, of string) {
	type event struct {
		cause  ranking.Cause
		server string // that was left or, for a server that came, that was chosen
	}
	left, taken := make(map[string]int), make(map[string]int) // changes for a lower latency, by server
	for _, c := range changes {
		if c.cause == ranking.Lower {
			left[c.from.server]++
			taken[c.to.server]++
		}
	}
	events := make(map[event][]poolSwitch)
	for _, c := range changes {
		switches.WithLabelValues(d.Zones[0], d.Node, of, string(c.cause)).Inc()
		e := event{c.cause, c.from.server}
		switch c.cause {
		case ranking.First:
			if !d.Ready() || of != d.Node {
				continue // one line when all are measured, or of a view, will do
			}
			e.server = c.to.server
		case ranking.Up, Tier:
			e.server = c.to.server
		case ranking.Lower:
			// One way got faster, or another one slower: whose it was touched more services.
			if taken[c.to.server] > left[c.from.server] {
				e.server = c.to.server
			}
		case AllDown, Override, Drained, Removed, ranking.Followed:
			e.server = "" // the network, the operator, or what the other node logs by itself
		}
		events[e] = append(events[e], c)
	}
	for _, e := range slices.SortedFunc(maps.Keys(events), func(a, b event) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), strings.Compare(a.server, b.server))
	}) {
		text := d.prefix()
		if of != d.Node {
			text += "as deputy of " + of + ", "
		}
		text += d.describe(events[e])
		if e.cause == AllDown {
			log.Warning(text)
		} else {
			log.Info(text)
		}
	}
}

// describe tells of changes with the same cause.
func (d *DNSLB) describe(changes []poolSwitch) string {
	c := changes[0]
	text := fmt.Sprintf("first is now %s, before %s: %s", c.to, c.from, c.cause)
	switch {
	case c.cause == AllDown:
		text = "all servers are down, answered is " + d.allDown.describe(qtypesOf(changes))
	case c.from.addr == c.to.addr:
		text = fmt.Sprintf("%s is up again: %s", c.to, c.cause)
	}
	if len(changes) == 1 {
		return fmt.Sprintf("%s: %s", c.pool, text)
	}
	services := make(map[string]bool)
	for _, c := range changes {
		for _, name := range c.services {
			services[name] = true
		}
	}
	if len(services) == 1 {
		return fmt.Sprintf("%s, A and AAAA: %s", c.services[0], text)
	}
	return fmt.Sprintf("%d services, such as %s %s: %s", len(services), c.services[0], dns.Type(c.qtype()), text)
}

// qtypesOf returns the types of records that changes are of, ascending.
func qtypesOf(changes []poolSwitch) []uint16 {
	var qtypes []uint16
	for _, c := range changes {
		qtypes = append(qtypes, c.qtype())
	}
	slices.Sort(qtypes)
	return slices.Compact(qtypes)
}

// logFirstServers tells how all pools stand when the node begins to answer for good.
func (d *DNSLB) logFirstServers() {
	t := d.snapshot.Load()
	if len(t.pools) > maxFirstServers {
		log.Infof("%s%d services over %d addresses of servers are ranked", d.prefix(), t.services, len(t.targets))
		return
	}
	for _, p := range t.pools {
		log.Infof("%s%s: first is %s", d.prefix(), p, p.answer.Load().addrs[0])
	}
}

// maxFirstServers is how many pools are announced one by one.
const maxFirstServers = 20

// prefix names the node in the log, since a process may be several.
func (c *config) prefix() string {
	if c.Node == "" {
		return ""
	}
	return c.Node + ": "
}

// String names the services of the pool.
func (p *pool) String() string {
	if n := len(p.services); n > 1 {
		return fmt.Sprintf("%s and %d more services, %s", p.services[0], n-1, dns.TypeToString[p.qtype()])
	}
	return p.services[0] + " " + dns.TypeToString[p.qtype()]
}
