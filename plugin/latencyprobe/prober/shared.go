package prober

import (
	"net/netip"
	"sync"
)

// Sharer is implemented by methods whose probes share something that is better
// not opened for each of them.
type Sharer interface {
	// Hold keeps open what probes of addr from source share, from the first
	// probe that needs it on, until release is called once.
	Hold(addr, source netip.Addr) (release func())
}

// shared owns one value for each key that has users. It is safe for concurrent
// use.
type shared[K comparable, V any] struct {
	open  func(K) V
	close func(V)

	mu     sync.Mutex
	values map[K]*sharedValue[V]
}

type sharedValue[V any] struct {
	value V
	users int
}

// hold returns the value of a key. The last release closes the value, and
// returns when that is done.
func (s *shared[K, V]) hold(key K) (value V, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	if !ok {
		if s.values == nil {
			s.values = make(map[K]*sharedValue[V])
		}
		v = &sharedValue[V]{value: s.open(key)}
		s.values[key] = v
	}
	v.users++
	return v.value, func() { s.release(key) }
}

func (s *shared[K, V]) release(key K) {
	s.mu.Lock()
	v := s.values[key]
	v.users--
	last := v.users == 0
	if last {
		delete(s.values, key)
	}
	s.mu.Unlock()
	if last {
		s.close(v.value)
	}
}
