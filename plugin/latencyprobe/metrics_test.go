package latencyprobe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestTargetMetricsOff checks that targets of a probe without metrics of its targets
// are counted, and those of other probes listed.
func TestTargetMetricsOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		good, bad := newFake(time.Millisecond), newFake(time.Millisecond)
		bad.set(0, context.DeadlineExceeded)
		l := withProber(good)
		l.probes["many"] = withProber(bad).probes[""]
		l.probes["many"].unlisted = true
		w := l.Watch()
		defer w.Close()
		targets := []Target{at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3")}
		targets[1].Probe, targets[2].Probe = "many", "many"
		w.Set(targets)
		time.Sleep(time.Minute)
		const counts = `# HELP coredns_latencyprobe_targets Gauge of targets, by probe and state.
# TYPE coredns_latencyprobe_targets gauge
coredns_latencyprobe_targets{probe="",state="down"} 0
coredns_latencyprobe_targets{probe="",state="unknown"} 0
coredns_latencyprobe_targets{probe="",state="up"} 1
coredns_latencyprobe_targets{probe="many",state="down"} 2
coredns_latencyprobe_targets{probe="many",state="unknown"} 0
coredns_latencyprobe_targets{probe="many",state="up"} 0
`
		if err := testutil.CollectAndCompare(targetCollector{}, strings.NewReader(counts), "coredns_latencyprobe_targets"); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"up", "samples_total", "lost_total", "loss_ratio", "estimate_seconds", "jitter_seconds"} {
			if n := testutil.CollectAndCount(targetCollector{}, "coredns_latencyprobe_"+name); n != 1 {
				t.Errorf("Expected %s of one target, got %d", name, n)
			}
		}
	})
}

func TestTargetMetricsLine(t *testing.T) {
	for line, want := range map[string]string{
		"target-metrics off":                       "",
		"target-metrics":                           "expected 'target-metrics off'",
		"target-metrics on":                        "expected 'target-metrics off'",
		"target-metrics off\n\ttarget-metrics off": "'target-metrics' is given twice",
	} {
		probes, err := parse(caddy.NewTestController("dns", "latencyprobe {\n\t"+line+"\n}"))
		switch {
		case want == "" && (err != nil || !probes[""].unlisted):
			t.Errorf("%s: expected no metrics of targets, got error %v", line, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: expected %q, got %v", line, want, err)
		}
	}
}

// BenchmarkScrape collects the metrics of targets and writes them as Prometheus reads
// them, with and without those of each target.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		for _, listed := range []bool{true, false} {
			b.Run(fmt.Sprintf("targets=%d/listed=%v", n, listed), func(b *testing.B) {
				l := withProber(newFake(time.Millisecond))
				l.probes[""].interval, l.probes[""].unlisted = time.Hour, !listed
				w := l.Watch()
				defer w.Close()
				targets, addr := make([]Target, n), netip.MustParseAddr("10.0.0.1")
				for i := range targets {
					targets[i], addr = at(addr.String()), addr.Next()
				}
				w.Set(targets)
				for _, target := range targets {
					for range 128 {
						o := outcome{ended: time.Now()}
						o.RTT = time.Millisecond
						w.measurement(target).apply(&o, &o)
					}
				}
				r := prometheus.NewRegistry()
				r.MustRegister(targetCollector{})
				scrape := promhttp.HandlerFor(r, promhttp.HandlerOpts{})
				size := 0
				for b.Loop() {
					answer := httptest.NewRecorder()
					scrape.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
					size = answer.Body.Len()
				}
				b.ReportMetric(float64(size), "bytes")
			})
		}
	}
}
