package latencyprobe

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// perAddress is the least time between two probes of one address from one
// source, whatever is measured: more would look like an attack.
const perAddress = time.Second

// limits keeps that time for all targets.
var limits = limiter{next: make(map[path]time.Time)}

type path struct{ from, to netip.Addr }

type limiter struct {
	mu   sync.Mutex
	next map[path]time.Time // when the path is free again
	uses int
}

// wait waits for a path's turn and reports whether it came before ctx ended.
func (l *limiter) wait(ctx context.Context, key targetKey) bool {
	pause := l.reserve(path{key.source, key.target.Addr}, time.Now())
	if pause <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// reserve takes the next turn of a path and returns how long it is until then.
func (l *limiter) reserve(p path, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.uses++; l.uses > 2*len(l.next)+1024 {
		l.uses = 0
		for p, at := range l.next {
			if at.Before(now) {
				delete(l.next, p)
			}
		}
	}
	at := now
	if next := l.next[p]; next.After(now) {
		at = next
	}
	l.next[p] = at.Add(perAddress)
	return at.Sub(now)
}
