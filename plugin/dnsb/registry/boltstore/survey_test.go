package boltstore

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// survey notes what its store tells.
type survey struct {
	mu     sync.Mutex
	moved  int
	values map[string]string
}

func (s *survey) Moved(bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved++
}

func (s *survey) Take(values map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, value := range values {
		s.values[key] = string(value)
	}
}

// opened returns a registry with a store, and the survey that follows it.
func opened(t *testing.T, path string) (*registry.Registry, *survey) {
	t.Helper()
	r, s := registry.New(testZone), &survey{values: make(map[string]string)}
	r.SetSurvey(s)
	if err := r.SetStore(Location(path), time.Hour); err != nil {
		t.Fatal(err)
	}
	return r, s
}

func TestSurveyIsStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.db")
	r, s := opened(t, path)
	if err := r.WriteSurvey(map[string][]byte{"a": []byte("1"), "b": []byte("2"), "c": []byte("3")}); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSurvey(map[string][]byte{"a": nil, "b": []byte("4"), "x": nil}); err != nil {
		t.Fatal(err)
	}
	register(t, r, registrationtest.Node("par1", "192.0.2.53"), 1000)
	if len(s.values) != 0 {
		t.Errorf("Expected an empty store, got %v", s.values)
	}
	r.Close()

	r, s = opened(t, path)
	if want := map[string]string{"b": "4", "c": "3"}; !maps.Equal(s.values, want) {
		t.Errorf("Expected %v, got %v", want, s.values)
	}
	if n := len(r.State().Records); n != 1 {
		t.Errorf("Expected the registration beside it, got %d", n)
	}

	// A file that is lost is written anew, and the survey is told.
	moved := s.moved
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSurvey(map[string][]byte{"d": []byte("5")}); err == nil {
		t.Error("Expected an error while the file is gone")
	}
	register(t, r, registrationtest.Node("nyc1", "192.0.2.54"), 1000)
	if s.moved != moved+1 {
		t.Errorf("Expected the survey to know of the new file, got %d", s.moved-moved)
	}
	if err := r.WriteSurvey(map[string][]byte{"d": []byte("5")}); err != nil {
		t.Error(err)
	}
	r.Close()
	r, s = opened(t, path)
	defer r.Close()
	if got := fmt.Sprint(s.values); got != "map[d:5]" {
		t.Errorf("Expected what was written to the new file, got %s", got)
	}
}
