package etcdstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/registrytest"
)

func TestServersShareSurvey(t *testing.T) {
	e := start(t)
	const patience = 2 * time.Minute
	follower := func() (*registry.Registry, *registrytest.Survey) {
		r, s := registry.New(testZone), new(registrytest.Survey)
		t.Cleanup(r.Close)
		r.SetSurvey(s)
		setStore(t, r, Location{URLs: e.URL}, time.Hour)
		return r, s
	}
	write := func(r *registry.Registry, values map[string][]byte) {
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if err = r.WriteSurvey(values); err == nil {
				return
			}
		}
		t.Fatal(err)
	}
	sees := func(s *registrytest.Survey, want string) {
		t.Helper()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if got, _ := s.State(); got == want {
				return
			}
		}
		got, _ := s.State()
		t.Fatalf("Expected %s, got %s", want, got)
	}
	one, seenByOne := follower()
	many := make(map[string][]byte) // more than one transaction and page hold
	for i := range 2*surveyPage + 1 {
		many[fmt.Sprintf("key%04d", i)] = []byte("1")
	}
	write(one, many)
	for key := range many {
		many[key] = nil
	}
	_, late := follower()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		values, _ := late.State()
		n := strings.Count(values, ":1")
		if n == len(many) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Expected %d values, got %d", len(many), n)
		}
	}
	write(one, many) // removes all
	other, seenByOther := follower()
	write(one, map[string][]byte{"198.18.1.0/24": []byte("1 a"), "par1": []byte("1")})
	sees(seenByOther, "map[198.18.1.0/24:1 a par1:1]")
	write(other, map[string][]byte{"198.18.1.0/24": []byte("1 a b")})
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if got, _ := seenByOne.State(); strings.Contains(got, "198.18.1.0/24:1 a b") {
			break
		} else if time.Now().After(end) {
			t.Fatalf("Expected what the other server wrote, got %.200s", got)
		}
	}

	// While etcd is away, values wait; then each server is told to write what it has.
	// The server must have noticed: a restart within one check loses nothing.
	_, before := seenByOther.State()
	e.Kill()
	for end := time.Now().Add(patience); !errors.Is(other.WriteSurvey(map[string][]byte{"x": []byte("1")}), errAway); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Expected the session with etcd to end")
		}
	}
	e.Start()
	write(other, map[string][]byte{"x": []byte("1")})
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if got, now := seenByOther.State(); now > before && strings.Contains(got, "x:1") {
			break
		} else if time.Now().After(end) {
			t.Fatalf("Expected all to be read again, got %s", got)
		}
	}
}
