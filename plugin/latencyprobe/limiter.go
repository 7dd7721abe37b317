package latencyprobe

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// addressPause is the least time between two probes of one address from one
// source, whatever the method: more probes would look like an attack.
const addressPause = time.Second

// addressLimiter limits the probes of the process.
var addressLimiter = limiter{free: make(map[addressPair]time.Time)}

type addressPair struct{ source, target netip.Addr }

// limiter keeps addressPause between the probes of each pair of addresses.
type limiter struct {
	mu    sync.Mutex
	free  map[addressPair]time.Time // when the pair may be probed again
	turns int                       // reserved since free pairs were removed
}

// wait waits until the pair may be probed, and reports whether that was before
// ctx ended.
func (l *limiter) wait(ctx context.Context, pair addressPair) bool {
	pause := l.reserve(pair, time.Now())
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

// reserve takes the next turn of a pair and returns the time until then.
func (l *limiter) reserve(pair addressPair, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns++; l.turns > 2*len(l.free)+1024 {
		l.turns = 0
		for pair, free := range l.free {
			if free.Before(now) {
				delete(l.free, pair)
			}
		}
	}
	turn := now
	if free := l.free[pair]; free.After(now) {
		turn = free
	}
	l.free[pair] = turn.Add(addressPause)
	return turn.Sub(now)
}
