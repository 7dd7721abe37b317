package latencyprobe

import (
	"context"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{busy: make(map[addressPair]*turns)}
		a, b := addressPair{}, addressPair{target: loopback}
		start := time.Now()
		var probes sync.WaitGroup
		for i, tc := range []struct {
			pair  addressPair
			name  string
			at    time.Duration
			want  time.Duration // until the probe begins
			first bool
		}{
			{a, "x", 0, 0, false}, {b, "x", 0, 0, false},
			// One name waits for itself, another one takes turns with it.
			{a, "x", 1, time.Second, false}, {a, "x", 2, 4 * time.Second, false}, {a, "x", 3, 6 * time.Second, false},
			{a, "y", 4, 2 * time.Second, false},
			{a, "x", 2500 * time.Millisecond, 3 * time.Second, true}, // before others of its name
			{a, "y", 3500 * time.Millisecond, 5 * time.Second, true}, // and not of another one
			{b, "x", 500 * time.Millisecond, time.Second, true},
			{a, "x", time.Minute, time.Minute, true},
		} {
			probes.Go(func() {
				time.Sleep(tc.at)
				if ok := l.wait(t.Context(), tc.pair, tc.name, tc.first); !ok || time.Since(start) != tc.want {
					t.Errorf("Probe %d: expected to begin after %s, got %s", i, tc.want, time.Since(start))
				}
			})
		}
		probes.Wait()
		time.Sleep(2 * addressPause)
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.busy) > 0 {
			t.Errorf("Expected pairs that are free to be removed, got %d", len(l.busy))
		}
	})
}

func TestLimiterOfEndedProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{busy: make(map[addressPair]*turns)}
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		l.wait(ctx, addressPair{}, "x", false)
		var probes sync.WaitGroup
		for _, name := range []string{"x", "x", "y"} {
			probes.Go(func() {
				if l.wait(ctx, addressPair{}, name, true) {
					t.Error("Expected a probe whose measurement has ended not to begin")
				}
			})
		}
		synctest.Wait()
		cancel()
		probes.Wait()
		if l.wait(ctx, addressPair{target: loopback}, "x", false) {
			t.Error("Expected no probe of a free address after the end")
		}
		if !l.wait(t.Context(), addressPair{}, "z", false) || time.Since(start) != addressPause {
			t.Errorf("Expected the turns of ended probes to be free, waited %s", time.Since(start))
		}
		time.Sleep(2 * addressPause)
	})
}

// TestNodeCannotDelayProbesOfAnother checks that a node with many targets at the
// address of another one does not delay the discovery that this one is down.
func TestNodeCannotDelayProbesOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		victim := Target{Name: "par1", Addr: netip.MustParseAddr("192.0.2.1")}
		f, stolen := newFake(time.Millisecond), withProber(newFake(time.Millisecond))
		w, u := withProber(f).Watch(), stolen.Watch()
		defer w.Close()
		defer u.Close()
		var registered []Target
		for i := range 256 {
			registered = append(registered, Target{Name: "stolen", Addr: victim.Addr, Probe: strconv.Itoa(i)})
			stolen.probes[strconv.Itoa(i)] = stolen.probes[""]
		}
		u.Set(registered)
		w.Set([]Target{victim, at("198.51.100.1")})
		time.Sleep(time.Minute)
		if s := w.Status(victim); s.State != Up {
			t.Fatalf("Expected the node to be probed, got %+v", s)
		}
		f.set(0, context.DeadlineExceeded)
		time.Sleep(20 * time.Second)
		if s := w.Status(victim); s.State != Down {
			t.Errorf("Expected the node to be down, got %+v", s)
		}
	})
}

// reset makes all pairs free. A probe of an earlier test may still be in
// flight, so that it takes the lock.
func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.sweeping = make(map[addressPair]*turns), false
}

// wait waits until it is the turn of a probe, and reports whether that was before ctx
// ended.
func (l *limiter) wait(ctx context.Context, pair addressPair, name string, first bool) bool {
	came := make(chan struct{})
	turn := l.enter(pair, name, first, func() { close(came) })
	if turn == nil {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return !l.cancel(pair, name, turn)
	case <-came:
		return true
	}
}
