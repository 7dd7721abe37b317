package keep

import (
	"slices"
	"sync"
	"testing"

	"github.com/coredns/caddy"
)

// recorder notes what was closed, from several goroutines.
type recorder struct {
	mu     sync.Mutex
	closed []string
}

func (r *recorder) close(key string, _ int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, key)
}

// ended returns what was closed since it was last asked, sorted.
func (r *recorder) ended() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.closed
	r.closed = nil
	slices.Sort(out)
	return out
}

// TestOverlap walks through a reload as CoreDNS does it.
func TestOverlap(t *testing.T) {
	var rec recorder
	k := &Keeper[string, int]{Close: rec.close}
	made := 0
	create := func() int { made++; return made }

	first, second := new(Holder), new(Holder)
	k.Hold(first, "stays", create)
	k.Hold(first, "goes", create)
	if v := k.Hold(second, "stays", create); v != 1 || made != 2 {
		t.Errorf("Expected the value of the first instance, got %d", v)
	}
	k.Hold(second, "new", create)
	if len(k.Values()) != 3 {
		t.Errorf("Expected three values, got %v", k.Values())
	}
	k.Release(first)
	if got := rec.ended(); !slices.Equal(got, []string{"goes"}) {
		t.Errorf("Expected only what the second instance does not hold to end, got %v", got)
	}
	k.Release(first)
	k.Release(second)
	if got := rec.ended(); !slices.Equal(got, []string{"new", "stays"}) {
		t.Errorf("Expected all to end, got %v", got)
	}
	if v := k.Hold(first, "stays", create); v != 4 {
		t.Errorf("Expected a new value after the end of the last, got %d", v)
	}
}

// TestRestartFailed checks that what a failed instance held ends, which gets no
// shutdown call, and that the running instance keeps its own.
func TestRestartFailed(t *testing.T) {
	var rec recorder
	k := &Keeper[string, int]{Close: rec.close}
	zero := func() int { return 0 }

	running := caddy.NewTestController("dns", "")
	h := k.Attach(running)
	if k.Attach(running) != h {
		t.Error("Expected one holder an instance")
	}
	k.Hold(h, "own", zero)
	k.Hold(h, "shared", zero)

	failing := caddy.NewTestController("dns", "")
	other := k.Attach(failing)
	if other == h {
		t.Fatal("Expected another holder for another instance")
	}
	before := k.holding()
	k.Hold(other, "shared", zero)
	k.Hold(other, "failed", zero)
	k.releaseNewcomers(before)
	if got := rec.ended(); !slices.Equal(got, []string{"failed"}) {
		t.Errorf("Expected what only the failed instance held to end, got %v", got)
	}
	k.Release(h)
	if got := rec.ended(); !slices.Equal(got, []string{"own", "shared"}) {
		t.Errorf("Expected all to end, got %v", got)
	}
}
