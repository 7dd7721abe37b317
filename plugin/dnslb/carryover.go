package dnslb

import (
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// carryOverLimit is how long a former latency of a server counts. New probes give the
// first samples within five seconds. A server that has no latency after a minute, and
// is not down, answers some probes and not others.
const carryOverLimit = time.Minute

// carryOver is what was known of servers by probes that the configuration has
// replaced. Until all of them are measured by the new probes, or down, it stands in
// for the latencies: those of two methods cannot be compared. A nil carryOver holds
// nothing.
type carryOver struct {
	status map[int]latencyprobe.Status // by target
	until  time.Time
}

// carryOver carries over what the previous snapshot knows of servers of which the
// probes of the snapshot t know nothing yet.
func (o *observations) carryOver(t, previous *snapshot) {
	former := previous.observed.carried
	if former == nil && !slices.ContainsFunc(o.status, func(s latencyprobe.Status) bool { return !s.Probed }) {
		return
	}
	c := &carryOver{status: make(map[int]latencyprobe.Status), until: time.Now().Add(carryOverLimit)}
	for _, p := range t.pools {
		old := p.predecessor(previous)
		if old == nil {
			continue
		}
		targets := make(map[netip.Addr]int, len(old.members))
		for _, m := range old.members {
			targets[m.addr] = m.target
		}
		for _, m := range p.members {
			i, ok := targets[m.addr]
			switch {
			case !ok:
			case former.pending(i) && t.targets[m.target] == previous.targets[i]:
				c.status[m.target] = former.status[i]
			case !o.status[m.target].Probed && settled(previous.observed.status[i]):
				c.status[m.target] = previous.observed.status[i]
			}
		}
	}
	if len(c.status) == 0 {
		return
	}
	o.carried = c
	for i := range c.status {
		o.status[i] = c.apply(i, o.status[i])
	}
}

// settled reports whether a server is down, or up with a latency.
func settled(s latencyprobe.Status) bool {
	return s.State == latencyprobe.Down || s.State == latencyprobe.Up && s.Estimate.Measured()
}

// pending reports whether the latency of a target is still that of its former probe.
func (c *carryOver) pending(target int) bool {
	if c == nil {
		return false
	}
	_, ok := c.status[target]
	return ok
}

// apply returns the status of a target: the former latency, and the health by the new
// probe as soon as that knows it.
func (c *carryOver) apply(target int, now latencyprobe.Status) latencyprobe.Status {
	if !c.pending(target) {
		return now
	}
	former := c.status[target]
	if now.State == latencyprobe.Unknown {
		former.Probed, former.Failing = now.Probed, now.Failing
		return former
	}
	now.Estimate = former.Estimate
	return now
}

// ended reports whether all servers are known by their new probes.
func (c *carryOver) ended(t *snapshot, watch measurements) bool {
	if time.Now().After(c.until) {
		return true
	}
	for target := range c.status {
		if !settled(watch.Status(t.targets[target])) {
			return false
		}
	}
	return true
}
