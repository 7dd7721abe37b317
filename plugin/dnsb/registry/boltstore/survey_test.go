package boltstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/registrytest"
)

// opened returns a registry with a store, and the survey that follows it.
func opened(t *testing.T, path string) (*registry.Registry, *registrytest.Survey) {
	t.Helper()
	r, s := registry.New(testZone), new(registrytest.Survey)
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
	if got, _ := s.State(); got != "map[]" {
		t.Errorf("Expected an empty store, got %s", got)
	}
	r.Close()

	r, s = opened(t, path)
	got, moved := s.State()
	if got != "map[b:4 c:3]" {
		t.Errorf("Expected the values that are left, got %s", got)
	}
	if n := len(r.State().Records); n != 1 {
		t.Errorf("Expected the registration beside it, got %d", n)
	}

	// A file that is lost is written anew, and the survey is told.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSurvey(map[string][]byte{"d": []byte("5")}); err == nil {
		t.Error("Expected an error while the file is gone")
	}
	register(t, r, registrationtest.Node("nyc1", "192.0.2.54"), 1000)
	if _, now := s.State(); now != moved+1 {
		t.Errorf("Expected the survey to know of the new file, got %d", now-moved)
	}
	if err := r.WriteSurvey(map[string][]byte{"d": []byte("5")}); err != nil {
		t.Error(err)
	}
	r.Close()
	r, s = opened(t, path)
	defer r.Close()
	if got, _ := s.State(); got != "map[d:5]" {
		t.Errorf("Expected what was written to the new file, got %s", got)
	}
}
