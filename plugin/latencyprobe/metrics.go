package latencyprobe

import (
	"cmp"
	"slices"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

var (
	probeDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "duration_seconds",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Histogram of the latency that successful probes measured, by method.",
	}, []string{"method"})

	phaseDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "phase_duration_seconds",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help: "Histogram of the phases of successful tls and http probes: " +
			"connect and tls alone, first_byte and total since the start of the probe.",
	}, []string{"method", "phase"})

	probeFailures = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "failures_total",
		Help:      "Counter of failed probes, by method and reason.",
	}, []string{"method", "reason"})

	localErrors = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "local_errors_total",
		Help:      "Counter of probes that failed because of this machine and say nothing about the target, by method and reason.",
	}, []string{"method", "reason"})

	samplesDiscarded = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "discarded_total",
		Help:      "Counter of samples that were discarded because this process was too busy to time them, or their time is impossible, by method.",
	}, []string{"method"})

	startDelay = promauto.NewHistogram(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "late_seconds",
		Buckets:                     []float64{.001, .005, .01, .025, .05, .1, .25, 1},
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Histogram of the delay between the planned and the actual start of probes.",
	})

	traceDropped = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "record_dropped_total",
		Help:      "Counter of samples that are missing in traces because the disk was too slow or failed.",
	})

	stateWrites = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "state_writes_total",
		Help:      "Counter of writes of state files, by result.",
	}, []string{"result"})

	inFlight = promauto.NewGauge(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "in_flight",
		Help:      "Gauge of the probes that are in flight.",
	})

	_ = promauto.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "isolated",
		Help:      "Gauge of whether this machine's own network seems to have failed (1), which freezes states and rankings, or not (0).",
	}, func() float64 { return boolValue(isolation.active()) })
)

// startCounters makes the counters of the methods in use begin with 0: the first
// failure of a kind is an increase.
func (l *LatencyProbe) startCounters() {
	for _, result := range []string{"ok", "error"} {
		stateWrites.WithLabelValues(result)
	}
	for _, s := range l.probes {
		for _, p := range []prober.Prober{s.rtt, s.health} {
			if p == nil {
				continue
			}
			for _, reason := range []prober.Reason{prober.Refused, prober.Timeout, prober.Unreachable, prober.WrongAnswer, prober.Other} {
				probeFailures.WithLabelValues(p.Method(), string(reason))
			}
			for _, reason := range []prober.LocalReason{
				prober.LocalFiles, prober.LocalMemory, prober.LocalAddress, prober.LocalPermission, prober.LocalStalled, prober.LocalOther,
			} {
				localErrors.WithLabelValues(p.Method(), string(reason))
			}
			samplesDiscarded.WithLabelValues(p.Method())
		}
	}
}

var (
	targetLabels = []string{"name", "address", "probe", "source"}

	descSamples  = desc("samples_total", "Counter of probes of latency that have ended, losses included.")
	descLost     = desc("lost_total", "Counter of probes of latency that failed.")
	descUp       = desc("up", "Gauge of whether the target is down (0) or not (1).")
	descEstimate = desc("estimate_seconds", "Gauge of the latency that the target is ranked by.")
	descJitter   = desc("jitter_seconds", "Gauge of the mean difference between successive samples, of the last 10 minutes at most.")
	descLoss     = desc("loss_ratio", "Gauge of the share of probes of latency that failed, of the last 10 minutes at most.")
)

var descTargets = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "targets"),
	"Gauge of targets, by probe and state.", []string{"probe", "state"}, nil)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, targetLabels, nil)
}

func init() { prometheus.MustRegister(targetCollector{}) }

// targetCollector exports the state of each target, as long as it is measured and
// its probe lists targets, and how many there are in each state.
type targetCollector struct{}

var _ prometheus.Collector = targetCollector{}

// Describe implements the prometheus.Collector interface.
func (targetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSamples, descLost, descUp, descEstimate, descJitter, descLoss, descTargets} {
		ch <- d
	}
}

// Collect implements the prometheus.Collector interface.
func (targetCollector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[[4]string]bool)
	counts := make(map[string]map[State]int)
	all := measurements.Values()
	slices.SortFunc(all, func(a, b *measurement) int {
		return cmp.Or(cmp.Compare(a.key.probeID, b.key.probeID), cmp.Compare(a.key.target.Check.Name, b.key.target.Check.Name))
	})
	for _, m := range all {
		labels := [4]string{m.key.target.Name, m.key.target.Addr.String(), m.key.target.Probe, ""}
		if m.key.source.IsValid() {
			labels[3] = m.key.source.String()
		}
		if seen[labels] {
			continue // different probes of one name, in two server blocks, or another cut of a node
		}
		seen[labels] = true
		status := m.status()
		if counts[labels[2]] == nil {
			counts[labels[2]] = make(map[State]int)
		}
		counts[labels[2]][status.State]++
		if s := m.settings.Load(); s != nil && s.unlisted {
			continue
		}
		stats := m.statistics()
		emit := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, labels[:]...)
		}
		emit(descSamples, prometheus.CounterValue, float64(status.Samples))
		emit(descLost, prometheus.CounterValue, float64(status.Lost))
		emit(descUp, prometheus.GaugeValue, boolValue(status.State != Down))
		emit(descLoss, prometheus.GaugeValue, stats.Loss)
		if status.Estimate.Measured() {
			emit(descEstimate, prometheus.GaugeValue, status.Estimate.Value/1000)
			emit(descJitter, prometheus.GaugeValue, stats.Jitter.Seconds())
		}
	}
	for probe, states := range counts {
		for _, state := range []State{Unknown, Up, Down} {
			ch <- prometheus.MustNewConstMetric(descTargets, prometheus.GaugeValue, float64(states[state]), probe, state.String())
		}
	}
}

// count adds a probe to the metrics of its method.
func (o outcome) count(method string) {
	switch {
	case o.err != nil:
		probeFailures.WithLabelValues(method, string(prober.ReasonOf(o.err))).Inc()
	case o.delayed, o.impossible:
		samplesDiscarded.WithLabelValues(method).Inc()
	default:
		probeDuration.WithLabelValues(method).Observe(o.RTT.Seconds())
		for phase, took := range o.Phases() {
			phaseDuration.WithLabelValues(method, phase).Observe(took.Seconds())
		}
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
