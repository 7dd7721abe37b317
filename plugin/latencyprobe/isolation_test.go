package latencyprobe

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// TestIsolation checks that states are frozen while nearly all targets are
// silent, and that a failure of one network is not isolation.
func TestIsolation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		targets := []Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1"), at("2001:db8::1")}
		neighbors := []Target{at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3"), at("10.0.0.4")}
		f, n := newFake(time.Millisecond), newFake(time.Millisecond)
		l, m := withProber(f), withProber(n)
		w, v := l.Watch(), m.Watch()
		defer w.Close()
		w.Set(targets)
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		if !l.Isolated() {
			t.Fatal("Expected to be isolated when all targets fail")
		}
		for _, target := range targets {
			if s := w.Status(target); s.State != Up {
				t.Errorf("Expected the states to be frozen, got %+v", s)
			}
		}
		f.set(time.Millisecond, nil)
		time.Sleep(10 * time.Second)
		if l.Isolated() {
			t.Error("Expected isolation to end when all answer")
		}

		// All but one fail: its answers do not end the isolation.
		n.set(time.Millisecond, nil)
		more := append([]Target(nil), targets...)
		for i := range byte(20) {
			more = append(more, at(netip.AddrFrom4([4]byte{198, 51, 100 + i, 9}).String()))
		}
		w.Set(more)
		v.Set([]Target{at("10.9.9.9")})
		time.Sleep(time.Minute)
		ends := isolation.ended.Load()
		f.set(0, context.DeadlineExceeded)
		time.Sleep(10 * time.Minute)
		if !l.Isolated() || isolation.ended.Load() != ends {
			t.Error("Expected to stay isolated while one of many answers")
		}
		f.set(time.Millisecond, nil)
		time.Sleep(10 * time.Second)
		if l.Isolated() || isolation.ended.Load() != ends+1 {
			t.Error("Expected isolation to end once when the others answer again")
		}

		// All targets of one network fail.
		v.Set(neighbors)
		defer v.Close()
		time.Sleep(time.Minute)
		n.set(0, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		if l.Isolated() {
			t.Error("Expected no isolation while other networks answer")
		}
		for _, target := range neighbors {
			if s := v.Status(target); s.State != Down {
				t.Errorf("Expected %s to be down, got %+v", target.Name, s)
			}
		}
	})
}

// TestRefusalsAreNotIsolation checks that an answer, if only an error, shows
// that this machine's network works.
func TestRefusalsAreNotIsolation(t *testing.T) {
	for _, err := range []error{syscall.ECONNREFUSED, prober.AnswerError("HTTP status 500")} {
		bubble(t, func(t *testing.T) {
			f := newFake(time.Millisecond)
			l := withProber(f)
			w := l.Watch()
			defer w.Close()
			targets := []Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")}
			w.Set(targets)
			time.Sleep(time.Minute)
			f.set(0, err)
			time.Sleep(time.Minute)
			if s := w.Status(targets[0]); l.Isolated() || s.State != Down {
				t.Errorf("%v: Expected all to be down, got %+v", err, s)
			}
		})
	}
}

// TestTargetsOfOneNodeAreNotIsolation checks that the targets of one node, which
// somebody may have registered with a stolen key, neither begin nor prolong
// isolation: not those that never answered, and not many that did.
func TestTargetsOfOneNodeAreNotIsolation(t *testing.T) {
	others := []Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")}
	var registered []Target
	for i := range byte(24) {
		registered = append(registered, Target{Name: "stolen", Addr: netip.AddrFrom4([4]byte{10, i, 0, 1})})
	}
	for name, tc := range map[string]struct {
		others   []Target // of which the first one dies
		answered bool     // all registered targets did, before
	}{
		"silent addresses of one of three": {others[:2], false},
		"silent addresses of one of two":   {others[:1], false},
		"one of three falls silent":        {others[:2], true},
		"one of two falls silent":          {others[:1], true},
		"one of four falls silent":         {others, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				first, rest, stolen := newFake(time.Millisecond), newFake(time.Millisecond), newFake(time.Millisecond)
				l := withProber(first)
				w, v, u := l.Watch(), withProber(rest).Watch(), withProber(stolen).Watch()
				for _, watch := range []*Watch{w, v, u} {
					defer watch.Close()
				}
				w.Set(tc.others[:1])
				v.Set(tc.others[1:])
				if tc.answered {
					u.Set(registered)
				}
				time.Sleep(time.Minute)
				stolen.set(0, context.DeadlineExceeded)
				u.Set(registered)
				first.set(0, context.DeadlineExceeded)
				time.Sleep(13 * time.Second) // as a silent target takes at most
				if s := w.Status(tc.others[0]); l.Isolated() || s.State != Down {
					t.Errorf("Expected the other node to be down, got %+v, isolated: %t", s, l.Isolated())
				}
			})
		})
	}

	bubble(t, func(t *testing.T) {
		f, stolen := newFake(time.Millisecond), newFake(0)
		stolen.set(0, context.DeadlineExceeded)
		l := withProber(f)
		w, u := l.Watch(), withProber(stolen).Watch()
		defer w.Close()
		defer u.Close()
		w.Set(others)
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		time.Sleep(13 * time.Second)
		u.Set(registered)
		time.Sleep(time.Minute)
		if !l.Isolated() {
			t.Error("Expected to be isolated when all nodes fail")
		}
		f.set(time.Millisecond, nil)
		time.Sleep(13 * time.Second)
		if l.Isolated() {
			t.Error("Expected isolation to end when all nodes but one answer")
		}
	})
}

// TestIsolationEndsWithoutTargets checks that isolation ends although all targets
// that were silent are gone.
func TestIsolationEndsWithoutTargets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, n := newFake(time.Millisecond), newFake(time.Millisecond)
		l := withProber(f)
		w, v := l.Watch(), withProber(n).Watch()
		defer w.Close()
		defer v.Close()
		w.Set([]Target{at("192.0.2.1"), at("198.51.100.1"), at("203.0.113.1")})
		time.Sleep(time.Minute)
		f.set(0, context.DeadlineExceeded)
		time.Sleep(13 * time.Second)
		if !l.Isolated() {
			t.Fatal("Expected to be isolated when all targets fail")
		}
		w.Set(nil)
		n.set(time.Millisecond, prober.AnswerError("REFUSED"))
		v.Set([]Target{at("192.0.2.9")})
		time.Sleep(10 * time.Second)
		if l.Isolated() {
			t.Error("Expected isolation to end when a new target refuses")
		}
	})
}

// BenchmarkDetect is what one silent target costs before it goes down, with many
// others of which most answer.
func BenchmarkDetect(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			l := withProber(newFake(time.Millisecond))
			l.probes[""].interval = time.Hour // what counts is set here
			w := l.Watch()
			defer w.Close()
			targets, addr := make([]Target, n), netip.MustParseAddr("10.0.0.1")
			for i := range targets {
				targets[i], addr = at(addr.String()), addr.Next()
			}
			w.Set(targets)
			now := time.Now()
			for i, target := range targets {
				w.measurement(target).lastProbe.Store(&probeEnd{ended: now, reached: i%20 != 0, wasUp: true})
			}
			for b.Loop() {
				if isolation.detect(now.Add(-time.Minute)) {
					b.Fatal("Expected no isolation")
				}
			}
		})
	}
}
