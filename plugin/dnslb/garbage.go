package dnslb

import (
	"sync"

	"github.com/coredns-dnslb/coredns-dnslb/internal/garbage"
)

// saveAbove is above how many services space is saved. What they have lives long, and
// little garbage is made of it.
const saveAbove = 10_000

// savings are those of the process.
var savings serviceSavings

// serviceSavings saves space while all instances together have many services. The zero
// value is ready.
type serviceSavings struct {
	mu       sync.Mutex
	services map[*DNSLB]int
	end      func() // nil: it does not save
}

// set notes how many services an instance has; 0 when it ends.
func (s *serviceSavings) set(instance *DNSLB, services int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.services == nil {
		s.services = make(map[*DNSLB]int)
	}
	s.services[instance] = services
	if services == 0 {
		delete(s.services, instance)
	}
	sum := 0
	for _, n := range s.services {
		sum += n
	}
	switch many := sum > saveAbove; {
	case many && s.end == nil:
		s.end = garbage.Save()
	case !many && s.end != nil:
		s.end()
		s.end = nil
	}
}
