package dnslb

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
)

const (
	// maxPasts is how many pools of a server block have a past: those of the services
	// that are configured first.
	maxPasts = 10000
	// maxSwitches is how many switches of a pool are remembered: the newest ones.
	maxSwitches = 16
	// switchesFor is how long a switch is remembered.
	switchesFor = 24 * time.Hour
	// shareTime is the least time that the shares of answers are made of, unless less
	// is known; twice that is the most.
	shareTime = 5 * time.Minute
)

// past is what happened to a pool, from the point of view of this node. It takes up to
// 2.6 KB. The lock of the block state guards it. Pools of two instances share it during
// a reload.
type past struct {
	day      *history.Series // latency of the first member, or that all are down, once a round
	switches []*switchEvent  // oldest first

	// Answers by their first address at two earlier times. Nil: not counted.
	earlier, recent servedCount
}

// servedCount is how many answers a pool has given by some time.
type servedCount struct {
	at    time.Time
	count map[netip.Addr]uint64
}

// pastOf returns the past of a pool, nil if it has none.
func (p *pool) pastOf() *past {
	if p.past == nil && p.recorded {
		p.past = &past{day: history.NewDay()}
	}
	return p.past
}

// continuePast has the pool go on with the past of its predecessor, of which it has
// its own copy if another pool does.
func (p *pool) continuePast(predecessor *pool, continued bool) {
	old := predecessor.past
	if !p.recorded || old == nil {
		return
	}
	if continued {
		copied := *old
		copied.day, copied.switches = old.day.Clone(), slices.Clone(old.switches)
		old = &copied
	}
	p.past = old
}

// addSwitch adds a switch, unless the pool has no past.
func (h *past) addSwitch(e *switchEvent) {
	if h == nil {
		return
	}
	h.switches = append(h.switches, e)
	if n := len(h.switches); n > maxSwitches {
		h.switches = slices.Delete(h.switches, 0, n-maxSwitches)
	}
}

// recordRound adds what a decision round has come to to the past of all pools.
func (r *ranker) recordRound(now time.Time) {
	for _, p := range r.snapshot.pools[:min(len(r.snapshot.pools), maxPasts)] {
		r.block.mu.Lock()
		p.record(p.pastOf(), &r.observed, now)
		r.block.mu.Unlock()
	}
}

func (p *pool) record(h *past, o *observations, now time.Time) {
	first := o.status[p.members[p.state.first()].target]
	switch {
	case p.state.allDown:
		h.day.AddLoss(now)
	case first.Estimate.Measured():
		h.day.Add(now, time.Duration(first.Estimate.RTT*float64(time.Millisecond)))
	}
	if len(h.switches) > 0 && now.Sub(h.switches[0].at) > switchesFor {
		h.switches = slices.Delete(h.switches, 0, 1)
	}
	if p.served != nil && now.Sub(h.recent.at) >= shareTime {
		h.earlier, h.recent = h.recent, servedCount{now, p.servedNow()}
	}
}

// servedNow returns the answers until now.
func (p *pool) servedNow() map[netip.Addr]uint64 {
	count := make(map[netip.Addr]uint64, len(p.served))
	for addr, n := range p.served {
		count[addr] = n.Load()
	}
	return count
}

// shareOf returns the answers by their first address since some time ago: 5 to 10
// minutes, or less if less is known.
func (p *pool) shareOf(now time.Time) (map[netip.Addr]uint64, time.Duration) {
	if p.past == nil || p.served == nil || p.past.recent.at.IsZero() {
		return nil, 0
	}
	base := p.past.earlier
	if base.at.IsZero() {
		base = p.past.recent
	}
	count := p.servedNow()
	maps.DeleteFunc(count, func(addr netip.Addr, n uint64) bool { return n <= base.count[addr] })
	for addr := range count {
		count[addr] -= base.count[addr]
	}
	return count, now.Sub(base.at)
}

// History is the past of a service in one address family, as a Go value and as JSON: as
// this node measured and ranked its servers for its own resolvers.
type History struct {
	Service string `json:"service"`
	Type    string `json:"type"` // A or AAAA

	Servers []ServerHistory `json:"servers"` // best first, then those that are not ranked
	// Day is the latency of the first server, without its bias, once a decision round.
	// A loss is a round in which all servers were down.
	Day      history.Past `json:"day"`
	Switches []Switch     `json:"switches"` // of the first server, the last 16 of a day, newest first

	// Counted is how far back the answers of servers are counted, in seconds. 0: they
	// are not.
	Counted float64 `json:"counted_s,omitempty"`

	at       time.Time
	first    netip.Addr     // of the servers now; zero: all are down
	switches []*switchEvent // oldest first
}

// ServerHistory is the past of one address of a server.
type ServerHistory struct {
	Server  string       `json:"server"`
	Address netip.Addr   `json:"address"`
	Hour    history.Past `json:"hour"`    // its latency, without its bias
	Answers uint64       `json:"answers"` // in which its address came first, in the time of Counted
}

// HistoryOf returns the past of a service in both address families.
func (d *DNSLB) HistoryOf(service string) ([]History, error) {
	t := d.snapshot.Load()
	n, _ := t.lookup(dns.CanonicalName(service))
	if n.service == nil {
		return nil, fmt.Errorf("%s is no service", dns.CanonicalName(service))
	}
	var all []History
	for _, p := range []*pool{n.service.a, n.service.aaaa} {
		if p != nil {
			all = append(all, d.historyOf(t, n.service.name, p))
		}
	}
	return all, nil
}

func (d *DNSLB) historyOf(t *snapshot, service string, p *pool) History {
	now := time.Now()
	h := History{
		Service: service, Type: dns.Type(p.qtype()).String(), Servers: []ServerHistory{}, Switches: []Switch{},
		Day: history.Past{From: now, Slots: []history.Slot{}}, at: now,
	}
	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	answers, counted := p.shareOf(now)
	h.Counted = counted.Seconds()
	if !p.state.allDown {
		h.first = p.members[p.state.first()].addr
	}
	for _, i := range p.allInOrder(p.state.order()) {
		m := p.members[i]
		s := ServerHistory{Server: m.label, Address: m.addr, Answers: answers[m.addr], Hour: history.Past{From: now, Slots: []history.Slot{}}}
		if d.watch != nil {
			s.Hour = d.watch.LastHour(t.targets[m.target])
		}
		h.Servers = append(h.Servers, s)
	}
	if p.past == nil {
		return h
	}
	h.Day = p.past.day.Past(now)
	h.switches = slices.Clone(p.past.switches)
	for _, e := range slices.Backward(h.switches) {
		h.Switches = append(h.Switches, e.describe())
	}
	return h
}
