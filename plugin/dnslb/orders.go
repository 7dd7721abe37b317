package dnslb

import (
	"slices"
	"time"
)

// ordersByTime are the orders of the admin file, of which each ends by itself,
// and what was told of them.
type ordersByTime struct {
	prefix  string // of log lines
	running []order
	over    []order
	ends    time.Time // when the next one does; zero: never

	inForce []order     // that were told of
	idle    []idleOrder // that were told of
}

// resume takes over those of the instance before: they are no news.
func (o *ordersByTime) resume(before *table) {
	o.running, o.inForce, o.idle = before.orders, before.inForce, before.idle
}

// look finds out which orders are running, and reports whether they are others. It
// need not look closely as long as none was read and none ends.
func (o *ordersByTime) look(all []order, read bool) bool {
	now := time.Now()
	if !read && (o.ends.IsZero() || now.Before(o.ends)) {
		return false
	}
	before, over := o.running, o.over
	o.running, o.over, o.ends = byEnd(all, now)
	for _, order := range before {
		if !slices.Contains(o.running, order) {
			log.Infof("%sorder ended: %s", o.prefix, order.text)
		}
	}
	for _, order := range o.over {
		if !slices.Contains(before, order) && !slices.Contains(over, order) {
			log.Warningf("%sorder without effect, its time is over: %s", o.prefix, order.text)
		}
	}
	return true
}

// tell tells of the orders that servers are under now, and of those that no server
// of a service is under, once.
func (o *ordersByTime) tell(t *table) {
	for _, order := range t.inForce {
		if !slices.Contains(o.inForce, order) {
			log.Infof("%sorder in force: %s", o.prefix, order.text)
		}
	}
	for _, order := range t.idle {
		if !slices.Contains(o.idle, order) {
			log.Warningf("%sorder without effect, %s: %s", o.prefix, order.why, order.text)
		}
	}
	o.inForce, o.idle = t.inForce, t.idle
}

// byEnd returns the orders that have not ended and those that have, and when
// the next one will; zero: never.
func byEnd(orders []order, now time.Time) (running, over []order, next time.Time) {
	for _, o := range orders {
		if !now.Before(o.until) {
			over = append(over, o)
			continue
		}
		running = append(running, o)
		if next.IsZero() || o.until.Before(next) {
			next = o.until
		}
	}
	return running, over, next
}
