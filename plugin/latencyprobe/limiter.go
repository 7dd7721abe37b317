package latencyprobe

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// addressPause is the least time between two probes of one address from one
// source, whatever the method: more probes would look like an attack.
const addressPause = time.Second

// addressLimiter limits the probes of the process.
var addressLimiter = limiter{busy: make(map[addressPair]*turns)}

type addressPair struct{ source, target netip.Addr }

// limiter keeps addressPause between the probes of each pair of addresses. The
// servers and nodes that have the same address take turns, however many targets
// each of them has: a node can register the address of another one.
type limiter struct {
	mu   sync.Mutex
	busy map[addressPair]*turns // that were probed less than addressPause ago
}

// turns are the probes that wait until a pair may be probed again.
type turns struct{ queues []queue } // the first one is the next

// queue holds the probes of one server or node, the next one first. It is not empty.
type queue struct {
	name   string
	probes []chan struct{} // closed when it may begin
}

// wait waits until a target with this name may be probed, and reports whether that
// was before ctx ended. If it is the first, it comes before others with this name.
func (l *limiter) wait(ctx context.Context, pair addressPair, name string, first bool) bool {
	turn := l.reserve(pair, name, first)
	if turn == nil {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		l.cancel(pair, name, turn)
		return false
	case <-turn:
		return true
	}
}

// reserve returns a channel that is closed when it is the turn of a probe, nil if
// that is now.
func (l *limiter) reserve(pair addressPair, name string, first bool) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.busy[pair]
	if !ok {
		t = new(turns)
		l.busy[pair] = t
		time.AfterFunc(addressPause, func() { l.next(pair, t) })
		return nil
	}
	turn := make(chan struct{})
	switch i := t.find(name); {
	case i >= 0 && first:
		t.queues[i].probes = slices.Insert(t.queues[i].probes, 0, turn)
	case i >= 0:
		t.queues[i].probes = append(t.queues[i].probes, turn)
	default:
		t.queues = append(t.queues, queue{name, []chan struct{}{turn}})
	}
	return turn
}

// next lets the next probe of a pair begin. If none waits, the pair is free.
func (l *limiter) next(pair addressPair, t *turns) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(t.queues) == 0 {
		if l.busy[pair] == t {
			delete(l.busy, pair)
		}
		return
	}
	first := t.queues[0]
	close(first.probes[0])
	t.queues = slices.Delete(t.queues, 0, 1)
	if first.probes = first.probes[1:]; len(first.probes) > 0 {
		t.queues = append(t.queues, first)
	}
	time.AfterFunc(addressPause, func() { l.next(pair, t) })
}

// cancel gives up a turn, unless it has come.
func (l *limiter) cancel(pair addressPair, name string, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.busy[pair]
	i := t.find(name)
	if i < 0 {
		return
	}
	q := &t.queues[i]
	q.probes = slices.DeleteFunc(q.probes, func(other chan struct{}) bool { return other == turn })
	if len(q.probes) == 0 {
		t.queues = slices.Delete(t.queues, i, i+1)
	}
}

// find returns the index of the queue of a name, -1 if there is none. It is also
// for nil.
func (t *turns) find(name string) int {
	if t == nil {
		return -1
	}
	return slices.IndexFunc(t.queues, func(q queue) bool { return q.name == name })
}
