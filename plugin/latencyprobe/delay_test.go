package latencyprobe

import (
	"context"
	"fmt"
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

// BenchmarkBusyProcess shows how much of the delay of the Go scheduler is part
// of a DNS latency: the median while this process is idle, while all cores are
// busy in this process, and then by the clock of the goroutine.
func BenchmarkBusyProcess(b *testing.B) {
	to := serverProcess(b, "dns")
	p, err := prober.Parse([]string{"dns", fmt.Sprint(to.Port()), "www.example.org"})
	if err != nil {
		b.Fatal(err)
	}
	measure := func() (median, goroutine time.Duration) {
		var rtts, clocks []time.Duration
		for range 31 {
			began := time.Now()
			got, err := p.Probe(b.Context(), to.Addr(), netip.Addr{})
			clocks = append(clocks, time.Since(began))
			if err != nil {
				b.Fatal(err)
			}
			rtts = append(rtts, got.RTT)
		}
		slices.Sort(rtts)
		slices.Sort(clocks)
		return rtts[len(rtts)/2], clocks[len(clocks)/2]
	}
	for b.Loop() {
		idle, _ := measure()
		release := busyCores()
		busy, goroutine := measure()
		release()
		b.ReportMetric(float64(idle)/1e6, "idle-ms")
		b.ReportMetric(float64(busy)/1e6, "busy-ms")
		b.ReportMetric(float64(goroutine)/1e6, "goroutine-ms")
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

// TestBusyProcessDiscardsSamples checks that a sample that the Go scheduler has
// delayed, and the kernel has not timed, does not enter the statistics, and
// counts as success.
func TestBusyProcessDiscardsSamples(t *testing.T) {
	buckets := []float64{0, 0.001, 1}
	idle := &metrics.Float64Histogram{Counts: []uint64{100, 0}, Buckets: buckets}
	busy := &metrics.Float64Histogram{Counts: []uint64{100, 100}, Buckets: buckets}
	tests := []struct {
		name        string
		after       *metrics.Float64Histogram
		kernelTimed bool
		delayed     bool
	}{
		{"idle", idle, false, false},
		{"busy", busy, false, true},
		{"busy, timed by the kernel", busy, true, false},
	}
	read := readSchedulerLatency
	t.Cleanup(func() { readSchedulerLatency = read })
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			m := newMeasurement(measurementKey{target: Target{Addr: loopback}})
			m.last.RTT = time.Millisecond
			readings := []*metrics.Float64Histogram{idle, tc.after}
			readSchedulerLatency = func(*[1]metrics.Sample) *metrics.Float64Histogram {
				next := readings[0]
				readings = readings[1:]
				return next
			}
			addressLimiter.reset()
			p := timed{prober.Result{RTT: 2 * time.Millisecond, KernelTimed: tc.kernelTimed}}
			o, ok := m.probe(t.Context(), p, time.Minute, time.Now())
			if o.err != nil || !ok || o.delayed != tc.delayed {
				t.Fatalf("Expected an answer, delayed %v, got %+v", tc.delayed, o)
			}
			m.apply(&o, &o)
			samples := 1
			if tc.delayed {
				samples = 0
			}
			if s := m.status(); s.State != Up || s.Samples != 1 || s.Lost != 0 || m.statistics().Samples != samples {
				t.Errorf("Expected a success and %d latencies, got %+v, %+v", samples, s, m.statistics())
			}
		})
	}
}

// timed is a prober that returns a result at once.
type timed struct{ result prober.Result }

func (timed) Method() string { return "timed" }

func (timed) ID() string { return "timed" }

func (p timed) Probe(context.Context, netip.Addr, netip.Addr) (prober.Result, error) {
	return p.result, nil
}
