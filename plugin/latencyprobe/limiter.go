package latencyprobe

import (
	"maps"
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
	mu       sync.Mutex
	busy     map[addressPair]*turns // that were probed less than addressPause ago, or a little more
	sweeping bool                   // a timer removes those that are free
}

// turns are the probes that wait until a pair may be probed again.
type turns struct {
	free   time.Time // when the pair may be probed
	timed  bool      // a timer calls next
	queues []queue   // the first one is the next
}

// queue holds the turns of one server or node, the next one first. It is not empty.
type queue struct {
	name  string
	turns []*turn
}

// turn is that of a probe that waits.
type turn struct{ begin func() }

// enter waits until a target with this name may be probed, without a goroutine: then it
// calls begin, in a goroutine of its own. If that is now it returns nil instead, else
// the turn, which can be canceled. If it is the first, it comes before others with this
// name.
func (l *limiter) enter(pair addressPair, name string, first bool, begin func()) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	waiting, ok := l.busy[pair]
	if !ok {
		waiting = new(turns)
		l.busy[pair] = waiting
		l.sweepLater()
	}
	if len(waiting.queues) == 0 && !now.Before(waiting.free) {
		waiting.free = now.Add(addressPause)
		return nil
	}
	l.nextAfter(waiting, waiting.free.Sub(now))
	t := &turn{begin}
	switch i := waiting.find(name); {
	case i >= 0 && first:
		waiting.queues[i].turns = slices.Insert(waiting.queues[i].turns, 0, t)
	case i >= 0:
		waiting.queues[i].turns = append(waiting.queues[i].turns, t)
	default:
		waiting.queues = append(waiting.queues, queue{name, []*turn{t}})
	}
	return t
}

// nextAfter calls next after a pause, unless a timer does.
func (l *limiter) nextAfter(waiting *turns, pause time.Duration) {
	if !waiting.timed {
		waiting.timed = true
		time.AfterFunc(pause, func() { l.next(waiting) })
	}
}

// next lets the next probe of a pair begin.
func (l *limiter) next(waiting *turns) {
	l.mu.Lock()
	waiting.timed = false
	now := time.Now()
	switch early := waiting.free.Sub(now); {
	case len(waiting.queues) == 0: // those that waited have ended
		l.mu.Unlock()
		return
	case early > 0: // and one that came later has begun
		l.nextAfter(waiting, early)
		l.mu.Unlock()
		return
	}
	first := waiting.queues[0]
	t := first.turns[0]
	waiting.queues = slices.Delete(waiting.queues, 0, 1)
	if first.turns = first.turns[1:]; len(first.turns) > 0 {
		waiting.queues = append(waiting.queues, first)
	}
	waiting.free = now.Add(addressPause)
	if len(waiting.queues) > 0 {
		l.nextAfter(waiting, addressPause)
	}
	l.mu.Unlock()
	t.begin()
}

// sweepLater removes pairs that are free after a while, unless a timer does. One timer
// for all pairs costs less than one for each probe.
func (l *limiter) sweepLater() {
	if !l.sweeping {
		l.sweeping = true
		time.AfterFunc(addressPause, l.sweep)
	}
}

func (l *limiter) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(l.busy, func(_ addressPair, waiting *turns) bool {
		return len(waiting.queues) == 0 && !waiting.timed && !now.Before(waiting.free)
	})
	if l.sweeping = false; len(l.busy) > 0 {
		l.sweepLater()
	}
}

// cancel gives up a turn, and reports whether it had not come yet.
func (l *limiter) cancel(pair addressPair, name string, t *turn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.busy[pair]
	i := waiting.find(name)
	if i < 0 {
		return false
	}
	q := &waiting.queues[i]
	j := slices.Index(q.turns, t)
	if j < 0 {
		return false
	}
	if q.turns = slices.Delete(q.turns, j, j+1); len(q.turns) == 0 {
		waiting.queues = slices.Delete(waiting.queues, i, i+1)
	}
	return true
}

// find returns the index of the queue of a name, -1 if there is none. It is also
// for nil.
func (t *turns) find(name string) int {
	if t == nil {
		return -1
	}
	return slices.IndexFunc(t.queues, func(q queue) bool { return q.name == name })
}
