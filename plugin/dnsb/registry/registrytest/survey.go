// Package registrytest has a survey for tests of stores.
package registrytest

import (
	"fmt"
	"sync"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// Survey notes what its store tells. The zero value is ready.
type Survey struct {
	mu     sync.Mutex
	moved  int
	values map[string]string
}

var _ registry.Survey = (*Survey)(nil)

// Moved implements the registry.Survey interface.
func (s *Survey) Moved(bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved++
}

// Take implements the registry.Survey interface.
func (s *Survey) Take(values map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = make(map[string]string)
	}
	for key, value := range values {
		s.values[key] = string(value)
	}
}

// State returns all values so far as a text, the newest one of each key, and how often
// the survey was moved.
func (s *Survey) State() (values string, moved int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.values), s.moved
}
