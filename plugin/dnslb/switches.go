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

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
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
	previous, first := s.first(), d.order[0]
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
	if m.override.verb == serveroverride.Down {
		out.down = m.override.text
		return out
	}
	out.override = m.override.text
	switch {
	case !m.down(v):
	case s.State == latencyprobe.Down:
		out.down = s.Reason
	default:
		out.down = "as its principal sees it"
	}
	return out
}

// poolSwitch is a switch of a pool.
type poolSwitch struct {
	*pool
	*switchEvent
}

// logSwitches counts the switches of one pass and logs them, as the resolvers of
// a node see them: this node, or a principal. All services that the same event
// has touched share one line.
func (r *ranker) logSwitches(switched []poolSwitch, node string) {
	for _, s := range switched {
		switches.WithLabelValues(r.conf.Zones[0], r.conf.Node, node, string(s.cause)).Inc()
	}
	principal := ""
	if node != r.conf.Node {
		principal = "as deputy of " + node + ": "
	}
	logFirst := r.ready.Load() && principal == "" // else one line about all pools is enough
	events := groupByEvent(switched, logFirst)
	for _, e := range slices.SortedFunc(maps.Keys(events), func(a, b event) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), strings.Compare(a.server, b.server))
	}) {
		text := r.conf.prefix() + principal + r.describe(events[e])
		if e.cause == AllDown {
			log.Warning(text)
		} else {
			log.Info(text)
		}
	}
}

// event is what makes pools switch.
type event struct {
	cause  ranking.Cause
	server string // whose change it is; "": that of no single server
}

// groupByEvent returns switches by the event that is taken for their cause.
func groupByEvent(switched []poolSwitch, logFirst bool) map[event][]poolSwitch {
	left, chosen := make(map[string]int), make(map[string]int) // by server, for a lower latency
	for _, s := range switched {
		if s.cause == ranking.Lower {
			left[s.from.server]++
			chosen[s.to.server]++
		}
	}
	events := make(map[event][]poolSwitch)
	for _, s := range switched {
		e := event{s.cause, s.from.server}
		switch s.cause {
		case ranking.First:
			if !logFirst {
				continue
			}
			e.server = s.to.server
		case ranking.Up, Tier:
			e.server = s.to.server
		case ranking.Lower:
			// One server got faster or another one slower: the one that moved more pools.
			if chosen[s.to.server] > left[s.from.server] {
				e.server = s.to.server
			}
		case AllDown, Override, Drained, Removed, ranking.Followed:
			e.server = "" // the network, the operator, or a switch that the principal logs
		}
		events[e] = append(events[e], s)
	}
	return events
}

// describe describes the switches of one event.
func (r *ranker) describe(switched []poolSwitch) string {
	first, pools := switched[0], poolNames(switched)
	switch {
	case first.cause == AllDown:
		return fmt.Sprintf("All servers of %s are down, answering with %s", pools, r.conf.allDown.describe(qtypesOf(switched)))
	case first.from.addr == first.to.addr && first.cause == ranking.Up:
		return fmt.Sprintf("Server %s of %s is up again", first.to, pools)
	case first.from.addr == first.to.addr:
		return fmt.Sprintf("Server %s of %s is up again: %s", first.to, pools, first.cause)
	}
	return fmt.Sprintf("Switched %s to %s from %s: %s", pools, first.to, first.from, first.cause)
}

// poolNames names the services of pools.
func poolNames(switched []poolSwitch) string {
	first := switched[0]
	if len(switched) == 1 {
		return first.pool.String()
	}
	services := make(map[string]bool)
	for _, s := range switched {
		for _, name := range s.services {
			services[name] = true
		}
	}
	if len(services) == 1 {
		return first.services[0] + " A and AAAA"
	}
	return fmt.Sprintf("%d services (such as %s %s)", len(services), first.services[0], dns.Type(first.qtype()))
}

// qtypesOf returns the types of records of switched pools, ascending.
func qtypesOf(switched []poolSwitch) []uint16 {
	qtypes := make([]uint16, 0, len(switched))
	for _, s := range switched {
		qtypes = append(qtypes, s.qtype())
	}
	slices.Sort(qtypes)
	return slices.Compact(qtypes)
}

// maxLoggedPools is the number of pools up to which each is logged at the start.
const maxLoggedPools = 20

// logFirstServers logs the first server of each pool when this server becomes
// ready, or only their number if there are many.
func (r *ranker) logFirstServers() {
	t := r.inUse.Load()
	if len(t.pools) > maxLoggedPools {
		log.Infof("%sRanked %s with %s of servers", r.conf.prefix(), plural.Of(t.services, "service"), plural.Of(len(t.targets), "address"))
		return
	}
	for _, p := range t.pools {
		log.Infof("%sRanked %s: first server is %s", r.conf.prefix(), p, p.answer.Load().addrs[0])
	}
}

// prefix names the node in the log: one process may be several nodes.
func (c *config) prefix() string {
	if c.Node == "" {
		return ""
	}
	return c.Node + ": "
}

// String names the services of the pool.
func (p *pool) String() string {
	if n := len(p.services); n > 1 {
		return fmt.Sprintf("%s and %s %s", p.services[0], plural.Of(n-1, "more service"), dns.Type(p.qtype()))
	}
	return p.services[0] + " " + dns.Type(p.qtype()).String()
}
