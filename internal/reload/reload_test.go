package reload

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coredns/caddy"
)

// world records what an Owner does, from several goroutines.
type world struct {
	mu     sync.Mutex
	events []string
}

func (w *world) add(event string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event)
}

// since returns what happened since it was last asked, sorted.
func (w *world) since() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.events)
	out := strings.Join(w.events, ", ")
	w.events = nil
	return out
}

func (w *world) expect(t *testing.T, want string) {
	t.Helper()
	if got := w.since(); got != want {
		t.Errorf("Expected %q, got %q", want, got)
	}
}

func (w *world) owner() *Owner[string, string, string] {
	return &Owner[string, string, string]{
		New: func(key string) string { w.add("new " + key); return key },
		Configure: func(value, want string) error {
			if want == "wrong" {
				return errors.New("wrong")
			}
			w.add("configure " + value + " " + want)
			return nil
		},
		Close: func(key, _ string) { w.add("close " + key) },
	}
}

func TestYoungestHolderConfigures(t *testing.T) {
	var w world
	o := w.owner()
	first, second := new(Holder), new(Holder)
	hold := func(h *Holder, key, want string) {
		t.Helper()
		if v, err := o.Hold(h, key, want); err != nil || v != key {
			t.Errorf("Expected the value of %s, got %q: %v", key, v, err)
		}
	}
	hold(first, "stays", "1")
	hold(first, "goes", "1")
	w.expect(t, "configure goes 1, configure stays 1, new goes, new stays")

	hold(second, "stays", "2")
	hold(second, "comes", "2")
	w.expect(t, "configure comes 2, configure stays 2, new comes")
	if n := len(o.Values()); n != 3 {
		t.Errorf("Expected three values, got %d", n)
	}

	if err := o.Update(first, "stays", "1a"); err != nil {
		t.Error(err)
	}
	w.expect(t, "")
	if err := o.Update(second, "stays", "2a"); err != nil {
		t.Error(err)
	}
	if err := o.Update(second, "goes", "2a"); err != nil {
		t.Error(err)
	}
	w.expect(t, "configure stays 2a")

	if err := o.Release(first); err != nil {
		t.Error(err)
	}
	w.expect(t, "close goes")
	if err := errors.Join(o.Release(first), o.Release(second)); err != nil {
		t.Error(err)
	}
	w.expect(t, "close comes, close stays")
	hold(first, "stays", "3")
	w.expect(t, "configure stays 3, new stays")
}

func TestHolderThatRemainsConfiguresAgain(t *testing.T) {
	var w world
	o := w.owner()
	first, second := new(Holder), new(Holder)
	for _, h := range []*Holder{first, second} {
		if _, err := o.Hold(h, "key", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Update(first, "key", "1a"); err != nil {
		t.Error(err)
	}
	w.since()
	if err := o.Drop(second, "key"); err != nil {
		t.Error(err)
	}
	w.expect(t, "configure key 1a")
	if err := errors.Join(o.Drop(second, "key"), o.Drop(first, "none"), o.Drop(first, "key")); err != nil {
		t.Error(err)
	}
	w.expect(t, "close key")
}

func TestFailedConfigurationChangesNothing(t *testing.T) {
	var w world
	o := w.owner()
	first, second := new(Holder), new(Holder)
	if _, err := o.Hold(first, "key", "1"); err != nil {
		t.Fatal(err)
	}
	w.since()
	if _, err := o.Hold(second, "key", "wrong"); err == nil {
		t.Error("Expected an error")
	}
	w.expect(t, "configure key 1")
	if _, err := o.Hold(second, "other", "wrong"); err == nil {
		t.Error("Expected an error")
	}
	w.expect(t, "close other, new other")
	if err := o.Release(first); err != nil {
		t.Error(err)
	}
	w.expect(t, "close key")
}

// TestFailedReload checks that what an instance held ends that failed to start:
// CoreDNS calls no shutdown function of such an instance.
func TestFailedReload(t *testing.T) {
	var w world
	o := w.owner()
	running := caddy.NewTestController("dns", "")
	h := o.Attach(running)
	if o.Attach(running) != h {
		t.Error("Expected one holder for each instance")
	}
	for _, key := range []string{"old", "shared"} {
		if _, err := o.Hold(h, key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	previous := o.holding()

	failing := o.Attach(caddy.NewTestController("dns", ""))
	if failing == h {
		t.Fatal("Expected another holder for another instance")
	}
	for _, key := range []string{"shared", "new"} {
		if _, err := o.Hold(failing, key, "2"); err != nil {
			t.Fatal(err)
		}
	}
	w.since()
	if err := o.release(func(h *Holder) bool { return !previous[h] }); err != nil {
		t.Error(err)
	}
	w.expect(t, "close new, configure shared 1")
	if err := o.Release(h); err != nil {
		t.Error(err)
	}
	w.expect(t, "close old, close shared")
}

func TestGroupStopsOnce(t *testing.T) {
	var (
		w world
		g Group
	)
	m := g.Attach(caddy.NewTestController("dns", ""))
	m.OnStop(func() { w.add("one") })
	m.OnStop(func() { w.add("two") })
	other := g.Attach(caddy.NewTestController("dns", ""))
	other.OnStop(func() { w.add("three") })
	if err := errors.Join(g.owner.Release(m.holder), g.owner.Release(m.holder)); err != nil {
		t.Error(err)
	}
	w.expect(t, "one, two")
}

func TestConcurrentHolders(t *testing.T) {
	o := &Owner[int, *sync.Mutex, int]{
		New: func(int) *sync.Mutex { return new(sync.Mutex) },
		Configure: func(value *sync.Mutex, _ int) error {
			if !value.TryLock() {
				return errors.New("configured twice at once")
			}
			defer value.Unlock()
			return nil
		},
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 200 {
				h := new(Holder)
				_, err := o.Hold(h, i%3, n)
				if err = errors.Join(err, o.Update(h, i%3, i), o.Release(h)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(o.Values()); n != 0 {
		t.Errorf("Expected no value, got %d", n)
	}
}
