package latencyprobe

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// TestBusyProcessDoesNotAddLatency checks that the delay of the Go scheduler is
// not part of a DNS latency: with all cores busy in this process, medians move
// by less than 5 %.
func TestBusyProcessDoesNotAddLatency(t *testing.T) {
	to := serverProcess(t, "dns")
	p, err := prober.Parse([]string{"dns", fmt.Sprint(to.Port()), "www.example.org"})
	if err != nil {
		t.Fatal(err)
	}

	// The latency that is measured, and the one that a goroutine sees.
	measure := func() (median, goroutine time.Duration) {
		var rtts, clocks []time.Duration
		for range 31 {
			began := time.Now()
			got, err := p.Probe(t.Context(), to.Addr(), netip.Addr{})
			clocks = append(clocks, time.Since(began))
			if err != nil {
				t.Fatal(err)
			}
			rtts = append(rtts, got.RTT)
		}
		slices.Sort(rtts)
		slices.Sort(clocks)
		return rtts[len(rtts)/2], clocks[len(clocks)/2]
	}
	idle, _ := measure()

	release := busyCores()
	busy, goroutine := measure()
	release()
	t.Logf("Median %s idle, %s with all cores busy; %s by the clock of the goroutine", idle, busy, goroutine)
	if moved := (busy - idle).Abs(); moved > idle/20 {
		t.Errorf("Expected the median to move by less than 5 %% of %s, got %s", idle, moved)
	}
}

// busyCores keeps all cores busy in this process until it is released.
func busyCores() (release func()) {
	var (
		stop atomic.Bool
		wg   sync.WaitGroup
	)
	for range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() { //revive:disable-line:empty-block -- the load
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // until the run queues are full
	return func() {
		stop.Store(true)
		wg.Wait()
	}
}

// TestDelayedSamples checks by which waits of goroutines a sample is delayed.
func TestDelayedSamples(t *testing.T) {
	at := func(counts ...uint64) *metrics.Float64Histogram {
		return &metrics.Float64Histogram{Counts: counts, Buckets: []float64{0, 0.0001, 0.001, 0.01, 1}}
	}
	before := at(1000, 1000, 1000, 1000)
	tests := []struct {
		name  string
		after *metrics.Float64Histogram
		rtt   time.Duration
		want  bool
	}{
		{"nothing ran", before, 10 * time.Millisecond, false},
		{"no wait", at(1100, 1000, 1000, 1000), 10 * time.Millisecond, false},
		{"one of a hundred waits", at(1099, 1000, 1000, 1001), 10 * time.Millisecond, false},
		{"one of ten waits", at(1009, 1000, 1000, 1001), 10 * time.Millisecond, true},
		{"waits that are too short to count", at(1009, 1000, 1001, 1000), 100 * time.Millisecond, false},
		{"waits that count for a shorter latency", at(1009, 1000, 1001, 1000), 10 * time.Millisecond, true},
	}
	for _, tc := range tests {
		if got := delayedBetween(before, tc.after, tc.rtt); got != tc.want {
			t.Errorf("%s: Expected delayed %v, got %v", tc.name, tc.want, got)
		}
	}
}

// TestBusyProcessDiscardsSamples checks that with all cores busy a sample that
// the kernel has not timed does not enter the statistics, and counts as
// success.
func TestBusyProcessDiscardsSamples(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	p, err := prober.Parse([]string{"http://www.example.org:" + port + "/"})
	if err != nil {
		t.Fatal(err)
	}
	m := newMeasurement(measurementKey{target: Target{Addr: loopback}})
	m.last.RTT = time.Millisecond

	release := busyCores()
	defer release()
	delayed := 0
	for range 5 {
		addressLimiter.reset()
		o, ok := m.probe(p, 10*time.Second, time.Now())
		if o.err != nil || !ok {
			t.Fatalf("Expected an answer, got %v", o.err)
		}
		if o.delayed {
			delayed++
		}
		m.apply(&o, &o)
	}
	if delayed < 4 {
		t.Errorf("Expected samples of a busy process to be delayed, got %d of 5", delayed)
	}
	if s := m.status(); s.State != Up || s.Samples != 5 || s.Lost != 0 || m.statistics().Samples != 5-delayed {
		t.Errorf("Expected successes without latency, got %+v, %+v", s, m.statistics())
	}
}
