package dnsb

import (
	"sync"

	"golang.org/x/time/rate"
)

// What the holder of a key may take of the server. A node sends a registration
// now and then, one with the most prefixes in 20 messages, and starts anew when
// one of them is lost.
const (
	updatesPerSecond = 2 // of one node
	updatesAtOnce    = 60

	// waitingCost bounds the UPDATEs of one key that wait for their turn, by
	// their cost: thousands of small ones, or some large ones.
	waitingCost = 1 << 20
)

// shares gives all keys the same share of the server. The UPDATEs of one key are
// processed one at a time, so that each key waits for no more than one UPDATE of
// each other key. It is safe for concurrent use. The zero value is ready.
type shares struct {
	mu    sync.Mutex
	keys  map[string]*share        // those of accept rules
	nodes map[string]*rate.Limiter // by key and node of accept rules
}

// share is that of one key.
type share struct {
	turn    chan struct{} // holds one value while an UPDATE is processed
	waiting int           // cost, with shares.mu locked
}

// enter waits until it is the turn of an UPDATE of this cost, until leave. It
// reports false if too many others of the key are waiting.
func (s *shares) enter(key string, cost int) (leave func(), ok bool) {
	s.mu.Lock()
	k := s.keys[key]
	if k == nil {
		if s.keys == nil {
			s.keys = make(map[string]*share)
		}
		k = &share{turn: make(chan struct{}, 1)}
		s.keys[key] = k
	}
	if k.waiting+cost > waitingCost {
		s.mu.Unlock()
		return nil, false
	}
	k.waiting += cost
	s.mu.Unlock()

	k.turn <- struct{}{}
	return func() {
		<-k.turn
		s.mu.Lock()
		defer s.mu.Unlock()
		k.waiting -= cost
	}, true
}

// allow reports whether the holder of key may send one more UPDATE of node now.
func (s *shares) allow(key, node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := key + " " + node
	l := s.nodes[id]
	if l == nil {
		if s.nodes == nil {
			s.nodes = make(map[string]*rate.Limiter)
		}
		l = rate.NewLimiter(updatesPerSecond, updatesAtOnce)
		s.nodes[id] = l
	}
	return l.Allow()
}
