package latencyprobe

import (
	"cmp"
	"slices"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	durations = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "duration_seconds",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Histogram of the latency that successful probes measured, by method.",
	}, []string{"method"})

	phases = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "phase_duration_seconds",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Histogram of the phases of successful tls and http probes: connect and tls alone, first_byte and total since the start.",
	}, []string{"method", "phase"})

	failures = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "failures_total",
		Help:      "Counter of failed probes, by method and reason.",
	}, []string{"method", "reason"})

	discarded = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "discarded_total",
		Help:      "Counter of samples that were discarded because this process was too busy to take them in time, by method.",
	}, []string{"method"})

	lateness = promauto.NewHistogram(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "late_seconds",
		Buckets:                     []float64{.001, .005, .01, .025, .05, .1, .25, 1},
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Histogram of how late probes started.",
	})

	recordDropped = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "record_dropped_total",
		Help:      "Counter of samples that were not recorded, since the disk was too slow or failed.",
	})

	inFlight = promauto.NewGauge(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "in_flight",
		Help:      "Gauge of the probes that run now.",
	})

	_ = promauto.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "isolated",
		Help:      "Whether our own network seems gone (1), which freezes states and rankings, or not (0).",
	}, func() float64 { return boolean(isolation.is()) })
)

var (
	targetLabels = []string{"name", "address", "probe", "source"}

	descSamples  = desc("samples_total", "Counter of probes of latency that ended, losses included.")
	descLost     = desc("lost_total", "Counter of probes of latency that failed.")
	descUp       = desc("up", "Whether the target is up (1) or down (0); 1 until that is known.")
	descEstimate = desc("estimate_seconds", "Gauge of the latency that the target is ranked by.")
	descJitter   = desc("jitter_seconds", "Gauge of the mean difference between successive samples, over 10 minutes at most.")
	descLoss     = desc("loss_ratio", "Gauge of the share of probes that failed, over 10 minutes at most.")
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, targetLabels, nil)
}

func init() { prometheus.MustRegister(targets{}) }

// targets exports what is known of each target, as long as there is one.
type targets struct{}

var _ prometheus.Collector = targets{}

// Describe implements the prometheus.Collector interface.
func (targets) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSamples, descLost, descUp, descEstimate, descJitter, descLoss} {
		ch <- d
	}
}

// Collect implements the prometheus.Collector interface.
func (targets) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[[4]string]bool)
	all := allTargets()
	slices.SortFunc(all, func(a, b *target) int { return cmp.Compare(a.key.probe, b.key.probe) })
	for _, t := range all {
		labels := [4]string{t.key.target.Name, t.key.target.Addr.String(), t.key.target.Probe, ""}
		if t.key.source.IsValid() {
			labels[3] = t.key.source.String()
		}
		if seen[labels] {
			continue // two server blocks with probes of one name that differ
		}
		seen[labels] = true
		status, stats := t.status(), t.statistics()
		emit := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, labels[:]...)
		}
		emit(descSamples, prometheus.CounterValue, float64(status.Samples))
		emit(descLost, prometheus.CounterValue, float64(status.Lost))
		emit(descUp, prometheus.GaugeValue, boolean(status.State != Down))
		emit(descLoss, prometheus.GaugeValue, stats.Loss)
		if status.Estimate.Measured() {
			emit(descEstimate, prometheus.GaugeValue, status.Estimate.Value/1000)
			emit(descJitter, prometheus.GaugeValue, stats.Jitter.Seconds())
		}
	}
}

// count counts one measurement.
func count(m method, got result, err error) {
	if err != nil {
		failures.WithLabelValues(m.kind(), reason(err)).Inc()
		return
	}
	if got.late {
		discarded.WithLabelValues(m.kind()).Inc()
		return
	}
	durations.WithLabelValues(m.kind()).Observe(got.rtt.Seconds())
	got.phases(func(name string, took time.Duration) {
		phases.WithLabelValues(m.kind(), name).Observe(took.Seconds())
	})
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
