package latencyprobe

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
)

// total adds the slots of a history up.
func total(p history.Past) (attempts, lost int) {
	for _, s := range p.Slots {
		attempts += s.All
		lost += s.Lost
	}
	return attempts, lost
}

func TestLastHourHasEachProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(20 * time.Millisecond)
		w := withProber(f).Watch()
		target := at("192.0.2.1")
		w.Set([]Target{target})
		defer w.Close()
		if p := w.LastHour(target); len(p.Slots) != 0 || p.Slots == nil {
			t.Errorf("Expected an empty list of slots at first, got %v", p.Slots)
		}
		time.Sleep(10 * time.Minute)
		f.set(80*time.Millisecond, nil)
		time.Sleep(10 * time.Minute)
		f.set(0, errors.New("refused"))
		time.Sleep(10*time.Minute + time.Second)

		p := w.LastHour(target)
		attempts, lost := total(p)
		status := w.Status(target)
		// A busy machine delays some successes, which say nothing about the target.
		delayed := int(status.Samples) - attempts
		if delayed < 0 || delayed > attempts/4 || uint64(lost) != status.Lost || lost < 100 {
			t.Errorf("Expected %d probes of which %d were lost, got %d and %d", status.Samples, status.Lost, attempts, lost)
		}
		if n := len(p.Slots); n != 60 && n != 61 {
			t.Fatalf("Expected half an hour of slots, got %d", n)
		}
		for i, want := range map[int]history.Slot{3: {Min: 20, Median: 20, Max: 20}, 30: {Min: 79.99, Median: 79.99, Max: 79.99}, 50: {}} {
			got := p.Slots[i]
			got.All, got.Lost = 0, 0
			if got != want {
				t.Errorf("Expected slot %d to be %+v, got %+v", i, want, got)
			}
		}
	})
}

func TestLastHourGoesOnOverReload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := withProber(newFake(20 * time.Millisecond))
		target := at("192.0.2.1")
		previous := l.Watch()
		previous.Set([]Target{target})
		time.Sleep(20 * time.Minute)
		next := l.Watch() // of the next instance
		next.Set([]Target{target})
		defer next.Close()
		previous.Close()
		time.Sleep(20 * time.Minute)
		if attempts, _ := total(next.LastHour(target)); attempts < 450 {
			t.Errorf("Expected the probes of both instances, some 480, got %d", attempts)
		}
	})
}

// TestHistoriesAreBounded measures more targets than may have a history, some of them
// later, and a question, which has none.
func TestHistoriesAreBounded(t *testing.T) {
	const free = 3
	bubble(t, func(t *testing.T) {
		begin := hours.Load()
		hours.Store(maxHours - free)
		defer func() {
			if n := hours.Load(); n != maxHours-free {
				t.Errorf("Expected all histories to be given back, got %d more", n-maxHours+free)
			}
			hours.Store(begin)
		}()
		l := withProber(newFake(time.Millisecond))
		recorded := func(w *Watch, targets []Target) (n int) {
			for _, target := range targets {
				if len(w.LastHour(target).Slots) > 0 {
					n++
				}
			}
			return n
		}
		watch := func(first int) (*Watch, []Target) {
			w := l.Watch()
			targets := make([]Target, 5)
			for i := range targets {
				targets[i] = at(fmt.Sprintf("192.0.2.%d", first+i))
			}
			w.Set(targets)
			return w, targets
		}
		question := newMeasurement(measurementKey{target: Target{Addr: loopback, Check: Check{Port: 53, Name: "example.org.", Type: 1}}})
		question.apply(&outcome{ended: time.Now()}, nil)
		question.end()
		question.endpoint.leave(question)
		if question.hour != nil {
			t.Error("Expected no history of a question")
		}
		first, targets := watch(1)
		time.Sleep(time.Minute)
		if n := recorded(first, targets); n != free {
			t.Errorf("Expected %d histories, got %d", free, n)
		}
		second, targets := watch(10)
		time.Sleep(time.Minute)
		if n := recorded(second, targets); n != 0 {
			t.Errorf("Expected no history beyond the bound, got %d", n)
		}
		first.Close()
		time.Sleep(time.Minute)
		if n := recorded(second, targets); n != free {
			t.Errorf("Expected the histories that others gave back, got %d", n)
		}
		second.Close()
	})
}

// TestLastHourBesideProbes reads histories while probes add to them and targets come
// and go.
func TestLastHourBesideProbes(t *testing.T) {
	l := withProber(newFake(0))
	l.probes[""].interval = time.Millisecond
	w := l.Watch()
	target := at("192.0.2.77") // of no other test: its probes are in real time
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.LastHour(target)
				}
			}
		})
	}
	for range 200 {
		w.Set([]Target{target})
		w.measurement(target).apply(&outcome{ended: time.Now()}, nil)
		if attempts, _ := total(w.LastHour(target)); attempts == 0 {
			t.Error("Expected the history to have the probe")
		}
		w.Set(nil)
		if p := w.LastHour(target); len(p.Slots) != 0 {
			t.Errorf("Expected no history of a target that is not measured, got %v", p)
		}
	}
	close(stop)
	reading.Wait()
	w.Close()
}
